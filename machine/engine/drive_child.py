"""Driving a child run: started if the store does not have it yet, otherwise resumed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, Self

import attrs

from machine.config import RunConfig, Target
from machine.engine import run_reader
from machine.engine.children import PARENT, PARENT_KEY, ChildRun, ChildRuns, Outcome
from machine.engine.end_cancelled import end_cancelled
from machine.engine.new_run import opening_for
from machine.engine.recorded_answers import for_child
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import Keeper
from machine.engine.transports_and_catalogue import Provided
from machine.ids import STANDARD_TAGS
from machine.kernel.history import History
from machine.plan import Graph
from machine.stores.base import Store
from machine.target import target_near


class Watching(Protocol):
    """The caller's part of a run, as far as its children have it too."""

    @property
    def provided(self) -> Provided:
        """The transports and the catalogue."""
        ...

    @property
    def lease_ms(self) -> int:
        """The time of a lease, in milliseconds."""
        ...

    def for_child(self, provided: Provided, reporter: Reporter) -> Self:
        """Return the caller's part of a child run."""
        ...


@attrs.frozen
class Ways:
    """The functions that drive a run from its beginning, and on from where its log ends."""

    start: Callable[..., Awaitable[Outcome]]
    resume: Callable[..., Awaitable[Outcome]]


def children_of_run(
    store: Store, keeper: Keeper, config: RunConfig, watched: Watching, ways: Ways, *, past: object
) -> ChildRuns:
    """Return the children of a run that is driven under a configuration, which they have too.

    `past` are the facts of another run that it was given, if any.
    """

    async def drive(child: ChildRun) -> Outcome:
        graph = child.plan.graph
        provided = Provided.of(child.plan, watched.provided.given, None)
        own = watched.for_child(provided, Reporter())
        if store.run_exists(child.run_id):
            return await ways.resume(graph, store, child.run_id, own)
        chosen = config_of_child(config, graph)
        target = _target_of(child, store, keeper.run_id) if child.stays else None
        known = {**provided.info(), PARENT: keeper.run_id, PARENT_KEY: child.key}
        opening = opening_for(
            graph, chosen, child.params, target, None, ignore=child.plan.ignore, provided=known
        )
        given = for_child(past, child.key, store, opening)
        if given is not None:
            opening = given[2]
        with Keeper(store, child.run_id, own.lease_ms) as own_keeper:
            begun: dict[str, Any] = {"manifest": opening.manifest, "history": History(), "opening": opening}
            if given is not None:
                given[1](child.run_id)
                begun["past"] = given[0]
            return await ways.start(graph, store, own_keeper, own, **begun)

    return ChildRuns(store, keeper.run_id, keeper.control, drive, end_cancelled)


def _target_of(child: ChildRun, store: Store, parent: str) -> Target | None:
    """Return where the plan of a child is that may have to go on without its parent, None where that is unknown."""
    built = run_reader.provenance_of(store, run_reader.first_entry(store, parent)[0])
    return None if built is None or built.target is None else target_near(child.plan, built.target)


def config_of_child(config: RunConfig, graph: Graph) -> RunConfig:
    """Return the configuration of a child: that of its parent, without skip tags that it does not know."""
    known = {tag for state in graph.states.values() for tag in state.meta.tags} | STANDARD_TAGS
    return attrs.evolve(config, skip_tags=tuple(tag for tag in config.skip_tags if tag in known))
