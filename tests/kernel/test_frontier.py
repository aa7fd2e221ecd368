"""The frontier, held against the definition: a state sees the last writes among its ancestors, if they agree."""

from __future__ import annotations

import random
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine import Plan, RunConfig, canonical
from machine.config import FanOutJoin
from machine.events import RunStarted, StateCompleted, StateEntered, StateSkipped
from machine.kernel.decide import decide
from machine.kernel.decisions import AwaitAttempts, CompleteRun, EnterState
from machine.kernel.frontier import Conflict, Frontier
from machine.kernel.history import History
from machine.kernel.scheduler import Schedule
from machine.kernel.snapshot import Snapshot
from tests.strategies import FAST, entry_of

KEYS = ["a", "b", "c"]


@st.composite
def graphs(draw):
    """Draw a graph: for each state its parents, its writes (None removes), and whether it is skipped."""
    size = draw(st.integers(1, 9))
    parents = [
        sorted(draw(st.sets(st.integers(0, number - 1), max_size=3))) if number else []
        for number in range(size)
    ]
    value = st.none() | st.integers(0, 2) | st.just("x" * 200)
    writes = [draw(st.dictionaries(st.sampled_from(KEYS), value, max_size=2)) for _ in range(size)]
    skipped = draw(st.sets(st.integers(0, size - 1), max_size=2))
    return parents, writes, skipped


class World:
    """A plan of such a graph, its artifacts, and a history that it is run into by hand."""

    def __init__(self, parents, writes, skipped):
        self.parents, self.writes, self.skipped = parents, writes, skipped
        self.plan = Plan("op")
        states = []
        for number in range(len(parents)):
            after = [states[parent] for parent in parents[number]]
            states.append(self.plan.state(f"s.n{number}", after=after)(lambda ctx, io, rec: None))
        self.graph = self.plan.graph
        self.artifacts = {}
        self.history = History()
        start = self.keep(Snapshot.empty(self.artifacts.__getitem__).update({"a": b"0"}))
        self.note(RunStarted("op", "0" * 64, self.graph.plan_id, start.id, 50))

    def keep(self, made):
        snapshot, new = made
        self.add(new)
        return snapshot

    def add(self, made):
        self.artifacts.update((new.id, new.data) for new in made.values())

    def note(self, event, **told):
        self.history.advance(entry_of(self.history.head_seq + 1, event, **told))

    def ancestors(self, number):
        found = set(self.parents[number])
        for parent in self.parents[number]:
            found |= self.ancestors(parent)
        return found

    def expected(self, above):
        """Return the context after some states, None when two of them disagree."""
        context = {"a": 0}
        for key in KEYS:
            writers = [one for one in above if one not in self.skipped and key in self.writes[one]]
            last = [one for one in writers if not any(one in self.ancestors(other) for other in writers)]
            values = {canonical.encode(self.writes[one][key]) for one in last}
            if len(values) > 1:
                return None
            if last:
                context[key] = self.writes[last[0]][key]
        return {key: value for key, value in context.items() if value is not None}

    def settle(self, number, frontier, **told):
        state_id = f"op.s.n{number}"
        if number in self.skipped:
            self.note(StateSkipped(state_id, "skip_tag:x"))
            return
        base = frontier.base(state_id)
        self.add(frontier.take_made())
        self.note(StateEntered(state_id, 0, base.id))
        writes = {
            key: None if value is None else canonical.encode(value)
            for key, value in self.writes[number].items()
        }
        after = self.keep(base.update(writes))
        self.note(StateCompleted(state_id, after.id, tuple(sorted(writes))), **told)


@FAST
@given(graphs(), st.randoms(use_true_random=False))
def test_a_base_is_what_the_definition_says_in_whatever_order_states_end(graph, draw):
    world = World(*graph)
    frontier = Frontier(world.graph, world.artifacts.__getitem__)
    left = set(range(len(world.parents)))
    conflicted = False
    while left:
        ready = [one for one in left if not left & set(world.parents[one])]
        assert {f"op.s.n{one}" for one in ready} == {
            f"op.s.n{one}" for one in left if frontier_may(frontier, world, one)
        }
        number = draw.choice(sorted(ready))
        wanted = world.expected(world.ancestors(number))
        try:
            base = frontier.base(f"op.s.n{number}")
        except Conflict:
            assert wanted is None
            conflicted = True
            break
        assert base.to_dict() == wanted
        # one made anew from the log alone says the same
        again = Frontier(world.graph, world.artifacts.__getitem__)
        again.follow(world.history)
        assert again.base(f"op.s.n{number}").id == base.id
        world.settle(number, frontier)
        left.discard(number)
    if not conflicted:
        frontier.follow(world.history)
        wanted = world.expected(set(range(len(world.parents))))
        try:
            assert frontier.final().to_dict() == wanted
        except Conflict:
            assert wanted is None


def frontier_may(frontier, world, number):
    frontier.follow(world.history)
    return frontier.may_begin(f"op.s.n{number}")


def test_the_states_that_may_begin_are_begun_in_the_order_of_the_plan():
    world = World([[], [], [0], []], [{}] * 4, set())
    schedule = Schedule(Frontier(world.graph, world.artifacts.__getitem__))
    config = RunConfig(execution_mode=FanOutJoin(50))
    begun = []
    while isinstance(decision := decide(world.graph, config, world.history, schedule=schedule), EnterState):
        begun.append(decision.state_id)
        schedule.busy.add(decision.state_id)
    assert begun == ["op.s.n0", "op.s.n1", "op.s.n3"]
    assert isinstance(decision, AwaitAttempts)


@pytest.mark.parametrize("seed", range(5))
def test_preferring_another_order_changes_no_base_and_no_end(seed):
    draw = random.Random(seed)
    parents = [
        sorted(draw.sample(range(number), min(number, draw.choice([0, 1, 2])))) for number in range(12)
    ]
    writes = [{f"k{number}": number} for number in range(12)]
    ends = set()
    for order in range(4):
        world = World(parents, writes, set())
        frontier = Frontier(world.graph, world.artifacts.__getitem__)
        schedule = Schedule(frontier)
        config = RunConfig(execution_mode=FanOutJoin(50))
        picks = random.Random(order)
        while True:
            schedule.prefer = f"op.s.n{picks.randrange(12)}"
            decision = decide(world.graph, config, world.history, schedule=schedule)
            if isinstance(decision, CompleteRun):
                ends.add(decision.final_snapshot_id)
                break
            world.settle(int(decision.state_id.removeprefix("op.s.n")), frontier)
    assert len(ends) == 1


def test_a_state_without_a_context_to_begin_on_is_not_begun_although_it_is_preferred():
    world = World([[], [], [0, 1]], [{"a": 1}, {"a": 2}, {}], set())
    frontier = Frontier(world.graph, world.artifacts.__getitem__)
    frontier.follow(world.history)
    for number in (0, 1):
        world.settle(number, frontier)
    schedule = Schedule(frontier, prefer="op.s.n2")
    decision = decide(world.graph, RunConfig(execution_mode=FanOutJoin(50)), world.history, schedule=schedule)
    assert (decision.status, decision.error.code) == ("failed", "context_conflict")


def test_a_chain_of_states_costs_memory_and_work_in_proportion_to_its_length():
    """Each state reads and writes one key, which thousands of others used before it."""
    held, calls = [], []
    for size in (256, 16 * 256):
        parents = [[number - 1] if number else [] for number in range(size)]
        world = World(parents, [{"a": number} for number in range(size)], set())
        frontier = Frontier(world.graph, world.artifacts.__getitem__)
        for number in range(size):
            frontier.follow(world.history)
            world.settle(number, frontier, info={"read": '["a"]'})
        tracemalloc.start()
        again = Frontier(world.graph, world.artifacts.__getitem__)
        again.follow(world.history)
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        counted = []
        sys.setprofile(lambda frame, event, arg, counted=counted: counted.append(event))
        again.final()
        Frontier(world.graph, world.artifacts.__getitem__).follow(world.history)
        sys.setprofile(None)
        assert again.error is None
        calls.append(len(counted))
    assert held[1] < 20 * held[0]
    assert calls[1] < 20 * calls[0]
