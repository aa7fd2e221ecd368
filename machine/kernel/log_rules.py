"""Rules of a log that concern one event: where it may stand, and what it may follow."""

from __future__ import annotations

from typing import Final, TypeAlias

from machine.config import LONGEST_SECONDS
from machine.errors import Code, LogError
from machine.events import (
    DomainEventRecorded,
    EffectIntended,
    Entry,
    FactRecorded,
    RetryScheduled,
    RunCompleted,
    RunResumed,
    RunStarted,
    WaitBegun,
)
from machine.kernel.outputs import Outputs
from machine.kernel.run_status import FINAL_STATUSES, RunStatus
from machine.kernel.state_history import OpenAttempt, StateHistory, StateStatus

Within: TypeAlias = FactRecorded | EffectIntended | WaitBegun | DomainEventRecorded
"""The events that stand within an open attempt."""

_WHILE_SUSPENDED: Final = (FactRecorded, RunResumed, RunCompleted)


def check_place(entry: Entry, run_id: str | None, status: RunStatus) -> None:
    """Raise `LogError` for an event that is not allowed at this point of the log of a run.

    A running run may have any event.
    """
    event, seq = entry.event, entry.seq
    if isinstance(event, RunStarted):
        return  # which says by itself that it is the first
    if status is RunStatus.PENDING:
        raise LogError(seq, f"a log begins with run_started, not {event.type}", code=Code.LOG_FIRST_EVENT)
    if entry.run_id != run_id:
        raise LogError(seq, f"it belongs to run {entry.run_id!r}, not {run_id!r}", code=Code.LOG_WRONG_RUN)
    if status in FINAL_STATUSES:
        raise LogError(seq, f"{event.type} follows the end of the run", code=Code.LOG_AFTER_END)
    if status is RunStatus.SUSPENDED and not isinstance(event, _WHILE_SUSPENDED):
        raise LogError(seq, f"{event.type} while the run is suspended", code=Code.LOG_SUSPENDED)


def check_within(attempt: OpenAttempt | None, seq: int, event: Within) -> None:
    """Raise `LogError` unless an event belongs to the open attempt of its state."""
    if attempt is None or attempt.attempt != event.attempt:
        raise LogError(
            seq,
            f"{event.type} of attempt {event.attempt} of {event.state_id}, which is not open",
            code=Code.LOG_NO_OPEN_ATTEMPT,
        )


def note_output(outputs: Outputs, seq: int, event: DomainEventRecorded) -> None:
    """Take in the event of an output. Raises `LogError` when it does not say which."""
    try:
        outputs.note(event)
    except ValueError as exc:
        raise LogError(seq, str(exc), code=Code.LOG_BAD_EVENT) from None


def state_to_retry(state: StateHistory | None, seq: int, event: RetryScheduled) -> StateHistory:
    """Return the state of which a retry is scheduled. Raises `LogError` unless it has just failed before it."""
    if state is None or state.status is not StateStatus.FAILED or event.attempt != state.attempts:
        raise LogError(
            seq,
            f"a retry of {event.state_id} as attempt {event.attempt}, which did not just fail before it",
            code=Code.LOG_RETRY,
        )
    if not 0 <= event.delay_ms <= LONGEST_SECONDS * 1000:
        text = f"a retry of {event.state_id} after {event.delay_ms} ms: not from now to one year"
        raise LogError(seq, text, code=Code.LOG_RETRY)
    return state
