"""The rules of a plan that concern one state: its idempotency key, and the states that its tags name."""

from __future__ import annotations

from collections.abc import Mapping

from machine.errors import Code, PlanError
from machine.state import DependsOnStrategy, PlanState, SideEffects


def check_key(state: PlanState) -> None:
    """Refuse an effect without an idempotency key, and a key that no effect is sent with."""
    effectful = state.meta.side_effects is SideEffects.APPLY_SIDE_EFFECT
    if effectful and state.meta.idempotency is None:
        raise PlanError(
            f"state {state.id} applies a side effect and declares no idempotency key",
            code=Code.MISSING_IDEMPOTENCY_KEY,
            hint='add idempotency="..." or a function of the context, so that a retry is recognised',
        )
    if not effectful and state.meta.idempotency is not None:
        raise PlanError(
            f"state {state.id} declares an idempotency key and no side effect, so nothing would be sent with it",
            code=Code.UNUSED_IDEMPOTENCY_KEY,
            hint='add side_effects="apply_side_effect" if the state has one; otherwise leave idempotency= out',
        )


def by_tag(state: PlanState, states: Mapping[str, PlanState]) -> list[str]:
    """Return the states that a state follows by the tags that it depends on. Raises `PlanError`."""
    found: list[str] = []
    for tag in state.meta.depends_on:
        before: list[str] = []
        for other in states.values():
            if other.id == state.id:
                break
            if tag in other.meta.tags:
                before.append(other.id)
        if not before:
            raise PlanError(
                f"state {state.id} depends on tag {str(tag)!r}, which no state declared before it has",
                code=Code.DANGLING_DEPENDENCY_TAG,
            )
        match state.meta.depends_on_strategy:
            case DependsOnStrategy.LATEST:
                found.append(before[-1])
            case DependsOnStrategy.EARLIEST:
                found.append(before[0])
            case DependsOnStrategy.LATEST_SUCCESSFUL:
                found.extend(before)
    return found
