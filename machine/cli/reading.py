"""One pass over a run's log, for the commands that show it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import attrs

from machine.cli.output import clean
from machine.engine import run_reader
from machine.engine.checking import LogCheck
from machine.errors import Code, UsageError
from machine.events import Entry, FactRecorded, RunStarted, StateCompleted, StateEntered, StateFailed
from machine.kernel import retry_and_skip, state_history
from machine.kernel.history import History, StateStatus
from machine.stores.base import Store

__all__ = [
    "RunLog",
    "StateTimes",
    "not_taken_text",
    "read",
    "short_state",
    "skipped_text",
    "status_of",
]


@attrs.define
class StateTimes:
    """The attempt durations and facts of one state, which its history does not have."""

    ms: int = 0
    facts: int = 0
    trace: str | None = None


@attrs.frozen
class RunLog:
    """A run as read from its log; `order` is that of the recorded plan, and `times` is by state id."""

    entries: Sequence[Entry]
    history: History
    order: tuple[str, ...]
    times: Mapping[str, StateTimes]

    @property
    def started(self) -> RunStarted:
        """The first event."""
        assert self.history.started is not None
        return self.history.started

    def state_ids(self, name: str | None) -> frozenset[str]:
        """Return the ids for a state's name, full or `step.state`; all of them for None."""
        if name is None:
            return frozenset(self.order)
        ids = frozenset(state_id for state_id in self.order if name in {state_id, short_state(state_id)})
        if not ids:
            names = [short_state(state_id) for state_id in self.order]
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"its states: {', '.join(names)}"
            raise UsageError(f"run {self.history.run_id} has no state {name!r}", code=Code.USAGE, hint=hint)
        return ids


def read(store: Store, run_id: str) -> RunLog:
    """Return a run's log, folded. Raises `LogError` or `CorruptionError` when it is damaged."""
    check = LogCheck(store.get)
    entries: list[Entry] = []
    times: dict[str, StateTimes] = {}
    since: dict[str, int] = {}
    for entry, _ in run_reader.checked(store, run_id, check):
        entries.append(entry)
        event = entry.event
        if isinstance(event, StateEntered):
            since[event.state_id] = entry.ts_millis
            times.setdefault(event.state_id, StateTimes())
        elif isinstance(event, FactRecorded):
            times[event.state_id].facts += 1
        elif isinstance(event, StateCompleted | StateFailed):
            state = times[event.state_id]
            if not isinstance(event, StateFailed) or event.error.code != Code.ORPHAN_ATTEMPT_RECOVERED:
                # the duration of a recovered attempt is unknown
                state.ms += max(entry.ts_millis - since[event.state_id], 0)
            trace = entry.info.get("trace")
            state.trace = trace if isinstance(trace, str) else None
    return RunLog(entries, check.history, check.end(), times)


def short_state(state_id: str) -> str:
    """Return a state's id without its op, as in the source of a plan."""
    return clean(state_id.partition(".")[2] or state_id)


def status_of(history: History, state_id: str) -> str:
    """Return the status of a state, `pending` when it has none."""
    state = history.states.get(state_id)
    return "pending" if state is None else StateStatus(state.status).value


def not_taken_text(not_taken: Sequence[str]) -> str:
    """Return in words which successors a state did not continue with."""
    return f"did not go on to {', '.join(map(short_state, not_taken))}" if not_taken else ""


def skipped_text(reason: str) -> str:
    """Return in words why a state was skipped."""
    kind, _, name = reason.partition(":")
    match f"{kind}:":
        case retry_and_skip.SKIP_REASON:
            return f"it has the tag {clean(name)}"
        case state_history.NOT_TAKEN:
            return f"{short_state(name)} did not go on to it"
        case state_history.UNREACHABLE:
            return f"it follows {short_state(name)}, which was skipped"
        case _:
            return clean(reason)
