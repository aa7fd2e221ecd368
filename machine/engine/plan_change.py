"""A changed plan: its differences from the plan a run was started with, and whether the run may use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from machine import canonical
from machine.errors import Code, PlanError
from machine.kernel.history import History
from machine.plan import Graph
from machine.plan_shape import order_of, parts_of, shape_of
from machine.stores.base import Store


@attrs.frozen
class PlanChange:
    """One difference of two plans: + added, - removed, ~ changed; and the state it concerns."""

    text: str
    state_id: str | None = None


def recorded_shape(store: Store, plan_id: str) -> dict[str, Any]:
    """Return the recorded shape of a run's plan. Raises `CorruptionError` when the artifact is not one."""
    return shape_of(plan_id, store.get(plan_id))


def recorded_order(store: Store, history: History) -> tuple[str, ...]:
    """Return the order of the states in the plan that a run used last."""
    return order_of(recorded_shape(store, history.plan_id or ""))


def check_plan(store: Store, graph: Graph, history: History, *, allow_change: bool) -> None:
    """Raise `PlanError` unless the run may continue with `graph`.

    A changed plan needs `allow_change`, and is safe when every state that ran is still there and none of them would
    now have to follow one that has not run.
    """
    started, plan_id = history.started, history.plan_id or ""
    assert started is not None
    if started.op_id != graph.op_id:
        raise PlanError(
            f"run {history.run_id} is of op {started.op_id!r}, the plan is {graph.op_id!r}",
            code=Code.OP_ID_MISMATCH,
        )
    missing = sorted(state_id for state_id in history.states if state_id not in graph.states)
    if missing:
        raise PlanError(
            f"run {history.run_id} has run {', '.join(missing)}, which the plan no longer has",
            code=Code.RECOVERY_STATE_NOT_IN_PLAN,
            details={"missing": missing},
        )
    if plan_id == graph.plan_id:
        return
    changes = [change.text for change in plan_changes(recorded_shape(store, plan_id), graph.shape())]
    unsafe = _unsafe(graph, history)
    details = {"recorded": plan_id, "now": graph.plan_id, "changes": [*changes, *unsafe]}
    if allow_change and not unsafe:
        return
    was = f"it was {plan_id[:12]}, it is {graph.plan_id[:12]}"
    text = f"the plan has changed since run {history.run_id} started ({was})"
    raise PlanError(
        f"{text}: {'; '.join([*changes, *unsafe])}",
        code=Code.PLAN_CHANGED,
        details=details,
        hint="resume with the plan it was started with, or start a new run"
        if unsafe
        else "resume with the plan it was started with, or allow the change: --allow-plan-change",
    )


def _unsafe(graph: Graph, history: History) -> list[str]:
    """Return the obstacles to the change.

    They are states that have begun and now follow one that has not settled, and those that have changed between
    work and cleanup.
    """
    settled = {state_id for state_id, state in history.states.items() if state.status.settled}
    found = [
        f"not safe: {later} has run, and would have to follow {earlier}, which has not"
        for earlier, later in graph.edges
        if later in history.states and later not in graph.cleanup and earlier not in settled
    ]
    return found + [
        f"not safe: {state_id} has run, and whether it is a cleanup state has changed"
        for state_id, state in history.states.items()
        if state_id in graph.states and state.cleans is not (state_id in graph.cleanup)
    ]


def plan_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[PlanChange]:
    """Return the differences between two plans, given by their `Graph.shape()`."""
    (old, earlier), (new, later) = parts_of(before), parts_of(after)
    found = [PlanChange(f"+ state {state_id}", state_id) for state_id in new if state_id not in old]
    found += [PlanChange(f"- state {state_id}", state_id) for state_id in old if state_id not in new]
    for state_id in (state_id for state_id in old if state_id in new):
        was, now = old[state_id], new[state_id]
        found += [
            PlanChange(
                f"~ state {state_id}: {name} was {_text(was.get(name))}, is {_text(now.get(name))}", state_id
            )
            for name in sorted(now.keys() | was.keys())
            if was.get(name) != now.get(name)
        ]
    found += [PlanChange(f"+ edge {a} -> {b}", b) for a, b in later if (a, b) not in earlier]
    found += [PlanChange(f"- edge {a} -> {b}", b) for a, b in earlier if (a, b) not in later]
    return found or [PlanChange("~ the order in which the states are declared")]


def _text(value: Any) -> str:
    return canonical.encode(value).decode()
