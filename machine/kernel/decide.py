"""`decide`: what comes next, as a pure function of the plan, the configuration and the history.

It knows nothing of handlers, clocks or stores; the engine performs what it decides and nothing else.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import attrs

from machine.config import RunConfig
from machine.errors import Code, RunError
from machine.kernel.history import History, StateHistory, StateStatus
from machine.kernel.status import RunStatus
from machine.plan import Graph

__all__ = [
    "CompleteRun",
    "Decision",
    "Done",
    "EnterState",
    "RecoverOrphan",
    "ScheduleRetry",
    "SkipState",
    "StartRun",
    "decide",
]

SKIP_REASON: Final = "skip_tag:"
"""A state skipped by configuration has this and the tag as its reason."""


@attrs.frozen
class StartRun:
    """The log is empty: begin it."""


@attrs.frozen
class RecoverOrphan:
    """An attempt was left open by a crash: close it explicitly, before anything else."""

    state_id: str


@attrs.frozen
class SkipState:
    """The state will not run."""

    state_id: str
    reason: str


@attrs.frozen
class EnterState:
    """Run attempt `attempt` of the state on `base_snapshot_id`.

    `delay_ms` is what the scheduled retry has still to wait, counted from `since_ms` (milliseconds since the
    epoch); 0 for a first attempt.
    """

    state_id: str
    attempt: int
    base_snapshot_id: str
    delay_ms: int = 0
    since_ms: int = 0


@attrs.frozen
class ScheduleRetry:
    """Record that attempt `attempt` follows after `delay_ms` milliseconds."""

    state_id: str
    attempt: int
    delay_ms: int


@attrs.frozen
class CompleteRun:
    """End the run."""

    status: RunStatus
    final_snapshot_id: str


@attrs.frozen
class Done:
    """Nothing is left to do: the run has ended as `status`."""

    status: RunStatus


Decision: TypeAlias = StartRun | RecoverOrphan | SkipState | EnterState | ScheduleRetry | CompleteRun | Done


def decide(plan: Graph, config: RunConfig, history: History) -> Decision:
    """Return the next decision for a run in sequential mode. Constant time, whatever the number of states."""
    if history.started is None or history.checkpoint is None:
        return StartRun()
    if history.final:
        return Done(history.status)
    if history.open is not None:
        return RecoverOrphan(history.open.state_id)
    if history.settled >= len(plan.order):
        return CompleteRun(RunStatus.COMPLETED, history.checkpoint)
    # one state at a time in a fixed order: as many as have settled have been passed
    state_id = plan.order[history.settled]
    state = history.states.get(state_id)
    if state is None:
        for tag in plan.states[state_id].meta.tags:
            if tag in config.skip_tags:
                return SkipState(state_id, f"{SKIP_REASON}{tag}")
        return EnterState(state_id, 0, history.checkpoint)
    if state.status is StateStatus.WAITING:
        return EnterState(
            state_id,
            state.attempts,
            history.checkpoint,
            state.retry_delay_ms or 0,
            state.retry_ts_millis or 0,
        )
    if state.status is not StateStatus.FAILED:
        raise RunError(
            f"state {state_id} was {state.status} before its turn: the log is not one of this plan"
        )
    return _after_failure(plan, config, history.checkpoint, state_id, state)


def _after_failure(
    plan: Graph, config: RunConfig, checkpoint: str, state_id: str, state: StateHistory
) -> Decision:
    error = state.error
    if error is not None and error.code == Code.ORPHAN_ATTEMPT_RECOVERED:
        return EnterState(state_id, state.attempts, checkpoint)
    policy = plan.states[state_id].meta.retry or config.retry_policy
    if error is not None and error.retryable and state.failures < policy.max_attempts:
        return ScheduleRetry(state_id, state.attempts, policy.delay_ms(state.failures - 1))
    return CompleteRun(RunStatus.FAILED, checkpoint)
