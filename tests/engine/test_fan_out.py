"""States that run side by side: what each sees, where they come together, and how such a run fails and goes on."""

from __future__ import annotations

import asyncio
import random
import threading

import anyio
import pytest

import machine
from machine import (
    Failure,
    MachineError,
    Plan,
    RetryPolicy,
    RunConfig,
    StateOutcome,
    replay,
    resume,
    run,
    verify,
)
from machine.codec import decode_entry
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.events import RunCompleted, StateEntered, StateFailed, StateSkipped
from machine.stores import MemoryStore
from tests.engine.random_plans import Slow, random_plan


def side_by_side(count=8, on_failure="finish", **options):
    return RunConfig(execution_mode=FanOutJoin(count, on_failure), **options)


def events_of(store, run_id):
    return [entry.event for entry, _ in run_reader.entries(store, run_id)]


def sound(plan, store, result, **options):
    """Check that a run is what was recorded, and that a replay comes to the same."""
    assert verify(result.run_id, store=store).problems == ()
    replayed = replay(result.run_id, plan=plan, store=store, **options)
    assert replayed.divergence is None
    assert (replayed.digest, replayed.status) == (result.digest, result.status)


def writer(plan, name, writes, *, after=(), wait=0.0, **options):
    """Add a state that writes what it is told, after a while."""

    async def handler(ctx, io, rec):
        await asyncio.sleep(wait)
        for key, value in writes.items():
            ctx[key] = value

    return plan.state(name, after=after, **options)(handler)


@pytest.mark.slow
@pytest.mark.parametrize("shape", range(6))
def test_what_a_run_does_is_the_same_for_every_interleaving(shape):
    seen = set()
    for pace in map(random.Random, range(4)):
        plan = random_plan(shape, 40, pace, secrets=True)
        with MemoryStore() as store:
            world = {"world": Slow(shape, pace)}
            result = run(plan, store=store, config=side_by_side(undeclared_io="allow"), transports=world)
            assert result.status == "completed", result.error
            sound(plan, store, result)
            seen.add((result.digest, result.final_snapshot_id))
    assert len(seen) == 1


@pytest.mark.parametrize("shape", range(4))
def test_one_at_a_time_and_side_by_side_come_to_one_context(shape):
    contexts = set()
    for config in (RunConfig(), side_by_side(1), side_by_side(3), side_by_side(50)):
        plan = random_plan(shape, 30, random.Random(1), plain=False)
        with MemoryStore() as store:
            world = {"world": Slow(shape, random.Random(2))}
            result = run(plan, store=store, config=config, transports=world)
            contexts.add(result.final_snapshot_id)
    assert len(contexts) == 1


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["effects", "states", "facts"])
@pytest.mark.parametrize("shape", range(2))
def test_a_run_killed_anywhere_comes_to_the_same_context(shape, durability, crashed_after):
    pace = random.Random(shape)
    plan = random_plan(shape, 10, pace)
    config = side_by_side(5, durability=durability, undeclared_io="allow")
    with MemoryStore() as store:
        whole = run(plan, store=store, config=config, transports={"world": Slow(shape, pace)})
        for length in range(1, whole.head_seq, 4):
            left = crashed_after(store, whole.run_id, length)
            # what happened before the crash was asked for before the crash
            resumed = resume(whole.run_id, plan=plan, store=left, transports={"world": Slow(shape, pace)})
            assert (resumed.status, resumed.final_snapshot_id) == ("completed", whole.final_snapshot_id)
            sound(plan, left, resumed)


def test_no_more_states_run_at_a_time_than_were_asked_for():
    plan, running, most = Plan("op"), set(), []

    def add(number):
        @plan.state(f"step.n{number}")
        async def handler(ctx, io, rec):
            running.add(number)
            most.append(len(running))
            await asyncio.sleep(0.001)
            running.discard(number)

    for number in range(20):
        add(number)
    with MemoryStore() as store:
        assert run(plan, store=store, config=side_by_side(7)).status == "completed"
    assert max(most) == 7


def test_handlers_that_block_run_at_the_same_time():
    plan, meet = Plan("op"), threading.Barrier(3, timeout=20)
    for number in range(3):
        plan.state(f"step.n{number}")(lambda ctx, io, rec: meet.wait() < 0 or None)
    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side(3, undeclared_io="allow"))
    assert result.status == "completed", result.error


def test_a_state_sees_what_its_ancestors_wrote_and_nothing_else():
    plan = Plan("op")
    first = writer(plan, "step.first", {"first": 1})
    beside = writer(plan, "step.beside", {"beside": 2})

    @plan.state("step.after", after=[first])
    async def after(ctx, io, rec):
        await asyncio.sleep(0.01)  # the state beside it has long ended
        ctx["seen"] = list(ctx)

    @plan.state("step.both", after=[after, beside])
    async def both(ctx, io, rec):
        ctx["all"] = list(ctx)

    with MemoryStore() as store:
        result = run(plan, store=store, input={"input": 0}, config=side_by_side())
        assert result.context["seen"] == ["first", "input"]
        assert result.context["all"] == ["beside", "first", "input", "seen"]
        sound(plan, store, result)


def test_a_key_that_one_of_two_removes_is_gone_where_they_join():
    plan = Plan("op")

    @plan.state("step.removes")
    async def removes(ctx, io, rec):
        del ctx["old"]

    beside = writer(plan, "step.beside", {"new": "x" * 1000})

    @plan.state("step.both", after=[removes, beside])
    async def both(ctx, io, rec):
        ctx["all"] = {key: len(str(ctx[key])) for key in ctx}

    with MemoryStore() as store:
        result = run(plan, store=store, input={"old": 1, "kept": 2}, config=side_by_side())
        assert result.context["all"] == {"kept": 1, "new": 1000}
        sound(plan, store, result)


# -- conflicts and missing edges ---------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [(0, 0.01), (0.01, 0)])
def test_a_conflict_is_reported_at_the_join_that_first_needs_both(waits):
    plan, ran = Plan("op"), []
    one = writer(plan, "step.one", {"key": 1, "mine": 1}, wait=waits[0])
    two = writer(plan, "step.two", {"key": 2}, wait=waits[1])

    @plan.state("step.join", after=[one, two])
    async def join(ctx, io, rec):
        ran.append("join")

    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side())
        assert (result.status, result.error.code, ran) == ("failed", "context_conflict", [])
        assert result.error.details == {"key": "key", "states": ["op.step.one", "op.step.two"]}
        assert "op.step.one and op.step.two wrote different values to 'key'" in result.error.message
        assert result.final_snapshot_id is None
        sound(plan, store, result)


def test_a_conflict_that_no_state_joins_is_reported_at_the_end():
    plan = Plan("op")
    writer(plan, "step.one", {"key": 1})
    writer(plan, "step.two", {"key": 2})
    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side())
        assert (result.status, result.error.code) == ("failed", "context_conflict")
        sound(plan, store, result)


@pytest.mark.parametrize("on_failure", ["finish", "cancel"])
def test_what_was_about_to_begin_at_a_conflict_is_not_waited_for(on_failure):
    plan = Plan("op")
    one = writer(plan, "step.one", {"key": 1})
    two = writer(plan, "step.two", {"key": 2})
    writer(plan, "step.beside", {"beside": 1}, after=[one])
    writer(plan, "step.join", {}, after=[one, two])
    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side(8, on_failure))
        assert (result.status, result.error.code) == ("failed", "context_conflict")
        sound(plan, store, result)


def test_two_that_write_the_same_value_are_no_conflict():
    plan = Plan("op")
    for large in ("small", "x" * 500):
        writer(plan, f"step.one_{len(large)}", {f"key{len(large)}": large})
        writer(plan, f"step.two_{len(large)}", {f"key{len(large)}": large})
    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side())
        assert (result.status, set(result.context)) == ("completed", {"key5", "key500"})
        sound(plan, store, result)


def test_writing_what_was_there_before_is_a_write():
    plan = Plan("op")
    writer(plan, "step.same", {"key": 0})
    writer(plan, "step.other", {"key": 1})
    with MemoryStore() as store:
        result = run(plan, store=store, input={"key": 0}, config=side_by_side())
        assert (result.status, result.error.code) == ("failed", "context_conflict")


def test_the_last_of_those_that_follow_each_other_wins():
    plan = Plan("op")
    first = writer(plan, "step.first", {"key": 1})
    second = writer(plan, "step.second", {"key": 2}, after=[first])
    beside = writer(plan, "step.beside", {"other": 1}, after=[first])
    writer(plan, "step.join", {}, after=[beside, second])
    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side())
        assert (result.status, result.context) == ("completed", {"key": 2, "other": 1})
        sound(plan, store, result)


@pytest.mark.parametrize("waits", [(0, 0.01), (0.01, 0)], ids=["the writer first", "the reader first"])
@pytest.mark.parametrize(
    "reads", [lambda ctx: ctx.get("key"), lambda ctx: "key" in ctx, lambda ctx: ctx["key"]]
)
def test_a_read_of_what_another_writes_says_which_edge_is_missing(reads, waits):
    plan = Plan("op")
    writer(plan, "step.writes", {"key": 1}, wait=waits[0])

    @plan.state("step.reads")
    async def reader(ctx, io, rec):
        await asyncio.sleep(waits[1])
        reads(ctx)

    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side())
        assert (result.status, result.error.code) == ("failed", "context_edge_missing")
        assert result.error.details == {"key": "key", "reader": "op.step.reads", "writer": "op.step.writes"}
        assert "declare op.step.reads with after=['op.step.writes']" in result.error.message
        sound(plan, store, result)


def test_a_read_before_a_crash_still_misses_its_edge_after_it(crashed_after):
    plan = Plan("op")

    @plan.state("step.reads")
    async def reader(ctx, io, rec):
        ctx.get("key")

    writer(plan, "step.writes", {"key": 1}, wait=0.01)
    with MemoryStore() as store:
        whole = run(plan, store=store, config=side_by_side())
        events = events_of(store, whole.run_id)
        ended = next(seq for seq, event in enumerate(events, 1) if event.type == "state_completed")
        left = crashed_after(store, whole.run_id, ended)
        resumed = resume(whole.run_id, plan=plan, store=left)
        assert (resumed.status, resumed.error.code) == ("failed", "context_edge_missing")


# -- failing -----------------------------------------------------------------------------------------------


def failing_plan(ran):
    """Return a plan with a state that fails at once, one that takes longer, and one that is never begun."""
    plan = Plan("op")

    @plan.state("step.fails")
    async def fails(ctx, io, rec):
        raise Failure("it cannot be done", code="mine")

    @plan.state("step.slow")
    async def slow(ctx, io, rec):
        await asyncio.sleep(0.05)
        ctx["slow"] = 1
        ran.append("slow")

    @plan.state("step.later")
    async def later(ctx, io, rec):
        ran.append("later")

    return plan


@pytest.mark.parametrize(("on_failure", "finished"), [("finish", ["slow"]), ("cancel", [])])
def test_after_a_failure_nothing_is_begun_and_what_runs_finishes_or_is_cancelled(on_failure, finished):
    ran = []
    plan = failing_plan(ran)
    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side(2, on_failure))
        assert (result.status, result.error.code, ran) == ("failed", "mine", finished)
        assert dict(result.context) == ({"slow": 1} if finished else {})
        cut = [
            event for event in events_of(store, result.run_id) if isinstance(event, StateFailed) and event.cut
        ]
        assert [(event.state_id, event.error.code) for event in cut] == (
            [] if finished else [("op.step.slow", "attempt_interrupted")]
        )
        sound(plan, store, result)


def test_a_state_that_waits_to_be_tried_again_holds_up_no_other():
    plan, order = Plan("op"), []

    @plan.state("step.flaky", retry=RetryPolicy(2, machine.FixedBackoff(0.2)))
    async def flaky(ctx, io, rec):
        order.append("flaky")
        if order.count("flaky") == 1:
            raise ValueError("not yet")

    @plan.state("step.other")
    async def other(ctx, io, rec):
        await asyncio.sleep(0.01)
        order.append("other")

    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side(2))
        assert (result.status, order) == ("completed", ["flaky", "other", "flaky"])
        assert replay(result.run_id, plan=plan, store=store).identical is False  # it counts in a global


def test_an_attempt_that_takes_too_long_is_cut_and_the_others_are_not():
    plan = Plan("op")
    writer(plan, "step.hangs", {}, wait=30, timeout=0.05)
    writer(plan, "step.other", {"other": 1}, wait=0.1)
    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side())
        assert (result.status, result.error.code, result.context) == ("failed", "state_timeout", {"other": 1})
        sound(plan, store, result)


def test_a_cancel_cuts_all_that_runs():
    plan, begun = Plan("op"), threading.Barrier(4, timeout=20)
    for number in range(3):

        @plan.state(f"step.n{number}")
        async def handler(ctx, io, rec):
            await anyio.to_thread.run_sync(begun.wait)
            await asyncio.sleep(30)

    with MemoryStore() as store:
        run_id = machine.new_run_id()
        results = []
        config = side_by_side(undeclared_io="allow")
        thread = threading.Thread(
            target=lambda: results.append(run(plan, store=store, run_id=run_id, config=config)), daemon=True
        )
        thread.start()
        begun.wait()
        cancelled = machine.cancel(run_id, store=store)
        thread.join(20)
        assert (cancelled.status, results[0].status) == ("cancelled", "cancelled")
        failed = [event for event in events_of(store, run_id) if isinstance(event, StateFailed)]
        assert {event.error.code for event in failed} == {"run_cancelled"}
        assert len(failed) == 3
        sound(plan, store, results[0])


def test_a_store_that_fails_stops_everything_with_its_own_error(monkeypatch):
    plan = random_plan(1, 20, random.Random(1), plain=False)
    with MemoryStore() as store:
        append = store.append
        calls = []

        def failing(*args, **kwargs):
            calls.append(1)
            if len(calls) > 3:
                raise machine.errors.StoreError("the disk is gone", code="store_failed")
            return append(*args, **kwargs)

        monkeypatch.setattr(store, "append", failing)
        with pytest.raises(machine.errors.StoreError, match="the disk is gone"):
            run(
                plan,
                store=store,
                config=side_by_side(durability="facts"),
                transports={"world": Slow(1, random.Random(1))},
            )


def test_no_more_tasks_are_begun_than_attempts_are_made_at_a_time():
    plan, tasks = Plan("op"), set()

    async def handler(ctx, io, rec):
        tasks.add(asyncio.current_task())
        await asyncio.sleep(0)

    for number in range(200):
        plan.state(f"step.n{number}")(handler)
    with MemoryStore() as store:
        assert run(plan, store=store, config=side_by_side(10)).status == "completed"
    assert len(tasks) == 10


def test_states_that_end_together_share_a_commit(monkeypatch):
    plan, here, all_here = Plan("op"), [], asyncio.Event()
    for number in range(50):

        @plan.state(f"step.n{number}")
        async def handler(ctx, io, rec, number=number):
            ctx[f"k{number}"] = number
            here.append(number)
            if len(here) == 50:
                all_here.set()
            await all_here.wait()

    with MemoryStore() as store:
        appends, append = [], store.append

        def counted(*args, **kwargs):
            appends.append(1)
            return append(*args, **kwargs)

        monkeypatch.setattr(store, "append", counted)
        result = run(plan, store=store, config=side_by_side(50, durability="states"))
        assert result.status == "completed"
        assert len(appends) < 25


def test_an_effect_whose_outcome_is_unknown_suspends_the_run_when_the_others_have_ended(
    scripted, crashed_after
):
    plan = Plan("op")

    @plan.state("step.pays", side_effects="apply_side_effect", idempotency="once", on_uncertain="ask")
    async def pays(ctx, io, rec):
        ctx["paid"] = (await io.call("outside", {"do": 1})).response

    writer(plan, "step.other", {"other": 1}, wait=0.05)
    with MemoryStore() as store:
        outside = {"outside": scripted(effect=True)}
        whole = run(plan, store=store, config=side_by_side(), transports=outside)
        events = events_of(store, whole.run_id)
        intended = next(seq for seq, event in enumerate(events, 1) if event.type == "effect_intended")
        left = crashed_after(store, whole.run_id, intended)
        stopped = resume(whole.run_id, plan=plan, store=left, transports=outside)
        assert (stopped.status, len(stopped.waits)) == ("suspended", 1)
        states = left_states(left, whole.run_id)
        assert states["op.step.other"] == "completed"
        machine.resolve(whole.run_id, stopped.waits[0].key, outcome={"done": True}, store=left)
        done = resume(whole.run_id, plan=plan, store=left, transports=outside)
        assert (done.status, done.context) == ("completed", {"other": 1, "paid": {"done": True}})
        assert len(outside["outside"].asked) == 1
        sound(plan, left, done)


def left_states(store, run_id):
    history, _ = run_reader.folded(store, run_id)
    return {state_id: state.status for state_id, state in history.states.items()}


def test_a_paranoid_run_and_a_dry_run_make_one_attempt_after_another():
    plan = random_plan(3, 15, random.Random(1), plain=False)
    with MemoryStore() as store:
        world = {"world": Slow(3, random.Random(1))}
        config = side_by_side(4, paranoid=True)
        result = run(plan, store=store, config=config, transports=world)
        assert result.status == "completed", result.error
        sound(plan, store, result)


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "4", 10_001])
def test_a_number_of_states_that_is_none_is_refused(count):
    with pytest.raises(
        MachineError, match="max_concurrency must be a whole number from 1 to 10000"
    ) as caught:
        FanOutJoin(count)
    assert caught.value.code == "invalid_config"


# -- what a replay says of it ------------------------------------------------------------------------------


def test_a_state_that_has_changed_is_named_at_the_event_where_it_shows():
    def plan_with(value):
        plan = Plan("op")
        for number in range(6):
            writer(
                plan,
                f"step.n{number}",
                {f"k{number}": value if number == 3 else 0},
                wait=0.001 * (6 - number),
            )
        return plan

    with MemoryStore() as store:
        result = run(plan_with(0), store=store, config=side_by_side())
        divergence = replay(result.run_id, plan=plan_with(1), store=store).divergence
        assert (divergence.kind, divergence.state_id) == ("snapshot_differs", "op.step.n3")
        event = events_of(store, result.run_id)[divergence.seq - 1]
        assert (event.type, event.state_id) == ("state_completed", "op.step.n3")


def test_a_base_that_is_not_what_the_ancestors_left_is_found_without_running_anything():
    plan = Plan("op")
    first = writer(plan, "step.first", {"a": 1})
    writer(plan, "step.second", {"b": 2}, after=[first])
    with MemoryStore() as store, MemoryStore() as forged:
        result = run(plan, store=store, config=side_by_side())
        forge(store, forged, result.run_id)
        problems = verify(result.run_id, store=forged).problems
        assert [(problem.code, problem.where) for problem in problems] == [("log_base_snapshot", "event 4")]


def forge(store, forged, run_id):
    """Copy a run, with the second state begun on the input instead of on what the first had written."""
    import attrs

    from machine import codec
    from machine.events import chain_next, seal
    from machine.stores.base import ZERO_CHAIN, StoredEvent

    for kind, data in store._contents.artifacts.values():
        forged.put(kind, data)
    chain, events = ZERO_CHAIN, []
    for stored in store.read_range(run_id):
        entry = decode_entry(stored.seq, stored.data)
        event = entry.event
        if isinstance(event, StateEntered) and event.state_id == "op.step.second":
            event = attrs.evolve(event, base_snapshot_id=events[0][1].initial_snapshot_id)
        data = seal(entry.seq, codec.encode_event(event), entry.run_id, entry.ts_millis)
        chain = chain_next(chain, data)
        events.append((StoredEvent(entry.seq, data, chain), event))
    forged.append(run_id, 0, [stored for stored, _ in events])


def test_a_run_that_ended_while_a_state_failed_replays_in_the_order_of_what_happened():
    ran = []
    plan = failing_plan(ran)
    with MemoryStore() as store:
        result = run(plan, store=store, config=side_by_side(2))
        ends = [event.type for event in events_of(store, result.run_id) if event.type != "state_entered"]
        assert ends == ["run_started", "state_failed", "state_completed", "run_completed"]
        assert isinstance(events_of(store, result.run_id)[-1], RunCompleted)
        sound(plan, store, result)


def test_such_a_run_is_compared_forked_blamed_and_carried_in_a_bundle(tmp_path):
    plan = random_plan(2, 12, random.Random(2), plain=False)
    with MemoryStore() as store, MemoryStore() as other:
        world = {"world": Slow(2, random.Random(1))}
        result = run(plan, store=store, config=side_by_side(4), transports=world)
        assert machine.compare(result.run_id, plan=plan, store=store).identical
        last = max(key for key in result.context if key.startswith("k"))
        step = machine.blame(result.run_id, f"/{last}", store=store).steps[0]
        assert (step.write.state_id, step.value) == (f"fan.s.n{last[1:]}", result.context[last])
        for at in range(1, result.head_seq, 9):
            forked = machine.fork(result.run_id, at=at, plan=plan, store=store, transports=world).result
            assert forked.final_snapshot_id == result.final_snapshot_id
            sound(plan, store, forked)
        data = machine.export_run(result.run_id, tmp_path / "a.run", store=store)
        machine.import_bundle(tmp_path / "a.run", store=other)
        sound(plan, other, result)
        assert machine.export_run(result.run_id, tmp_path / "b.run", store=other) == data


def test_a_fork_with_another_fact_runs_again_what_had_it_and_what_follows():
    plan = random_plan(2, 12, random.Random(2), plain=False)
    with MemoryStore() as store:
        world = {"world": Slow(2, random.Random(1))}
        result = run(plan, store=store, config=side_by_side(4), transports=world)
        facts = [
            (entry.seq, entry.event)
            for entry, _ in run_reader.entries(store, result.run_id)
            if entry.event.type == "fact_recorded" and entry.event.outcome.final
        ]
        for seq, fact in facts[::3]:
            set_facts = {str(seq): {"value": 1000}}
            fork = machine.fork(
                result.run_id,
                at=result.head_seq,
                plan=plan,
                store=store,
                set_facts=set_facts,
                transports=world,
            )
            assert fork.result.status == "completed"
            assert fact.state_id in fork.ran
            assert set(fork.ran) <= {fact.state_id, *below(plan, fact.state_id)}
            sound(plan, store, fork.result)


def below(plan, state_id):
    for child in plan.graph.children[state_id]:
        yield child
        yield from below(plan, child)


def test_a_plan_may_change_where_no_state_that_ran_would_have_to_follow_a_new_one(crashed_after):
    def plan_of(*, more):
        plan = Plan("op")
        one, two = (writer(plan, f"step.{name}", {name: 1}) for name in ("one", "two"))
        after = [one, two]
        if more:
            after.append(writer(plan, "step.more", {"more": 1}, after=[one]))

        @plan.state("step.join", after=after)
        async def join(ctx, io, rec):
            ctx["joined"] = list(ctx)

        return plan

    with MemoryStore() as store:
        whole = run(plan_of(more=False), store=store, config=side_by_side())
        for length in range(1, whole.head_seq):
            left = crashed_after(store, whole.run_id, length)
            entered = [event for event in events_of(left, whole.run_id) if isinstance(event, StateEntered)]
            plan = plan_of(more=True)
            if "op.step.join" in {event.state_id for event in entered}:
                with pytest.raises(MachineError, match="the plan has changed"):
                    resume(whole.run_id, plan=plan, store=left, allow_plan_change=True)
            else:
                result = resume(whole.run_id, plan=plan, store=left, allow_plan_change=True)
                assert result.context["joined"] == ["more", "one", "two"]
                sound(plan, left, result)


def test_a_dry_run_shows_the_effect_on_what_its_ancestors_wrote():
    plan = Plan("op")
    first = writer(plan, "step.first", {"name": "first"})
    writer(plan, "step.beside", {"beside": 1}, wait=0.01)

    @plan.state(
        "step.effect",
        after=[first],
        side_effects="apply_side_effect",
        idempotency=lambda ctx: f"once {ctx['name']} {'beside' in ctx}",
    )
    async def effect(ctx, io, rec):
        await io.http("POST", "http://127.0.0.1:9/", json={"keys": list(ctx)})

    with MemoryStore() as store:
        dry = machine.dry_run(plan, store=store, config=side_by_side())
        (shown,) = dry.effects
        assert (shown.idempotency_key, shown.state_id) == ("once first False", "op.step.effect")


def test_a_dry_run_shows_no_effect_of_a_state_whose_ancestors_disagree():
    plan = Plan("op")
    one, two = (writer(plan, f"step.n{number}", {"key": number}) for number in (1, 2))

    @plan.state("step.effect", after=[one, two], side_effects="apply_side_effect", idempotency="once")
    async def effect(ctx, io, rec):
        await io.http("POST", "http://127.0.0.1:9/")

    with MemoryStore() as store:
        dry = machine.dry_run(plan, store=store, config=side_by_side())
        assert (dry.result.status, dry.result.error.code) == ("failed", "context_conflict")
        assert dry.effects == ()
        assert (dry.states[2].action, dry.states[2].reason) == (
            "not reached",
            "the run ended before it: failed",
        )


# -- branches ----------------------------------------------------------------------------------------------

MODES = {"one at a time": RunConfig(), "side by side": side_by_side(4)}


def branching(outcome, ran, **options):
    """Return a plan: a choice, two ways on from it, and a state where they join, with one after it."""
    plan = Plan("op")

    def add(name, after):
        @plan.state(name, after=after)
        async def handler(ctx, io, rec):
            ran.append(name)
            ctx[name] = 1

        return handler

    @plan.state("choose.way")
    async def choose(ctx, io, rec):
        return outcome

    left, right = add("left.one", [choose]), add("right.one", [choose])
    further = add("left.two", [left])
    join = add("join.both", [further, right])
    add("join.after", [join])
    return plan


@pytest.mark.parametrize("config", MODES.values(), ids=MODES)
@pytest.mark.parametrize(
    ("outcome", "runs", "skipped"),
    [
        (None, {"left.one", "left.two", "right.one", "join.both", "join.after"}, {}),
        (
            StateOutcome(goto="right.one"),
            {"right.one", "join.both", "join.after"},
            {"op.left.one": "not_taken:op.choose.way", "op.left.two": "unreachable:op.left.one"},
        ),
        (
            StateOutcome(skip=("op.right.one",)),
            {"left.one", "left.two", "join.both", "join.after"},
            {"op.right.one": "not_taken:op.choose.way"},
        ),
        (
            StateOutcome(goto=()),
            set(),
            {
                "op.left.one": "not_taken:op.choose.way",
                "op.right.one": "not_taken:op.choose.way",
                "op.left.two": "unreachable:op.left.one",
                "op.join.both": "unreachable:op.right.one",
                "op.join.after": "unreachable:op.join.both",
            },
        ),
    ],
    ids=["no choice", "goto", "skip", "nowhere"],
)
def test_what_no_edge_leads_to_any_more_is_skipped_and_says_why(outcome, runs, skipped, config):
    ran = []
    plan = branching(outcome, ran)
    with MemoryStore() as store:
        result = run(plan, store=store, config=config)
        assert (result.status, set(ran), set(result.context)) == ("completed", runs, runs)
        events = events_of(store, result.run_id)
        found = {event.state_id: event.reason for event in events if isinstance(event, StateSkipped)}
        assert found == skipped
        sound(plan, store, result)


@pytest.mark.parametrize("config", MODES.values(), ids=MODES)
def test_a_choice_outlives_a_crash(config, crashed_after):
    ran = []
    plan = branching(StateOutcome(goto="left.one"), ran)
    with MemoryStore() as store:
        whole = run(plan, store=store, config=config)
        for length in range(1, whole.head_seq):
            left = crashed_after(store, whole.run_id, length)
            resumed = resume(whole.run_id, plan=plan, store=left)
            assert resumed.final_snapshot_id == whole.final_snapshot_id
            sound(plan, left, resumed)


@pytest.mark.parametrize("config", MODES.values(), ids=MODES)
@pytest.mark.parametrize("options", [{"goto": "left.two"}, {"skip": ["rigth.one"]}, {"goto": "join.no"}])
def test_a_branch_to_what_does_not_follow_is_refused(options, config):
    plan = branching(StateOutcome(**options), [])
    with MemoryStore() as store:
        result = run(plan, store=store, config=config)
        assert (result.status, result.error.code) == ("failed", "unknown_branch")
        assert "which does not follow it (" in result.error.message
        sound(plan, store, result)


def test_another_choice_than_was_recorded_is_a_divergence():
    with MemoryStore() as store:
        result = run(branching(StateOutcome(goto="left.one"), []), store=store)
        changed = branching(StateOutcome(goto="right.one"), [])
        divergence = replay(result.run_id, plan=changed, store=store).divergence
        assert (divergence.state_id, divergence.seq) == ("op.choose.way", 3)


def test_going_on_and_skipping_at_once_is_refused():
    with pytest.raises(MachineError, match="not both"):
        StateOutcome(goto="a.b", skip=["a.c"])


def test_a_state_passed_over_by_its_tag_leads_on():
    plan, ran = Plan("op"), []
    first = writer(plan, "step.first", {}, tags=["fetch_data"])

    @plan.state("step.second", after=[first])
    async def second(ctx, io, rec):
        ran.append("second")

    for config in (RunConfig(skip_tags=["fetch_data"]), side_by_side(skip_tags=["fetch_data"])):
        with MemoryStore() as store:
            result = run(plan, store=store, config=config)
            assert result.status == "completed"
            sound(plan, store, result)
    assert ran == ["second"] * 4
