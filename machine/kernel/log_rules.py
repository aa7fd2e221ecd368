"""Rules of a log that concern one event: where it may stand, and what it may follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from machine.config import LONGEST_SECONDS, MOST_CONCURRENT
from machine.errors import Code, LogError
from machine.events import (
    CleanupBegun,
    DomainEventRecorded,
    EffectIntended,
    Entry,
    FactRecorded,
    RetryScheduled,
    RunCompleted,
    RunResumed,
    RunStarted,
    StateEntered,
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


def check_started(seq: int, event: RunStarted, *, again: bool) -> None:
    """Raise `LogError` for a second beginning, or one with an impossible number of concurrent states."""
    if again:
        raise LogError(seq, "run_started again", code=Code.LOG_SECOND_START)
    most = event.max_concurrency
    if most is not None and not 1 <= most <= MOST_CONCURRENT:
        text = f"max_concurrency is {most}, not a number from 1 to {MOST_CONCURRENT}"
        raise LogError(seq, text, code=Code.LOG_BAD_EVENT)


def check_begins_again(state: StateHistory, seq: int, state_id: str, *, cleaning: bool) -> None:
    """Raise `LogError` unless another attempt of a state may begin; `cleaning` once the cleanup has begun."""
    if cleaning and not state.cleans:
        raise out_of_cleanup(seq, state_id)
    if state.status.settled:
        text = f"{state_id} begins again after it was {state.status}"
        raise LogError(seq, text, code=Code.LOG_STATE_SETTLED)
    if state.status is StateStatus.FAILED and not state.failed.cut:
        raise LogError(seq, f"{state_id} begins again with no retry scheduled", code=Code.LOG_RETRY)


def check_entered(seq: int, event: StateEntered, number: int, base: str | None) -> None:
    """Raise `LogError` unless an attempt has the number that is due, and the base if that is known."""
    if event.attempt != number:
        text = f"attempt {event.attempt} of {event.state_id} begins where {number} is due"
        raise LogError(seq, text, code=Code.LOG_ATTEMPT_NUMBER)
    if base is not None and base != event.base_snapshot_id:
        text = f"{event.state_id} begins on a base that is not the checkpoint"
        raise LogError(seq, text, code=Code.LOG_BASE_SNAPSHOT)


def check_new_fact(seq: int, event: FactRecorded, before: FactRecorded | None, *, lost: bool) -> None:
    """Raise `LogError` for a fact under a key that has one `before`; `lost` if its true value cannot be opened.

    A value is single-assignment for the run; an error only for its attempt, so that a retry may try again.
    """
    if before is None:
        return
    same = (before.state_id, before.attempt) == (event.state_id, event.attempt)
    if (before.outcome.final and not lost) or (same and not before.may_repeat):
        raise LogError(seq, f"the fact {event.key!r} is recorded already", code=Code.LOG_DUPLICATE_FACT)


def check_new_effect(
    seq: int, event: EffectIntended, fact: FactRecorded | None, *, twice: bool, lost: bool
) -> None:
    """Raise `LogError` for an effect that its attempt has intended before, or that has happened."""
    if twice or (fact is not None and fact.outcome.final and not lost):
        text = f"the effect {event.key!r} was intended or has happened already"
        raise LogError(seq, text, code=Code.LOG_DUPLICATE_FACT)


def check_unanswered(seq: int, event: WaitBegun, fact: FactRecorded | None) -> None:
    """Raise `LogError` for a wait that has an answer."""
    if fact is not None and fact.outcome.final:
        raise LogError(seq, f"the wait {event.key!r} is answered already", code=Code.LOG_DUPLICATE_FACT)


def check_cleanup_begun(seq: int, event: CleanupBegun, checkpoint: str | None, *, again: bool) -> None:
    """Raise `LogError` unless a cleanup may begin on the `checkpoint`."""
    if again or event.status not in FINAL_STATUSES:
        raise LogError(seq, "its cleanup begins again, or with no end of the run", code=Code.LOG_CLEANUP)
    if event.base_snapshot_id != checkpoint:
        text = "the cleanup begins on a base that is not the checkpoint"
        raise LogError(seq, text, code=Code.LOG_BASE_SNAPSHOT)


def check_completed(seq: int, event: RunCompleted, cleanup: CleanupBegun | None, skipped: int) -> None:
    """Raise `LogError` unless a run may end so; `skipped` states of it were skipped for their failure."""
    if event.status not in FINAL_STATUSES:
        raise LogError(seq, f"{event.status!r} is not a final status", code=Code.INVALID_TRANSITION)
    if cleanup is not None and event.status != cleanup.status:
        text = f"the run ends {event.status}, and its cleanup began when it was {cleanup.status}"
        raise LogError(seq, text, code=Code.LOG_CLEANUP)
    if (event.skipped or 0) != skipped:
        text = f"{skipped} states were skipped for their failure, and the end of the run says {event.skipped}"
        raise LogError(seq, text, code=Code.LOG_BAD_EVENT)


def state_to_skip(
    state: StateHistory | None, seq: int, event: StateSkipped, *, cleaning: bool
) -> StateHistory:
    """Return the state that is skipped. Raises `LogError` for one that has begun, unless it has just failed.

    Then the skip names the error, and the run goes on without the state; `cleaning` once its cleanup has begun.
    """
    if state is None:
        return StateHistory(StateStatus.SKIPPED, cleans=cleaning)
    if cleaning and not state.cleans:
        raise out_of_cleanup(seq, event.state_id)
    error = state.failed.error
    if state.status is StateStatus.FAILED and error:
        died = error.code == Code.ORPHAN_ATTEMPT_RECOVERED
        if event.reason.removeprefix(FAILED_WITH) in {
            str(Code.RECOVERY_LIMIT) if died else error.code,
            str(Code.RETRY_BUDGET_SPENT),
        }:
            return state
    raise LogError(seq, f"{event.state_id} is skipped after it began", code=Code.LOG_STATE_SETTLED)


def out_of_cleanup(seq: int, state_id: str) -> LogError:
    """Return the error of a log in which part of the work goes on after the cleanup has begun."""
    return LogError(seq, f"{state_id} goes on after the cleanup of the run has begun", code=Code.LOG_CLEANUP)
