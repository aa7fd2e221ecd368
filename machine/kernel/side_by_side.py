"""What comes next in a run whose states run side by side.

Which of several states begins first is the schedule's business and changes nothing that any of them sees; so a
replay may begin them in another order than the one they were recorded in.
"""

from __future__ import annotations

import attrs

from machine.config import RunConfig
from machine.events import Wait
from machine.kernel.decisions import (
    AwaitAttempts,
    CompleteRun,
    Decision,
    EnterState,
    ScheduleRetry,
    SuspendRun,
)
from machine.kernel.frontier import Conflict, Frontier
from machine.kernel.history import History
from machine.kernel.rules import passed_over, tried_again
from machine.kernel.status import RunStatus
from machine.plan import Graph

__all__ = ["Schedule"]


@attrs.define
class Schedule:
    """How far a run whose states run side by side has come, and who is at work on it.

    `busy` are the states whose attempts are being made; `prefer` is one to begin before others, if it may: in a
    replay it is begun even after a failure, for in the recording it was beside that.
    """

    frontier: Frontier
    busy: set[str] = attrs.field(factory=set)
    prefer: str | None = None
    failing: bool = False
    """True when no further state is begun: one has failed for good, or two got in each other's way."""

    def next(self, plan: Graph, config: RunConfig, history: History) -> Decision:
        """Return the next decision."""
        self.frontier.follow(history)
        stopped: dict[str, EnterState | ScheduleRetry] = {}
        waits: list[Wait] = []
        lost: str | None = None
        for state_id in history.stopped:
            if state_id in self.busy:
                continue
            decision = tried_again(plan, config, history, state_id)
            if decision is None:
                lost = lost or state_id
            elif isinstance(decision, SuspendRun):
                waits += decision.waits
            else:
                stopped[state_id] = decision
        self.failing = lost is not None or self.frontier.error is not None
        try:
            begun = self._begun(plan, config, history, stopped)
            if begun is not None or self.busy:
                return begun or AwaitAttempts()
            if self.failing:
                return self._failed(history, lost)
            if waits:
                return SuspendRun(tuple(waits))
            return CompleteRun(RunStatus.COMPLETED, self.frontier.final().id)
        except Conflict as exc:
            self.failing = True
            return AwaitAttempts() if self.busy else CompleteRun(RunStatus.FAILED, None, exc.error)

    def _begun(
        self,
        plan: Graph,
        config: RunConfig,
        history: History,
        stopped: dict[str, EnterState | ScheduleRetry],
    ) -> Decision | None:
        """Return what can be begun beside the attempts that are being made, None when nothing can."""
        if self.failing and self.prefer is None:
            return None
        if len(self.busy) >= (history.side_by_side or 1):
            return next((again for again in stopped.values() if isinstance(again, ScheduleRetry)), None)
        first = self.prefer
        if first not in stopped and (first in history.states or not self.frontier.may_begin(first)):
            first = None
        if first is None and not self.failing:
            first = next(iter(stopped), None) or self.frontier.fresh(history, self.busy)
        if first is None:
            return None
        again = stopped.get(first)
        if isinstance(again, EnterState):
            return attrs.evolve(again, base_snapshot_id=self.frontier.base(first).id)
        if again is not None:
            return again
        return passed_over(plan, config, history, first) or EnterState(first, 0, self.frontier.base(first).id)

    def _failed(self, history: History, lost: str | None) -> CompleteRun:
        error = self.frontier.error
        if lost is not None and error is None:
            error = self.frontier.missing_edge(lost, history.states[lost])
        try:
            return CompleteRun(RunStatus.FAILED, self.frontier.final().id, error)
        except Conflict:  # what failed before it is why the run does
            return CompleteRun(RunStatus.FAILED, None, error)
