"""The shape of a plan as a run records it: its states with their metadata, and its edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machine import canonical
from machine.errors import Code, CodecError, CorruptionError
from machine.graph_order import topological
from machine.ids import StateId
from machine.state import StateMeta


def parts_of(shape: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the metadata of the states, by id, and the edges of a `Graph.shape()`."""
    states = {str(state["id"]): dict(state["meta"]) for state in shape["states"]}
    return states, [(str(earlier), str(later)) for earlier, later in shape["edges"]]


def by_name(shape: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `Graph.shape()` with its states and edges under their names, to be compared."""
    states, edges = parts_of(shape)
    return {"edges": {f"{earlier} -> {later}": True for earlier, later in edges}, "states": states}


def order_of(shape: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the order of the states of a `Graph.shape()`."""
    metas, edges = parts_of(shape)
    return topological(list(metas), tuple(edges))


def shape_of(plan_id: str, data: bytes) -> dict[str, Any]:
    """Return the `Graph.shape()` that an artifact holds. Raises `CorruptionError` when it is invalid."""
    of_cleanup: dict[str, bool] = {}
    try:
        shape = canonical.decode(data)
        metas, edges = parts_of(shape)
        fits = shape.keys() == {"states", "edges"} and 0 < len(metas) == len(shape["states"])
        for state_id, meta in metas.items():
            StateId(state_id)
            of_cleanup[state_id] = StateMeta().as_recorded(meta).cleanup
        last = [of_cleanup[state_id] for state_id in topological(list(metas), tuple(edges))]
        fits = fits and last == sorted(last) and not last[0]
    except (CodecError, LookupError, TypeError, ValueError, AttributeError):
        fits = False
    if not fits:
        raise CorruptionError(f"artifact {plan_id} is no plan", code=Code.ARTIFACT_CORRUPT)
    return dict(shape)
