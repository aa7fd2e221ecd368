"""Ancestors by chains, held against the definition, and what they cost: memory in proportion to the plan."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.kernel.ancestors import Ancestors
from tests.strategies import FAST


@st.composite
def graphs(draw):
    size = draw(st.integers(1, 14))
    return [
        tuple(sorted(draw(st.sets(st.integers(0, place - 1), max_size=4)))) if place else ()
        for place in range(size)
    ]


def by_definition(parents):
    found = []
    for over in parents:
        found.append(set(over).union(*(found[one] for one in over)))
    return found


@FAST
@given(graphs(), st.data())
def test_the_ancestors_are_what_the_definition_says(parents, data):
    found, wanted = Ancestors(parents), by_definition(parents)
    places = range(len(parents))
    for place in places:
        assert {other for other in places if found.follows(place, other)} == wanted[place]
        assert found.count(place) == len(wanted[place])
        on_its_chain = {other for other in places if found.chain[other] == found.chain[place]}
        assert {other for other in on_its_chain if other < place} <= wanted[place]
    some = tuple(data.draw(st.sets(st.sampled_from(places))))
    whole = set(some).union(*(wanted[one] for one in some))
    up_to = found.up_to(some)
    assert {other for other in places if up_to.last(found.chain[other]) >= other} == whole
    latest = [one for one in sorted(some, reverse=True) if not any(one in wanted[other] for other in some)]
    assert list(found.latest(some)) == latest


def chain(size):
    return [(place - 1,) if place else () for place in range(size)]


def pipelines(size, width=10):
    """Return chains of equal length with no edge between them."""
    return [(place - width,) if place >= width else () for place in range(size)]


def pipelines_with_a_log(size, width=10):
    """Return the same, each state of which is followed by a last one too."""
    return [*pipelines(size - 1, width), tuple(range(size - 1))]


def diamonds(size, width=10):
    """Return one state, some that follow it, one that follows these, and so on."""
    parents = []
    for place in range(size):
        start = place - place % (width + 1)
        if place != start:
            parents.append((start,))
        else:
            parents.append(tuple(range(start - width, start)) if start else ())
    return parents


def fan(size):
    """Return one state, many that follow it, and one that follows these."""
    return [(), *[(0,)] * (size - 2), tuple(range(1, size - 1))]


def tree(size):
    """Return leaves that are joined by twos."""
    leaves = size // 2 + 1
    return [
        () if place < leaves else (2 * (place - leaves), 2 * (place - leaves) + 1) for place in range(size)
    ]


def layers(size, width=32):
    """Return layers, in which each state follows all of the layer before."""
    befores = [tuple(range(start - width, start)) if start else () for start in range(0, size, width)]
    return [befores[place // width] for place in range(size)]


@pytest.mark.parametrize("shape", [chain, pipelines, pipelines_with_a_log, diamonds, fan, tree, layers])
def test_memory_grows_with_the_plan_and_not_with_its_pairs_of_states(shape):
    held = []
    for size in (512, 16 * 512):
        parents = shape(size)
        tracemalloc.start()
        found = Ancestors(parents)
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(found.chain) == size
    # a tree has its logarithm as well
    assert held[1] < (24 if shape is tree else 20) * held[0]


@pytest.mark.parametrize(("shape", "chains"), [(chain, 1), (pipelines, 10), (diamonds, 10), (layers, 32)])
def test_there_are_no_more_chains_than_states_that_follow_no_other(shape, chains):
    assert len(set(Ancestors(shape(1000)).chain)) == chains
