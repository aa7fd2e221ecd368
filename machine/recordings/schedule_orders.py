"""Orders in which concurrent states may be replayed one after another.

An order is a permutation of the blocks of a recording. Nothing is run here, and random choices follow from a
seed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from machine.engine.run_reader import lane_of
from machine.events import (
    CleanupBegun,
    Entry,
    RunResumed,
    RunStarted,
    RunSuspended,
    StateCompleted,
    StateSkipped,
)
from machine.plan import Graph

Order: TypeAlias = tuple[int, ...]
"""Positions of blocks in the recording."""

_DRAWS: Final = 8
"""Draws for each requested order before a plan is assumed to allow no other."""

_Block: TypeAlias = Sequence[Entry]


@attrs.frozen
class Orders:
    """The orders a recording may be replayed in; `follows` maps each block to its predecessors.

    Events of the run as a whole are barriers for every order. Between them a state follows those it has an edge
    from. A state that did not complete follows all that ended before it, because the first failure and the open
    waits are recorded in that order.
    """

    follows: Sequence[Sequence[int]]

    @classmethod
    def of(cls, blocks: Sequence[_Block], graphs: Mapping[str, Graph]) -> Orders:
        """Return the orders of a recording, given the plans that it went by, by id."""
        follows: list[list[int]] = []
        graph: Graph | None = None
        epoch: list[int] = []
        fixed = cleaning = False
        for place, block in enumerate(blocks):
            event = block[0].event
            if lane_of(block[0]):
                epoch.append(place)
                continue
            follows += _within(blocks, epoch, graph, fixed=fixed)
            # a barrier follows everything before it; the previous barrier already follows the rest
            follows.append([*epoch, *([min(epoch, default=place) - 1] if place else [])])
            cleaning = cleaning or isinstance(event, CleanupBegun)
            epoch, fixed = [], cleaning or isinstance(event, RunSuspended)
            if isinstance(event, RunStarted | RunResumed) and event.plan_id is not None:
                graph = graphs[event.plan_id]
        follows += _within(blocks, epoch, graph, fixed=fixed)
        return cls(follows)

    @property
    def recorded(self) -> Order:
        """The order of the recording: the numbers of its blocks, from 0 upwards."""
        return tuple(range(len(self.follows)))

    def drawn(self, count: int, seed: int) -> list[Order]:
        """Return up to `count` distinct orders other than the recorded one.

        The first is as far from the recorded one as the plan allows; the others are drawn at random.
        """
        draw = random.Random(seed)  # noqa: S311 - the choice of orders is no secret
        found: dict[Order, None] = {self.recorded: None}
        keys: list[float] = [-place for place in self.recorded]
        for _ in range(_DRAWS * count):
            found.setdefault(self._by(keys))
            if len(found) > count:
                break
            keys = [draw.random() for _ in self.follows]
        return list(found)[1:]

    def early(self, place: int) -> Order:
        """Return the order in which only its predecessors precede a block."""
        needed = {place}
        for other in range(place, -1, -1):
            if other in needed:
                needed.update(self.follows[other])
        return (*sorted(needed), *(other for other in self.recorded if other not in needed))

    def _by(self, keys: Sequence[float]) -> Order:
        """Return the order that picks, among the blocks that may come next, the one with the least key."""
        waiting = [len(before) for before in self.follows]
        after: list[list[int]] = [[] for _ in self.follows]
        for place, before in enumerate(self.follows):
            for other in before:
                after[other].append(place)
        ready = [(keys[place], place) for place, count in enumerate(waiting) if not count]
        heapq.heapify(ready)
        order: list[int] = []
        while ready:
            _, place = heapq.heappop(ready)
            order.append(place)
            for other in after[place]:
                waiting[other] -= 1
                if not waiting[other]:
                    heapq.heappush(ready, (keys[other], other))
        return tuple(order)


def _within(
    blocks: Sequence[_Block], epoch: Sequence[int], graph: Graph | None, *, fixed: bool
) -> Iterator[list[int]]:
    """Yield the predecessors of each block between two events of the run."""
    if not epoch:
        return
    barrier = epoch[0] - 1
    last = {lane_of(blocks[place][0]): place for place in epoch}
    settled: dict[str, int] = {}
    seen: dict[str, int] = {}
    for place in epoch:
        state_id = lane_of(blocks[place][0])
        before = [barrier]
        if fixed and place > epoch[0]:
            before.append(place - 1)
        if state_id in seen:
            before.append(seen[state_id])
        elif graph is not None:
            before += [settled[parent] for parent in graph.parents.get(state_id, ()) if parent in settled]
        seen[state_id] = place
        if isinstance(blocks[place][-1].event, StateCompleted | StateSkipped):
            settled[state_id] = place
        elif last[state_id] == place:
            before = [barrier, *(other for other in epoch if other < place)]
        yield before


async def neighbours(
    same: Order, other: Order, is_same: Callable[[Order], Awaitable[bool]]
) -> tuple[Order, Order, int]:
    """Return two orders that differ in one swap, the first of which is the same and the second is not.

    The last value is the position of the swap. `same` is an order with the same result, `other` one without. A
    path of swaps of adjacent blocks leads from one to the other, and every order on it is allowed; it is
    searched by bisection.
    """

    def moved(count: int) -> Order:
        """Return `same` with the first blocks of `other` before the rest."""
        front = other[:count]
        chosen = frozenset(front)
        return (*front, *(place for place in same if place not in chosen))

    count = await _last(0, len(other), lambda number: is_same(moved(number)))
    start = moved(count)
    came = start.index(other[count])

    def shifted(steps: int) -> Order:
        """Return `start` with the next block of `other` moved forward by that many positions."""
        to = came - steps
        return (*start[:to], start[came], *start[to:came], *start[came + 1 :])

    steps = await _last(0, came - count, lambda number: is_same(shifted(number)))
    return shifted(steps), shifted(steps + 1), came - steps - 1


async def _last(same: int, other: int, is_same: Callable[[int], Awaitable[bool]]) -> int:
    """Return the last number below the first that is not the same, given bounds of both kinds."""
    while other - same > 1:
        middle = (same + other) // 2
        if await is_same(middle):
            same = middle
        else:
            other = middle
    return same
