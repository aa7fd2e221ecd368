"""The orders that attempts made side by side may be replayed in, and the swap that decides between two of them."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from machine.recordings.schedule_orders import Orders, neighbours

constraints = st.integers(1, 9).flatmap(
    lambda count: st.tuples(
        *[st.lists(st.integers(0, place - 1), max_size=3) if place else st.just([]) for place in range(count)]
    )
)
seeds = st.integers(0, 1000)


def allows(orders, order):
    place = {block: at for at, block in enumerate(order)}
    return sorted(order) == list(orders.recorded) and all(
        place[before] < place[block] for block, befores in enumerate(orders.follows) for before in befores
    )


@given(constraints, seeds)
def test_every_order_that_is_drawn_is_allowed_and_another_one(follows, seed):
    orders = Orders(follows)
    drawn = orders.drawn(10, seed)
    assert all(allows(orders, order) for order in drawn)
    assert len({orders.recorded, *drawn}) == len(drawn) + 1
    assert orders.drawn(10, seed) == drawn


@given(constraints, seeds)
def test_where_the_plan_allows_another_order_one_is_found(follows, seed):
    orders = Orders(follows)
    swaps = [place for place in range(1, len(follows)) if place - 1 not in follows[place]]
    assert len(orders.drawn(5, seed)) >= bool(swaps)


def test_the_first_order_is_as_far_from_the_recorded_one_as_can_be():
    assert Orders([[], [0], [0], [0], [1, 2, 3]]).drawn(1, 0) == [(0, 3, 2, 1, 4)]


@given(constraints, st.data())
def test_a_block_can_be_made_with_nothing_before_it_that_it_does_not_follow(follows, data):
    orders = Orders(follows)
    place = data.draw(st.sampled_from(orders.recorded))
    order = orders.early(place)
    assert allows(orders, order)
    before = order[: order.index(place)]
    assert all(any(block in follows[other] for other in (*before, place)) for block in before)


@given(constraints, seeds, st.data())
def test_two_neighbours_are_found_of_which_one_is_the_same(follows, seed, data):
    orders = Orders(follows)
    drawn = orders.drawn(1, seed)
    swapped = [
        (one, other)
        for order in drawn
        for one, other in itertools.combinations(orders.recorded, 2)
        if order.index(one) > order.index(other)
    ]
    if not swapped:
        return
    racing = data.draw(st.lists(st.sampled_from(swapped), min_size=1, unique=True))
    asked = []

    async def is_same(order):
        assert allows(orders, order)
        asked.append(order)
        return all(order.index(one) < order.index(other) for one, other in racing)

    before, after, place = asyncio.run(neighbours(orders.recorded, drawn[0], is_same))
    assert asyncio.run(is_same(before))
    assert not asyncio.run(is_same(after))
    assert (before[place], before[place + 1]) == (after[place + 1], after[place])
    assert (after[place + 1], after[place]) in racing
    assert [*before[:place], *before[place + 2 :]] == [*after[:place], *after[place + 2 :]]


def test_a_race_among_many_is_found_in_few_replays():
    orders = Orders([[] for _ in range(1000)])
    asked = []

    async def is_same(order):
        asked.append(order)
        return order.index(400) < order.index(700)

    (far,) = orders.drawn(1, 0)
    _, after, place = asyncio.run(neighbours(orders.recorded, far, is_same))
    assert after[place : place + 2] == (700, 400)
    assert len(asked) <= 20
