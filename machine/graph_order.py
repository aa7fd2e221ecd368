"""The order of a graph: topological, ties broken by declaration; or the cycle that forbids one. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from machine.errors import Code, PlanError


def topological(ids: Sequence[str], edges: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Return `ids` so that edges point forward; among those that are ready, the one declared first goes first.

    Raises `PlanError` (`circular_dependency`) with one cycle, in order.
    """
    position = {state_id: index for index, state_id in enumerate(ids)}
    waiting_for = dict.fromkeys(ids, 0)
    later: dict[str, list[str]] = {state_id: [] for state_id in ids}
    for earlier, follower in edges:
        waiting_for[follower] += 1
        later[earlier].append(follower)
    ready = [position[state_id] for state_id, count in waiting_for.items() if count == 0]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        state_id = ids[heapq.heappop(ready)]
        order.append(state_id)
        for follower in later[state_id]:
            waiting_for[follower] -= 1
            if waiting_for[follower] == 0:
                heapq.heappush(ready, position[follower])
    if len(order) < len(ids):
        cycle = _cycle({state_id for state_id, count in waiting_for.items() if count}, later)
        raise PlanError(
            f"the plan has a cycle: {' -> '.join(cycle)}",
            code=Code.CIRCULAR_DEPENDENCY,
            details={"cycle": cycle},
        )
    return tuple(order)


def _cycle(left: set[str], later: Mapping[str, list[str]]) -> list[str]:
    """Return one cycle among `left`, its first state repeated at the end.

    Every remaining state waits for another remaining one, so a walk backwards must meet itself.
    """
    earlier = {follower: state_id for state_id in sorted(left, reverse=True) for follower in later[state_id]}
    seen: dict[str, None] = {}
    here = min(left)
    while here not in seen:
        seen[here] = None
        here = earlier[here]
    path = list(seen)
    loop = path[path.index(here) :][::-1]
    return [*loop, loop[0]]
