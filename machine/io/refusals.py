"""Refusals of calls before they are made. Logs hold their messages, and a replay compares them: never reword."""

from __future__ import annotations

from machine.errors import Code, IoOther, StateError
from machine.io.call import Call
from machine.io.scope import AttemptScope

__all__ = ["ambiguous", "lost_answer", "second_effect", "secret_key", "undeclared"]


def undeclared(scope: AttemptScope, namespace: str) -> IoOther:
    """Return the refusal of a call that changes the outside when its state is not declared to do so."""
    state = scope.state
    if scope.reads_only:
        return IoOther(
            f"the reconcile function of {state.id} changes the outside through {namespace}",
            code=Code.SIDE_EFFECT_NOT_DECLARED,
            hint="it may only read: let it ask what became of the effect, and return what it found",
        )
    return IoOther(
        f"state {state.id} is declared {state.meta.side_effects} and changes the outside through {namespace}",
        code=Code.SIDE_EFFECT_NOT_DECLARED,
        hint='declare side_effects="apply_side_effect" and an idempotency key',
    )


def second_effect(scope: AttemptScope) -> StateError:
    """Return the refusal of a second, different effect that would be sent with a state's idempotency key."""
    return StateError(
        f"state {scope.state.id} sends a second, different effect with its idempotency key "
        f"{scope.idempotency_key!r}",
        code=Code.IDEMPOTENCY_KEY_REUSED,
        hint="make it a state of its own, or give the call its own idempotency-key header",
    )


def secret_key() -> IoOther:
    """Return the refusal of a call whose fact key holds a secret."""
    return IoOther(
        "the fact key holds a secret, and was not written",
        code=Code.SECRET_IN_EVENT,
        hint="make it of something else: keys are stored and compared as they are",
    )


def lost_answer(call: Call) -> IoOther:
    """Return the error of an effect whose answer cannot be opened any more."""
    return IoOther(
        f"the answer of an effect of {call.namespace} held a secret that cannot be opened any more",
        code=Code.SECRET_UNAVAILABLE,
        hint="the effect was made and is not made again; start a new run, or fork this one before it",
    )


def ambiguous(call: Call) -> IoOther:
    """Return the error of an effect that differs from another one of its state in its secrets only."""
    return IoOther(
        f"two effects of {call.namespace} in this state differ in their secrets only",
        code=Code.AMBIGUOUS_SECRET,
        hint="after a crash nobody could tell which was made: give each a fact_key, or read the secrets with "
        "io.secret under names of their own",
    )
