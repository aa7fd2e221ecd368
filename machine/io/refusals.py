"""Refusals of calls before they are made. Their words stand in logs."""

from __future__ import annotations

from machine.errors import Code, IoOther, StateError
from machine.io.scope import AttemptScope

__all__ = ["second_effect", "secret_key", "undeclared"]


def undeclared(scope: AttemptScope, namespace: str) -> IoOther:
    """Return the refusal of a call that changes the outside where the state has not said that it does."""
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
