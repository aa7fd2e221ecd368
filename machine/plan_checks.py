"""The rules for the states of a plan that need more than one declaration, or the whole of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from machine.errors import Code, PlanError
from machine.state import DependsOnStrategy, PlanState, SideEffects


def check_cleanup(states: Mapping[str, PlanState], edges: Iterable[tuple[str, str]]) -> None:
    """Refuse a cleanup state that part of the work depends on, or that is declared before part of the work."""
    cleanup = [state.id for state in states.values() if state.meta.cleanup]
    for earlier, later in edges if cleanup else ():
        if earlier in cleanup and later not in cleanup:
            raise PlanError(
                f"{later} follows {earlier}, which is a cleanup state: it runs when the work is over",
                code=Code.INVALID_CLEANUP,
                hint=f"let {later} follow another state, or make it a cleanup state as well, with run=",
            )
    if cleanup and cleanup != list(states)[-len(cleanup) :]:
        last = next(state_id for state_id in reversed(list(states)) if state_id not in cleanup)
        raise PlanError(
            f"{cleanup[0]} is a cleanup state, and {last}, which is none, is declared after it",
            code=Code.INVALID_CLEANUP,
            hint="declare the cleanup states last, in the order in which they are to run",
        )
    if len(cleanup) == len(states):
        text = f"{cleanup[0]} and all other states are cleanup states: there is no work to clean up after"
        raise PlanError(text, code=Code.INVALID_CLEANUP, hint="declare a state without run=")


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
