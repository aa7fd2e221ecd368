"""The scheduler of a run with concurrent states.

The order in which it begins states changes nothing that any of them sees, so a replay may begin them in another
order than the recorded one.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import attrs

from machine.config import FanOutJoin, OnFailure, RunConfig
from machine.errors import ErrorInfo
from machine.kernel.decisions import (
    AwaitAttempts,
    CompleteRun,
    Decision,
    EnterState,
    ScheduleRetry,
    SkipState,
    SuspendRun,
)
from machine.kernel.frontier import Conflict, Frontier
from machine.kernel.history import History
from machine.kernel.next_run import completed
from machine.kernel.retry_and_skip import retry_decision, skip_decision, skipped_failure, spent_error
from machine.kernel.run_status import RunStatus
from machine.plan import Graph
from machine.waits import PauseWait, Wait


@attrs.define
class Schedule:
    """The progress of a run with concurrent states, and the states that are being attempted.

    `busy` are the states with an attempt in progress. `prefer` is a state to begin before others if it may, even
    when the run has failed: a replay that makes one attempt after another uses it for a state that had begun before
    the failure.
    """

    frontier: Frontier
    busy: set[str] = attrs.field(factory=set)
    prefer: str | None = None
    failing: bool = False
    """True when no further state is begun: a state has failed for good, or two states conflict."""

    def preferred(self, history: History) -> str | None:
        """Return the preferred state when it may begin, for the first time or again, otherwise None."""
        self.frontier.follow(history)
        if self.prefer is None:
            return None
        fresh = self.prefer not in history.states and self.frontier.may_begin(self.prefer)
        return self.prefer if fresh or self.prefer in history.stopped else None

    def next(
        self,
        plan: Graph,
        config: RunConfig,
        history: History,
        *,
        limited: bool = True,
        woken: AbstractSet[str] = frozenset(),
    ) -> Decision:
        """Return the next decision; `limited` and `woken` have the meaning they have in `decide`."""
        preferred = self.preferred(history)
        for state_id in self.frontier.take_ready():
            if state_id not in history.states and skip_decision(plan, config, history, state_id) is None:
                self._base(state_id)  # so that a conflict is known as soon as it arises
        stopped: dict[str, EnterState | ScheduleRetry | SkipState] = {}
        waits: list[Wait] = []
        lost: str | None = None
        spent: dict[str, ErrorInfo] = {}
        known = [self.prefer] if self.prefer in history.stopped else history.stopped
        for state_id in known:
            if state_id is None or state_id in self.busy:
                continue
            error = spent_error(plan, config, history, state_id) if limited else None
            decision: EnterState | ScheduleRetry | SuspendRun | SkipState | None = None
            if error is None:
                decision = retry_decision(plan, config, history, state_id, woken=state_id in woken)
            decision = decision or skipped_failure(plan, history, state_id, error)
            if decision is None and error is not None:
                spent[state_id] = error
            elif decision is None:
                lost = lost or state_id
            elif isinstance(decision, SuspendRun):
                waits += decision.waits
            else:
                stopped[state_id] = decision
        self.failing = lost is not None or bool(spent) or self.frontier.error is not None
        first = preferred if preferred in stopped or preferred not in history.states else None
        if first is None and not self.failing:
            first = next(iter(stopped), None) or self.frontier.fresh(history, self.busy)
        if first is None:  # that a state is skipped for its failure is recorded in a run that fails, too
            first = next((it for it, then in stopped.items() if isinstance(then, SkipState)), None)
        begun = self._begun(plan, config, history, first, stopped) if first is not None else None
        if begun is not None or self.busy:
            return begun or self.awaiting(config)
        if waits and not self.failing:
            return SuspendRun(tuple([wait for wait in waits if isinstance(wait, PauseWait)] or waits))
        # the first one in plan order, because in a replay they may end in another order
        error = (
            next((spent[state_id] for state_id in plan.order if state_id in spent), None) if spent else None
        )
        return self._ended(plan, history, lost, error)

    def awaiting(self, config: RunConfig) -> AwaitAttempts:
        """Return the decision to wait for the attempts that are being made."""
        mode = config.execution_mode
        cancels = isinstance(mode, FanOutJoin) and mode.on_failure is OnFailure.CANCEL
        return AwaitAttempts(cancel=self.failing and cancels)

    def _base(self, state_id: str) -> str | None:
        """Return the id of the context a state begins on; record a conflict and return None when there is none."""
        try:
            return self.frontier.base(state_id).id
        except Conflict as exc:
            self.frontier.clash(state_id, exc.error)
            return None

    def _begun(
        self,
        plan: Graph,
        config: RunConfig,
        history: History,
        first: str,
        stopped: Mapping[str, EnterState | ScheduleRetry | SkipState],
    ) -> Decision | None:
        """Return the decision that begins a state, or None when the limit is reached or it has no context."""
        again = stopped.get(first)
        if isinstance(again, ScheduleRetry | SkipState):
            return again
        if len(self.busy) >= (history.max_concurrency or 1):
            return next((other for other in stopped.values() if not isinstance(other, EnterState)), None)
        if again is None and (passed := skip_decision(plan, config, history, first)) is not None:
            return passed
        base = self._base(first)
        if base is None:
            return None
        return EnterState(first, 0, base) if again is None else again._replace(base_snapshot_id=base)

    def _ended(self, plan: Graph, history: History, lost: str | None, spent: ErrorInfo | None) -> CompleteRun:
        error = self.frontier.error or spent
        if lost is not None and error is None:
            error = self.frontier.missing_edge(lost, history.states[lost])
        failing = lost is not None or error is not None
        try:
            final = self.frontier.final().id
            return CompleteRun(RunStatus.FAILED, final, error) if failing else completed(plan, history, final)
        except Conflict as exc:
            # what failed before it is why the run does
            return CompleteRun(RunStatus.FAILED, None, error if failing else exc.error)
