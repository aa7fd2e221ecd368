"""What `decide` can decide. Values only; the engine performs them."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from machine.errors import ErrorInfo
from machine.events import Wait
from machine.kernel.status import RunStatus

__all__ = [
    "AwaitAttempts",
    "ChangePlan",
    "CompleteRun",
    "Decision",
    "Done",
    "EnterState",
    "LoseSecrets",
    "RecoverOrphan",
    "ResumeRun",
    "ScheduleRetry",
    "SkipState",
    "StartRun",
    "SuspendRun",
]


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
class LoseSecrets:
    """Go on without the true values of what was sealed so far, which the driver cannot open."""

    suspended: bool


@attrs.frozen
class AwaitAttempts:
    """Nothing can be begun before one of the attempts that are being made has ended.

    `cancel` says that they are to be cancelled: a state has failed for good.
    """

    cancel: bool = False


@attrs.frozen
class CompleteRun:
    """End the run; `error` says why it failed where it was no state that did."""

    status: RunStatus
    final_snapshot_id: str | None
    error: ErrorInfo | None = None


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
    | LoseSecrets
    | AwaitAttempts
    | CompleteRun
    | Done
)
