"""The possible results of `decide`, as values that the engine performs."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import attrs

from machine.errors import ErrorInfo
from machine.events import LimitReached
from machine.kernel.run_status import RunStatus
from machine.waits import Wait


@attrs.frozen
class StartRun:
    """Begin the run, whose log is empty."""


@attrs.frozen
class RecoverOrphan:
    """Close an attempt that a crash left open, before anything else."""

    state_id: str


@attrs.frozen
class ReachLimit:
    """Record that the run has used up a limit, and end it."""

    reached: LimitReached


@attrs.frozen
class SkipState:
    """Skip the state."""

    state_id: str
    reason: str


class EnterState(NamedTuple):
    """Run attempt `attempt` of the state on `base_snapshot_id`.

    `delay_ms` is the rest of the retry delay, counted from `since_ms` (milliseconds since the epoch); 0 for a first
    attempt.
    """

    state_id: str
    attempt: int
    base_snapshot_id: str
    delay_ms: int = 0
    since_ms: int = 0


@attrs.frozen
class ScheduleRetry:
    """Record that attempt `attempt` follows after `delay_ms` milliseconds.

    The engine takes off up to `jitter_ms` of them, at random.
    """

    state_id: str
    attempt: int
    delay_ms: int
    jitter_ms: int = 0


@attrs.frozen
class SuspendRun:
    """Suspend the run until its external input has arrived."""

    waits: tuple[Wait, ...]


@attrs.frozen
class ResumeRun:
    """Resume the run: all the external input that it waited for has arrived."""


@attrs.frozen
class ChangePlan:
    """Continue with another plan, which the caller allows."""

    plan_id: str
    suspended: bool


@attrs.frozen
class LoseSecrets:
    """Continue without the sealed true values that the driver cannot open."""

    suspended: bool


@attrs.frozen
class AwaitAttempts:
    """Wait for an open attempt to end: no other attempt can begin before.

    `cancel` says that open attempts are to be cancelled, because a state has failed for good.
    """

    cancel: bool = False


@attrs.frozen
class BeginCleanup:
    """Begin with the cleanup states: the work has ended, and the run will end as `status` and with `error`."""

    status: RunStatus
    base_snapshot_id: str
    error: ErrorInfo | None = None


@attrs.frozen
class CompleteRun:
    """End the run; `error` is the reason when the run failed and no state did.

    `next_input_id` is the artifact of the input with which it goes on as another, None where it does not.
    """

    status: RunStatus
    final_snapshot_id: str | None
    error: ErrorInfo | None = None
    next_input_id: str | None = None


@attrs.frozen
class Done:
    """Nothing is left to do: the run has ended as `status`, or is suspended."""

    status: RunStatus


Decision: TypeAlias = (
    StartRun
    | RecoverOrphan
    | ReachLimit
    | SkipState
    | EnterState
    | ScheduleRetry
    | SuspendRun
    | ResumeRun
    | ChangePlan
    | LoseSecrets
    | AwaitAttempts
    | BeginCleanup
    | CompleteRun
    | Done
)
