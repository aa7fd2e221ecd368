"""Checking where concurrent states came together: bases and the final context, from the log and its plan."""

from __future__ import annotations

from machine.errors import Code, LogError
from machine.events import Entry, RunCompleted, StateEntered
from machine.kernel.frontier import Conflict, Frontier
from machine.kernel.history import History
from machine.kernel.snapshot import Load
from machine.plan import recorded_graph

__all__ = ["Joins"]


class Joins:
    """What the plan of a run says of the context each state begins on. It runs nothing."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._frontier: Frontier | None = None
        self._plan_id: str | None = None

    def check(self, history: History, entry: Entry) -> None:
        """Check an entry before it is folded. Raises `LogError` where its snapshot is not what was written."""
        event = entry.event
        if history.side_by_side is None:
            return
        try:
            if isinstance(event, StateEntered):
                frontier = self._at(history)
                if (
                    not frontier.may_begin(event.state_id)
                    or frontier.base(event.state_id).id != event.base_snapshot_id
                ):
                    text = f"{event.state_id} begins on what is not the context its ancestors left"
                    raise LogError(entry.seq, text, code=Code.LOG_BASE_SNAPSHOT)
            elif isinstance(event, RunCompleted):
                final = event.final_snapshot_id
                if final is not None and self._at(history).final().id != final:
                    text = "the run ends on what is not the context its states left"
                    raise LogError(entry.seq, text, code=Code.LOG_END_SNAPSHOT)
        except Conflict as exc:
            raise LogError(entry.seq, str(exc), code=Code.LOG_BASE_SNAPSHOT) from None

    def _at(self, history: History) -> Frontier:
        if self._frontier is None or self._plan_id != history.plan_id:
            self._plan_id = history.plan_id
            self._frontier = Frontier(recorded_graph(self._load(history.plan_id or "")), self._load)
        self._frontier.follow(history)
        return self._frontier
