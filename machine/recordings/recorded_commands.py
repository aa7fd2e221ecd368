"""What was asked of a run from outside, read off the event that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from machine.events import (
    Entry,
    Event,
    PlanWait,
    RunCompleted,
    RunResumed,
    RunStarted,
    RunSuspended,
    SecretWait,
)
from machine.kernel.status import RunStatus
from machine.plan import Graph, earlier_graph
from machine.stores.base import Store

__all__ = ["asked", "graphs_of"]


class Asked(NamedTuple):
    """The plan that a run was to go on with, and whether it was to end cancelled, or had lost its secrets."""

    plan_id: str | None = None
    cancel: bool = False
    secrets_lost: bool = False


def asked(event: Event | None) -> Asked:
    """Return what had been asked of a run when `event` came next."""
    match event:
        case RunSuspended(waits):
            plan_id = next((wait.plan_id for wait in waits if isinstance(wait, PlanWait)), None)
            return Asked(plan_id, secrets_lost=SecretWait() in waits)
        case RunResumed(plan_id=plan_id):
            return Asked(plan_id, secrets_lost=bool(event.secrets_lost))
        case RunCompleted(status):
            return Asked(cancel=status == RunStatus.CANCELLED)
        case _:
            return Asked()


def graphs_of(graph: Graph, recorded: Sequence[Entry], store: Store) -> tuple[Graph, Mapping[str, Graph]]:
    """Return the plan that a recording begins with and, where it changed underway, all that it went by.

    A recording whose last plan is not `graph` is not rebuilt: that the plan has changed is what a replay finds.
    """
    ids = [
        event.plan_id
        for entry in recorded
        if isinstance(event := entry.event, RunStarted | RunResumed) and event.plan_id is not None
    ]
    if len(ids) < 2 or ids[-1] != graph.plan_id:  # noqa: PLR2004 - one to begin with, and another
        return graph, {}
    graphs = {plan_id: earlier_graph(graph, store.get(plan_id)) for plan_id in ids[:-1]}
    graphs[graph.plan_id] = graph
    return graphs[ids[0]], graphs
