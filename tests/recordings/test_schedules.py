"""A run whose states ran side by side, under other schedules: one digest, or the names of who raced."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import textwrap
import threading

import attrs
import pytest
from crashes import left_after

import machine
from machine import DomainEvent, Plan, RetryPolicy, RunConfig, StateOutcome, aio
from machine.config import FanOutJoin
from machine.errors import Code, RunError, TransportError, UsageError
from machine.io.transport import BaseTransport
from machine.recordings.divergence import Cause
from machine.target import load

SIDE_BY_SIDE = RunConfig(execution_mode=FanOutJoin(4))


def fan(count, *, fails=()):
    """Return a plan of two layers and a join, in which some states of the first layer fail."""
    plan = Plan("fan")

    def add(number):
        @plan.state(f"first.n{number}")
        async def first(ctx, io, rec):
            await io.sleep(0.001 * (number % 5))
            await rec.emit(DomainEvent("noted", {"number": number}))
            if number in fails:
                raise ValueError(f"no {number}")
            ctx[f"a{number}"] = (await io.random()).random() + number

        @plan.state(f"second.n{number}", after=[first])
        def second(ctx, io, rec):
            ctx[f"b{number}"] = ctx[f"a{number}"] * 2

        return second

    seconds = [add(number) for number in range(count)]

    @plan.state("join.all", after=seconds)
    async def join(ctx, io, rec):
        ctx["sum"] = sum(ctx[f"b{number}"] for number in range(count))

    return plan


def recorded(plan, store, config=SIDE_BY_SIDE):
    return machine.run(plan, store=store, config=config)


def test_a_run_comes_to_one_digest_under_every_schedule(store):
    plan = fan(15)
    result = recorded(plan, store)
    assert result.status == "completed"
    found = machine.schedules(result.run_id, plan=plan, store=store, count=20)
    assert found.identical, found.divergence
    assert (found.schedules, found.digest, found.race) == (20, result.digest, None)
    assert json.loads(json.dumps(found.to_json()))["schedules"] == 20


def test_the_handlers_are_run_once_for_each_schedule(store):
    order = []
    plan = Plan("fan")
    for name in "abc":

        @plan.state(f"s.{name}")
        async def handler(ctx, io, rec, name=name):
            order.append(name)

    result = recorded(plan, store)
    order.clear()
    found = machine.schedules(result.run_id, plan=plan, store=store, count=100)
    assert found.schedules == 5  # there are six orders of three
    assert len({"".join(order[at : at + 3]) for at in range(0, 18, 3)}) == 6
    assert len(order) == 18


@pytest.mark.parametrize("on_failure", ["finish", "cancel"])
def test_a_run_in_which_states_failed_comes_to_one_digest(store, on_failure):
    plan = fan(6, fails={1, 2})
    result = recorded(plan, store, RunConfig(execution_mode=FanOutJoin(6, on_failure=on_failure)))
    assert result.status == "failed"
    assert machine.replay(result.run_id, plan=plan, store=store).identical
    found = machine.schedules(result.run_id, plan=plan, store=store)
    assert found.identical, found.divergence
    assert found.schedules > 0


def test_retries_may_stand_anywhere_after_what_failed(store):
    plan = Plan("fan")
    for number in range(4):

        @plan.state(f"s.n{number}", retry=RetryPolicy(3))
        async def handler(ctx, io, rec, number=number):
            if number % 2 and (await io.random()).random() < 0.7:
                raise machine.Failure("again", code="again", retryable=True)
            ctx[f"k{number}"] = number

    result = recorded(plan, store)
    found = machine.schedules(result.run_id, plan=plan, store=store)
    assert found.identical, found.divergence
    assert found.digest == result.digest


@pytest.mark.slow
@pytest.mark.parametrize("plan", [fan(3), fan(3, fails={1})], ids=["whole", "failing"])
def test_a_run_that_was_cut_anywhere_and_resumed_comes_to_one_digest(store, plan):
    whole = recorded(plan, store).run_id
    for length in range(1, len(list(store.read_range(whole)))):
        left = left_after(store, whole, length)
        cut = machine.schedules(left, plan=plan, store=store, count=3)
        assert cut.identical, (length, cut.divergence)
        result = machine.resume(left, plan=plan, store=store)
        found = machine.schedules(left, plan=plan, store=store, count=5)
        assert found.identical, (length, found.divergence)
        assert found.digest == result.digest


def test_branches_are_taken_as_they_were(store):
    plan = Plan("fan")

    @plan.state("s.choose")
    async def choose(ctx, io, rec):
        return StateOutcome(goto=["s.left"])

    for name in ("left", "right"):

        @plan.state(f"s.{name}", after=[choose])
        async def handler(ctx, io, rec, name=name):
            ctx[name] = True

    @plan.state("s.beyond", after=["s.right"])
    async def beyond(ctx, io, rec):
        ctx["never"] = True

    @plan.state("s.join", after=["s.left", "s.right"])
    async def join(ctx, io, rec):
        ctx["joined"] = sorted(ctx)

    result = recorded(plan, store)
    assert result.context == {"left": True, "joined": ["left"]}
    found = machine.schedules(result.run_id, plan=plan, store=store, count=50)
    assert found.identical, found.divergence
    assert found.schedules > 2


class FirstFail(BaseTransport):
    """An outside that is down the first times it is asked."""

    def __init__(self, times, *, effects=False):
        self.left = times
        self.effects = effects

    def is_effect(self, namespace, request):
        return self.effects

    async def perform(self, namespace, request):
        self.left -= 1
        if self.left >= 0:
            raise TransportError("down", retryable=True)
        await asyncio.sleep(0.01)  # others are asked meanwhile
        return {}


def test_a_run_that_was_cancelled_while_states_were_tried_again_comes_to_one_digest(store):
    plan, begun = Plan("fan"), threading.Barrier(4, timeout=20)
    for number in range(3):

        @plan.state(f"s.n{number}", retry=RetryPolicy(2))
        async def handler(ctx, io, rec):
            await io.call("world", {})
            await asyncio.to_thread(begun.wait)
            await asyncio.sleep(30)

    run_id = str(machine.new_run_id())
    config = attrs.evolve(SIDE_BY_SIDE, undeclared_io="allow")
    transports = {"world": FirstFail(3)}
    driver = threading.Thread(
        target=lambda: machine.run(plan, store=store, run_id=run_id, config=config, transports=transports),
        daemon=True,
    )
    driver.start()
    begun.wait()
    assert machine.cancel(run_id, store=store).status == "cancelled"
    driver.join(20)
    assert machine.replay(run_id, plan=plan, store=store).identical
    found = machine.schedules(run_id, plan=plan, store=store)
    assert found.identical, found.divergence


def test_a_run_that_went_on_with_another_plan_is_permuted_between_the_two(store):
    whole = recorded(fan(3), store).run_id
    longer = fan(3)
    longer.state("later.more", after=["first.n0"])(lambda ctx, io, rec: None)
    for length in range(4, 20, 3):
        left = left_after(store, whole, length)
        result = machine.resume(left, plan=longer, store=store, allow_plan_change=True)
        assert result.status == "completed"
        found = machine.schedules(left, plan=longer, store=store, count=4)
        assert found.identical, (length, found.divergence)
        other = machine.schedules(left, plan=fan(3), store=store)
        assert (other.identical, other.race) == (False, None)


def test_a_run_that_waited_for_answers_is_permuted_around_them(store):
    plan = Plan("fan")
    for number in range(4):

        @plan.state(
            f"s.n{number}", side_effects="apply_side_effect", idempotency=f"k{number}", on_uncertain="ask"
        )
        async def handler(ctx, io, rec, number=number):
            await io.call("world", {"n": number})
            ctx[f"k{number}"] = number

    transports = {"world": FirstFail(0, effects=True)}
    whole = machine.run(plan, store=store, config=SIDE_BY_SIDE, transports=transports)
    waited = 0
    for length in range(2, whole.head_seq):
        left = left_after(store, whole.run_id, length)
        result = machine.resume(left, plan=plan, store=store, transports=transports)
        while result.status == "suspended":
            waited = max(waited, len(result.waits))
            for wait in result.waits:
                machine.resolve(left, wait.key, store=store, not_done=True)
            result = machine.resume(left, plan=plan, store=store, transports=transports)
        found = machine.schedules(left, plan=plan, store=store, count=4, transports=transports)
        assert found.identical, (length, found.divergence)
        assert found.digest == result.digest
    assert waited > 1


def test_of_several_missing_edges_the_same_is_told_under_every_schedule(store):
    plan = Plan("fan")
    for number in range(3):

        @plan.state(f"write.n{number}")
        async def write(ctx, io, rec, number=number):
            await io.sleep(0.01 * (3 - number))
            ctx[f"k{number}"] = number

        @plan.state(f"read.n{number}")
        async def read(ctx, io, rec, number=number):
            await io.sleep(0.01 * (3 - number))
            ctx[f"r{number}"] = ctx.get(f"k{number}")

    result = recorded(plan, store, RunConfig(execution_mode=FanOutJoin(6)))
    assert result.error.details == {"key": "k0", "reader": "fan.read.n0", "writer": "fan.write.n0"}
    found = machine.schedules(result.run_id, plan=plan, store=store)
    assert found.identical, found.divergence
    assert found.digest == result.digest


def test_a_run_with_no_other_schedule_says_so(store):
    plan = Plan("chain")
    plan.state("s.a")(lambda ctx, io, rec: None)
    plan.state("s.b", after=["s.a"])(lambda ctx, io, rec: None)
    found = machine.schedules(recorded(plan, store).run_id, plan=plan, store=store)
    assert (found.identical, found.schedules) == (True, 0)


@pytest.mark.parametrize("count", [0, -1, 2.0, True, 10**9])
def test_a_count_that_is_none_is_refused(store, count):
    plan = fan(2)
    run_id = recorded(plan, store).run_id
    with pytest.raises(UsageError, match="the number of schedules"):
        machine.schedules(run_id, plan=plan, store=store, count=count)


def test_a_run_of_one_state_at_a_time_is_refused(store):
    plan = fan(2)
    run_id = machine.run(plan, store=store).run_id
    with pytest.raises(UsageError, match="in sequential mode") as refused:
        machine.schedules(run_id, plan=plan, store=store)
    assert "--concurrency" in refused.value.hint


def test_changed_code_is_no_race(store):
    result = recorded(fan(3), store)
    plan = Plan("fan")
    for state in fan(3).graph.states.values():
        handler = (lambda ctx, io, rec: None) if state.id == "fan.second.n1" else state.handler
        plan.state(state.id, after=state.after)(handler)
    found = machine.schedules(result.run_id, plan=plan, store=store)
    assert not found.identical
    assert (found.race, found.unsteady, found.schedules) == (None, False, 0)
    assert found.divergence.state_id == "fan.second.n1"


def test_what_is_left_behind_in_this_process_is_found_and_blamed_on_nobody(store):
    plan = Plan("fan")
    drawn = random.Random(7)
    calls = []
    for name in "ab":

        @plan.state(f"s.{name}")
        async def handler(ctx, io, rec, name=name):
            calls.append(name)
            ctx[name] = 0 if len(calls) <= 4 else drawn.random()

    result = recorded(plan, store)
    found = machine.schedules(result.run_id, plan=plan, store=store)
    assert not found.identical
    assert (found.race, found.unsteady) == (None, True)


def test_the_coroutine_does_the_same(store):
    plan = fan(3)
    run_id = recorded(plan, store).run_id
    found = asyncio.run(aio.schedules(run_id, plan=plan, store=store, count=3, seed=5))
    assert (found.identical, found.schedules, found.seed) == (True, 3, 5)


# -- in copies of a process ------------------------------------------------------------------------------------

COUNTS = """
    from machine import Plan

    plan = Plan("fan")
    taken = []


    def add(number):
        @plan.state(f"s.n{number}")
        async def handler(ctx, io, rec):
            if number in (3, 7):
                taken.append(number)
                ctx[f"k{number}"] = len(taken)
            else:
                ctx[f"k{number}"] = 0


    for number in range(10):
        add(number)
"""
LOSES = """
    from machine import Plan

    plan = Plan("fan")
    total = 0


    def add(number):
        @plan.state(f"s.n{number}")
        async def handler(ctx, io, rec):
            global total
            seen = total
            await io.sleep(0.05)
            if number in (3, 7):
                total = seen + 1
                ctx[f"k{number}"] = {"total": total}


    for number in range(10):
        add(number)
"""
PAIR = """
    from machine import Plan

    plan = Plan("fan")
    plan.state("s.a")(lambda ctx, io, rec: None)
"""
CALLS = """
    from machine import Plan

    plan = Plan("fan")
    cache = {}


    @plan.state("s.asks")
    async def asks(ctx, io, rec):
        cache["home"] = await io.env("HOME")


    @plan.state("s.reads")
    async def reads(ctx, io, rec):
        if "home" not in cache:
            await io.env("HOME")
"""


@pytest.fixture
def written(tmp_path):
    """Write the module of a plan and load it; what it was before is forgotten."""
    path = list(sys.path)
    modules = set(sys.modules)

    def write(text):
        file = tmp_path / "fan_plan.py"
        file.write_text(textwrap.dedent(text))
        return load(str(file))

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("machine_target_"):
            del sys.modules[name]


def permuted(loaded, store, *, config=SIDE_BY_SIDE, **options):
    run_id = machine.run(loaded.plan, store=store, config=config, target=loaded.target).run_id
    return machine.schedules(run_id, plan=loaded.plan, store=store, target=loaded.target, **options)


def test_two_states_that_count_in_a_global_are_named_and_so_is_the_key(store, written):
    found = permuted(written(COUNTS), store)
    assert not found.identical
    assert set(found.race.states) == {"fan.s.n3", "fan.s.n7"}
    assert (found.race.what, found.race.pointer) in {("context", "/k3"), ("context", "/k7")}
    assert found.divergence.cause is Cause.STATES_RACED
    (change,) = found.divergence.changes
    assert {change.recorded, change.now} == {1, 2}


def test_an_update_that_was_lost_is_found_although_no_order_replays_it(store, written):
    loaded = written(LOSES)
    config = RunConfig(execution_mode=FanOutJoin(10))
    found = permuted(loaded, store, config=config)
    assert found.race.states == ("fan.s.n3", "fan.s.n7")
    assert (found.race.state_id, found.race.pointer) == ("fan.s.n7", "/k7/total")
    (change,) = found.divergence.changes
    assert (change.recorded, change.now) == (1, 2)


def test_a_race_that_shows_in_a_call_is_found(store, written):
    found = permuted(written(CALLS), store, config=RunConfig(execution_mode=FanOutJoin(1)))
    assert set(found.race.states) == {"fan.s.asks", "fan.s.reads"}
    assert (found.race.what, found.race.state_id) == ("call", "fan.s.reads")


@pytest.mark.slow
def test_a_module_that_starts_a_thread_is_replayed_in_a_process_for_each_schedule(store, written):
    thread = """
    import threading, time

    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    """
    found = permuted(written(thread + COUNTS), store, count=1)
    assert set(found.race.states) == {"fan.s.n3", "fan.s.n7"}


def test_a_handler_that_ends_its_process_is_told_of(store, written):
    leaves = """
    import os, sys

    LEAVES = "machine.recordings.fork_server_child" in sys.orig_argv


    @plan.state("s.leaves")
    async def leaves(ctx, io, rec):
        if LEAVES:
            os._exit(7)
    """
    with pytest.raises(RunError, match="exit code 7") as raised:
        permuted(written(PAIR + leaves), store)
    assert raised.value.code == Code.HANDLER_ERROR


def test_what_handlers_print_and_read_is_kept_apart(store, written):
    prints = """
    @plan.state("s.prints")
    async def prints(ctx, io, rec):
        import sys
        print("{}", file=sys.__stdout__, flush=True)
        ctx["read"] = sys.stdin.read(1) if "machine.recordings.fork_server_child" in sys.orig_argv else ""
    """
    found = permuted(written(PAIR + prints), store)
    assert (found.identical, found.schedules) == (True, 1)
