"""Rules of a log that concern one event: where it may stand, and what it may follow."""

from __future__ import annotations

from collections.abc import Mapping
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
    StateSkipped,
    WaitBegun,
)
from machine.kernel.outputs import Outputs
from machine.kernel.run_status import FINAL_STATUSES, RunStatus
from machine.kernel.segments import NEXT_RUN
from machine.kernel.state_history import FAILED_WITH, OpenAttempt, StateHistory, StateStatus

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


def check_next_input(entry: Entry, event: RunCompleted, next_inputs: Mapping[str, str]) -> None:
    """Raise `LogError` where a run goes on as another, or does not, other than its states have said.

    `next_inputs` are the inputs that they gave. Only the end of a run that has completed names the next one.
    """
    completed = event.status == RunStatus.COMPLETED
    due = next(iter(next_inputs.values()), None) if completed else None
    if event.next_input_id != due or (completed and len(next_inputs) > 1):
        text = "the run goes on as another with an input that none of its states gave it"
        raise LogError(entry.seq, text, code=Code.LOG_BAD_EVENT)
    if NEXT_RUN in entry.info and due is None:
        raise LogError(entry.seq, "the end names a next run and no input of it", code=Code.LOG_BAD_EVENT)


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


def state_to_skip(state: StateHistory | None, seq: int, event: StateSkipped) -> StateHistory:
    """Return the state that is skipped. Raises `LogError` for one that has begun, unless it has just failed.

    Then the skip names the error, and the run goes on without the state.
    """
    if state is None:
        return StateHistory(StateStatus.SKIPPED)
    error = state.failed.error
    if state.status is StateStatus.FAILED and error and event.reason == f"{FAILED_WITH}{error.code}":
        return state
    raise LogError(seq, f"{event.state_id} is skipped after it began", code=Code.LOG_STATE_SETTLED)
