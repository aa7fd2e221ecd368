"""The rules of a suspended run: what it waits for, what may be answered, and when it may continue."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from machine.errors import Code, LogError
from machine.events import EffectIntended, FactRecorded, RunResumed
from machine.kernel.state_history import StateHistory, StateStatus
from machine.waits import ChildWait, EffectWait, HandlerWait, PauseWait, PlanWait, SecretWait, Wait

CONTINUED: Final = "continued"
"""Value of `by` for a run that was paused and goes on."""

_BY_PERSON: Final = PauseWait()


def of_handlers(waits: Iterable[Wait]) -> bool:
    """Say whether a handler waits: such a suspension is a matter of timing, and in no digest."""
    return any(isinstance(wait, HandlerWait) for wait in waits)


def pauses(waits: Iterable[Wait]) -> bool:
    """Say whether a run is paused, by a person or by a state that has failed for good."""
    return any(isinstance(wait, PauseWait) for wait in waits)


def of_timing(waits: Iterable[Wait]) -> bool:
    """Say whether a suspension is a matter of timing: it is in no digest, and a replay goes on without it."""
    return any(isinstance(wait, HandlerWait) or wait == _BY_PERSON for wait in waits)


def let_go(waits: Iterable[Wait], states: Mapping[str, StateHistory], ts_millis: int) -> None:
    """Let the states be tried again that had failed for good and paused their run."""
    for wait in waits:
        if isinstance(wait, PauseWait) and wait.state_id is not None:
            states[wait.state_id].let_go(ts_millis)


def unanswered(
    waits: Iterable[Wait], uncertain: Container[str], open_waits: Container[str]
) -> tuple[Wait, ...]:
    """Return those of a run's waits that have no answer, given the keys of uncertain effects and of open waits."""

    def is_open(wait: Wait) -> bool:
        if isinstance(wait, EffectWait):
            return wait.key in uncertain
        return not isinstance(wait, HandlerWait) or wait.key in open_waits

    return tuple(wait for wait in waits if is_open(wait))


def held(waits: Sequence[Wait], unanswered: Sequence[Wait]) -> bool:
    """Say whether a suspended run cannot continue.

    It can as soon as one wait of several has an answer if a handler waits; else all of them must be answered.
    """
    return len(unanswered) == len(waits) if of_handlers(waits) else bool(unanswered)


def check_waits(
    waits: Sequence[Wait],
    seq: int,
    uncertain: Container[str],
    open_waits: Container[str],
    states: Mapping[str, StateHistory],
) -> None:
    """Raise `LogError` unless there is every wait for which a run is suspended, and no answer yet."""
    effects = [wait.key for wait in waits if isinstance(wait, EffectWait)]
    if not waits or not all(key in uncertain for key in effects):
        raise LogError(seq, "the run waits for an effect whose outcome is known", code=Code.LOG_SUSPENDED)
    if not all(wait.key in open_waits for wait in waits if isinstance(wait, HandlerWait)):
        raise LogError(seq, "the run waits for what no handler waits for", code=Code.LOG_WAIT)
    for wait in waits:
        if isinstance(wait, PauseWait) and wait.state_id is not None:
            state = states.get(wait.state_id)
            if state is None or state.status is not StateStatus.FAILED:
                text = f"the run is paused by {wait.state_id}, which has not failed"
                raise LogError(seq, text, code=Code.LOG_SUSPENDED)


def check_outcome(
    waits: Iterable[Wait], seq: int, event: FactRecorded, intent: EffectIntended | None
) -> None:
    """Raise `LogError` unless an operator's answer is about an effect that the suspended run waits for."""
    fits = intent is not None and (intent.state_id, intent.attempt, intent.request_digest) == (
        event.state_id,
        event.attempt,
        event.request_digest,
    )
    asked = any(isinstance(wait, EffectWait) and wait.key == event.key for wait in waits)
    if not fits or not asked:
        raise LogError(
            seq, f"the run is suspended and does not wait for {event.key!r}", code=Code.LOG_SUSPENDED
        )


def check_resumed(waits: Sequence[Wait], seq: int, event: RunResumed, unanswered: Sequence[Wait]) -> None:
    """Raise `LogError` if a run continues before the external input has arrived that it cannot do without."""
    if of_handlers(waits):
        # the end of a child run is in its own log, and its parent may continue to look at it
        looks = event.anew or any(isinstance(wait, ChildWait) for wait in waits)
        early = held(waits, unanswered) and not looks
    else:
        said = SecretWait() if event.secrets_lost else PlanWait(event.plan_id or "")
        lets_go = event.by == CONTINUED
        early = any(wait != said and not (lets_go and isinstance(wait, PauseWait)) for wait in unanswered)
    if early:
        text = "the run resumes before the external input that it waits for has arrived"
        raise LogError(seq, text, code=Code.LOG_SUSPENDED)
