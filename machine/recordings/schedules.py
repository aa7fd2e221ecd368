"""Schedules: replay a run of concurrent states in other orders and compare the digests.

If an order differs, two orders are found that differ in one swap and in their result: the two swapped states
share something besides the context. How a replay is made is not known here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import attrs

from machine.catalogue import Catalogue
from machine.config import Target, UndeclaredIo
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine.reporter import Reporter
from machine.engine.run_reader import lane_of
from machine.engine.transports_and_catalogue import Provided
from machine.errors import Code, UsageError
from machine.events import Entry, StateEntered
from machine.io.transport import Transports
from machine.plan import Plan
from machine.recordings.divergence import Cause, Divergence, DivergenceKind
from machine.recordings.fork_server import in_copies
from machine.recordings.recorded_commands import graphs_of
from machine.recordings.replay import Recorded, ReplayResult, replay_in
from machine.recordings.result_json import fields_json
from machine.recordings.schedule_orders import Order, Orders, neighbours
from machine.stores.base import Store

MOST_SCHEDULES: Final = 100_000


@attrs.frozen
class Race:
    """Two states whose order matters although neither follows the other.

    They share something besides the context. `states` are the two, in the order that gives another result. The
    difference occurs in `state_id`, as `divergence` describes, first at `pointer`: in the context, in the
    request of a call or in an event; None when there is no single place.
    """

    states: tuple[str, str]
    divergence: Divergence

    @property
    def state_id(self) -> str | None:
        """The state in which the difference occurs, or None."""
        return self.divergence.state_id

    @property
    def pointer(self) -> str | None:
        """The JSON Pointer of what differs first."""
        changes = self.divergence.changes
        return changes[0].pointer if changes else None

    @property
    def what(self) -> str:
        """The document that the pointer refers to: `context`, `call` or `event`."""
        match self.divergence.kind:
            case DivergenceKind.SNAPSHOT_DIFFERS:
                return "context"
            case DivergenceKind.REQUEST_CHANGED | DivergenceKind.CALL_ADDED | DivergenceKind.CALL_MISSING:
                return "call"
            case _:
                return "event"

    def to_json(self) -> dict[str, Any]:
        """Return the race as a JSON object."""
        return fields_json(self, "states", "state_id", "what", "pointer", "divergence")


@attrs.frozen
class SchedulesResult:
    """The result of replaying a run under other schedules.

    `schedules` counts those that were replayed to the same digest, besides the recorded one: as many as
    requested, or all that exist. Otherwise `race` names the two states that made the difference. A `divergence`
    without a race does not depend on the order: the recorded schedule itself does not replay, or a schedule
    gave another result the second time (`unsteady`).
    """

    run_id: str
    schedules: int
    seed: int
    digest: str
    race: Race | None = None
    divergence: Divergence | None = None
    unsteady: bool = False

    @property
    def identical(self) -> bool:
        """True when all gave one digest."""
        return self.divergence is None

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {"run_id": self.run_id, "identical": self.identical, **fields_json(self)}


@with_default_store()
async def schedules(
    run_id: str,
    *,
    plan: Plan,
    store: Store = DEFAULT_STORE,
    count: int = 20,
    seed: int = 0,
    target: Target | None = None,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    undeclared_io: UndeclaredIo | str | None = None,
) -> SchedulesResult:
    """Replay a run under `count` other schedules, and confirm one digest or name the states that race.

    A schedule is an order of the states that the plan allows; `seed` decides which are tried. With a `target`,
    the plan is loaded in another process and each schedule begins in a copy of it, so none sees what another
    left behind in modules; `transports`, `catalogue` and `reporter` are not available there. Without a target
    all are replayed in this process: module state that handlers share is detected, but the states that race are
    not always found. Raises `UsageError` for a run without concurrency, what `replay` raises, `LogError` or
    `CorruptionError` for a damaged recording, and `RunError` when a copy ends without an answer.
    """
    if type(count) is not int or not 1 <= count <= MOST_SCHEDULES:
        raise UsageError(
            f"the number of schedules must be a whole number from 1 to {MOST_SCHEDULES}, not {count!r}",
            code=Code.USAGE,
        )
    recording = Recorded.of(store, run_id, plan.graph, undeclared_io)
    if recording.started.max_concurrency is None:
        raise UsageError(
            f"run {run_id} was recorded in sequential mode: it has one schedule",
            code=Code.USAGE,
            hint="record one with execution_mode=FanOutJoin(...), or with machine run --concurrency N",
        )

    async def here(order: Order) -> ReplayResult:
        provided = Provided.of(plan, transports, catalogue)
        return await replay_in(
            order,
            run_id,
            plan.graph,
            store,
            provided=provided,
            undeclared_io=undeclared_io,
            reporter=reporter,
        )

    blocks = recording.blocks

    def orders() -> Orders:
        first, graphs = graphs_of(plan.graph, recording.entries, store)
        return Orders.of(blocks, {first.plan_id: first, **graphs})

    if target is None:
        return await _Search(run_id, seed, blocks, here).result(orders, count)
    async with in_copies(run_id, store, target, undeclared_io) as copies:
        return await _Search(run_id, seed, blocks, copies.replayed).result(orders, count)


@attrs.frozen
class _Search:
    run_id: str
    seed: int
    blocks: Sequence[Sequence[Entry]]
    replayed: Callable[[Order], Awaitable[ReplayResult]]

    async def result(self, orders: Callable[[], Orders], count: int) -> SchedulesResult:
        """Replay in the recorded order, then in others."""
        recorded = tuple(range(len(self.blocks)))
        first = await self.replayed(recorded)
        if first.divergence is not None:
            place = self._place(first.divergence)
            early = orders().early(place) if place is not None else recorded
            if early == recorded or _in(await self.replayed(early), first.divergence):
                return self._result(0, first, first.divergence)
            # swapping the pair changes whether the state differs, so it races with one of them
            return await self._raced(0, first, early, recorded, first.divergence)
        drawn = orders().drawn(count, self.seed)
        for same, order in enumerate(drawn):
            found = await self.replayed(order)
            if found.divergence is not None:
                return await self._raced(same, first, recorded, order, found.divergence)
        return self._result(len(drawn), first)

    async def _raced(
        self, count: int, first: ReplayResult, same: Order, other: Order, divergence: Divergence
    ) -> SchedulesResult:
        """Find the two states whose order decides; in `same` nothing differs, or nothing in that state."""
        known = divergence if not first.identical else None

        async def is_same(order: Order) -> bool:
            return not _in(await self.replayed(order), known)

        before, after, place = await neighbours(same, other, is_same)
        differs = await self.replayed(after)
        again = differs.divergence
        if again is None or not _in(differs, known) or not await is_same(before):
            return self._result(count, first, divergence, unsteady=True)
        one, two = (lane_of(self.blocks[after[at]][0]) for at in (place, place + 1))
        again = attrs.evolve(
            again,
            cause=Cause.STATES_RACED,
            cause_text=f"it depends on which of {one} and {two} is first: neither follows the other, and they "
            "share something besides the context (a global, a cache, a file)",
            code=(),
        )
        return self._result(count, first, again, Race((one, two), again))

    def _place(self, divergence: Divergence) -> int | None:
        """Return the position of the attempt in which a replay differs, or None outside attempts."""
        return next(
            (
                place
                for place, block in enumerate(self.blocks)
                for entry in block
                if isinstance(entry.event, StateEntered)
                and (entry.event.state_id, entry.event.attempt) == (divergence.state_id, divergence.attempt)
            ),
            None,
        )

    def _result(
        self,
        count: int,
        first: ReplayResult,
        divergence: Divergence | None = None,
        race: Race | None = None,
        *,
        unsteady: bool = False,
    ) -> SchedulesResult:
        return SchedulesResult(self.run_id, count, self.seed, first.digest, race, divergence, unsteady)


def _in(result: ReplayResult, known: Divergence | None) -> bool:
    """Return whether a replay differs and, if a divergence is known, does so in the same attempt."""
    found = result.divergence
    return found is not None and (
        known is None or (found.state_id, found.attempt) == (known.state_id, known.attempt)
    )
