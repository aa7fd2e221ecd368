"""`decide`: what comes next, as a pure function of the plan, the configuration and the history.

It knows nothing of handlers, clocks or stores; the engine performs what it decides and nothing else.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import attrs

from machine.config import RunConfig
from machine.errors import RunError
from machine.events import STOPPED_CODES, EffectWait, Wait
from machine.kernel.history import History, StateHistory, StateStatus
from machine.kernel.status import RunStatus
from machine.plan import Graph, OnUncertain

__all__ = [
    "ChangePlan",
    "CompleteRun",
    "Decision",
    "Done",
    "EnterState",
    "RecoverOrphan",
    "ResumeRun",
    "ScheduleRetry",
    "SkipState",
    "StartRun",
    "SuspendRun",
    "cancelled",
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
class SuspendRun:
    """Wait until somebody outside has said what is waited for."""

    waits: tuple[Wait, ...]


@attrs.frozen
class ResumeRun:
    """Everything that was waited for has been said: go on."""


@attrs.frozen
class ChangePlan:
    """Go on with another plan than so far, which the caller allows."""

    plan_id: str
    suspended: bool


@attrs.frozen
class CompleteRun:
    """End the run."""

    status: RunStatus
    final_snapshot_id: str


@attrs.frozen
class Done:
    """Nothing is left to do: the run has ended as `status`, or is suspended."""

    status: RunStatus


Decision: TypeAlias = (
    StartRun
    | RecoverOrphan
    | SkipState
    | EnterState
    | ScheduleRetry
    | SuspendRun
    | ResumeRun
    | ChangePlan
    | CompleteRun
    | Done
)


def cancelled(history: History) -> RecoverOrphan | CompleteRun | Done:
    """Return the next decision for a run that has ended or is to end cancelled. It needs no plan."""
    if history.final:
        return Done(history.status)
    if history.open is not None:
        return RecoverOrphan(history.open.state_id)
    return CompleteRun(RunStatus.CANCELLED, history.checkpoint or "")


def decide(plan: Graph, config: RunConfig, history: History, *, cancel: bool = False) -> Decision:
    """Return the next decision for a run in sequential mode; `cancel` when it has been asked to end cancelled.

    Constant time, whatever the number of states, unless the plan has changed under the run.
    """
    if history.started is None or history.checkpoint is None:
        return StartRun()
    if history.final or history.open is not None or cancel or history.cancelling:
        return cancelled(history)
    if history.status is RunStatus.SUSPENDED and history.unanswered:
        return Done(history.status)
    if plan.plan_id != history.plan_id:
        return ChangePlan(plan.plan_id, history.status is RunStatus.SUSPENDED)
    if history.status is RunStatus.SUSPENDED:
        return ResumeRun()
    if history.settled >= len(plan.order):
        return CompleteRun(RunStatus.COMPLETED, history.checkpoint)
    state_id = _next(plan, history)
    state = history.states.get(state_id)
    if state is None:
        for tag in plan.states[state_id].meta.tags:
            if tag in config.skip_tags:
                return SkipState(state_id, f"{SKIP_REASON}{tag}")
        return EnterState(state_id, 0, history.checkpoint)
    if state.status not in {StateStatus.WAITING, StateStatus.FAILED}:
        raise RunError(
            f"state {state_id} was {state.status} before its turn: the log is not one of this plan"
        )
    return _again(plan, config, history, state_id, state)


def _next(plan: Graph, history: History) -> str:
    if not history.replanned:
        # one state at a time in a fixed order: as many as have settled have been passed
        return plan.order[history.settled]
    return next(
        state_id
        for state_id in plan.order
        if (state := history.states.get(state_id)) is None or not state.status.settled
    )


def _again(plan: Graph, config: RunConfig, history: History, state_id: str, state: StateHistory) -> Decision:
    """Return what follows an attempt of a state that did not complete."""
    meta, error, checkpoint = plan.states[state_id].meta, state.error, history.checkpoint or ""
    policy = meta.retry or config.retry_policy
    waiting = state.status is StateStatus.WAITING
    stopped = error is not None and error.code in STOPPED_CODES
    retried = error is not None and error.retryable and state.failures < policy.max_attempts
    if not (waiting or stopped or retried):
        return CompleteRun(RunStatus.FAILED, checkpoint)
    if meta.on_uncertain is OnUncertain.ASK and (unknown := history.uncertain_of(state_id)):
        return SuspendRun(tuple(EffectWait(intent.key, state_id) for intent in unknown))
    if waiting or stopped:
        delay_ms, since_ms = state.retry_delay_ms or 0, state.retry_ts_millis or 0
        return EnterState(state_id, state.attempts, checkpoint, delay_ms, since_ms)
    return ScheduleRetry(state_id, state.attempts, policy.delay_ms(state.failures - 1))
