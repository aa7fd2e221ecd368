"""Commits leave the event loop: one run's commit stops no other, and what is handed out keeps its order."""

from __future__ import annotations

import asyncio
import threading
import time

import anyio
import pytest

import machine
from machine import Plan, RunConfig
from machine.config import FanOutJoin
from machine.engine.commit_queue import CommitQueue
from machine.events import RunStarted, chain_next, seal
from machine.io.handler_tasks import notice_tasks
from machine.stores import ZERO_CHAIN, MemoryStore, StoredEvent


class Slow(MemoryStore):
    """A store on which an append takes 20 ms; it counts how many are under way at the same time."""

    write_behind = True

    def __init__(self, seconds=0.02, **options):
        super().__init__(**options)
        self.seconds = seconds
        self.appends = 0
        self.under_way = 0
        self.most = 0
        self.threads = set()
        self._count = threading.Lock()

    def append(self, *args, **more):
        with self._count:
            self.appends += 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        try:
            super().append(*args, **more)
        finally:
            with self._count:
                self.under_way -= 1


@pytest.fixture
def world(scripted):
    return {"world": scripted(), "outside": scripted(effect=True)}


def steps(count=3):
    plan = Plan("op")
    for number in range(count):

        @plan.state(f"step.s{number}", after=() if number == 0 else (f"step.s{number - 1}",))
        async def step(ctx, io, rec, number=number):
            ctx[f"done{number}"] = True

    return plan


def queue_of(store):
    return CommitQueue(store, machine.new_run_id(), written=0)


def events(first, last):
    chain, made = ZERO_CHAIN, []
    for seq in range(first, last + 1):
        data = seal(
            seq, machine.codec.encode_event(RunStarted("op", "0" * 64, "0" * 64, "0" * 64)), "r", 1, None
        )
        chain = chain_next(chain, data)
        made.append(StoredEvent(seq, data, chain))
    return made


@pytest.mark.parametrize("durability", ["effects", "states", "facts"])
def test_ten_runs_of_one_process_commit_at_the_same_time(durability):
    store = Slow()
    config = RunConfig(durability=durability)

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(lambda: machine.aio.run(steps(), store=store, config=config))

    asyncio.run(main())
    assert store.most >= 5, "one after the other it would be 1"
    assert "MainThread" not in store.threads
    assert [row.status for row in store.list_runs().rows] == ["completed"] * 10


def test_the_event_loop_goes_on_while_a_run_commits():
    store, turns = Slow(0.05), []

    async def turn():
        while True:
            turns.append(store.under_way)
            await asyncio.sleep(0)

    async def main():
        turning = asyncio.create_task(turn())
        await machine.aio.run(steps(), store=store, config=RunConfig(durability="states"))
        turning.cancel()

    asyncio.run(main())
    assert sum(turns) > 20, "turns of the loop during commits"


def test_a_run_that_has_the_loop_for_itself_commits_in_it():
    store = Slow()
    machine.run(steps(), store=store, config=RunConfig(durability="states"))
    assert store.threads == {"MainThread"}


def test_those_who_wait_at_the_same_time_share_a_commit():
    store = Slow()
    queue = queue_of(store)

    async def one(event):
        queue.add([event], {}, behind=False)
        await queue.durable()

    async def main():
        async with anyio.create_task_group() as group:
            for event in events(1, 20):
                group.start_soon(one, event)

    asyncio.run(main())
    queue.close()
    assert queue.written == 20
    assert store.appends <= 2


@pytest.mark.parametrize(("durability", "most"), [("effects", 12), ("states", 60)])
def test_concurrent_states_share_their_commits(tmp_path, durability, most):
    plan, commits = Plan("op"), []
    first = plan.state("step.first")(lambda ctx: None)
    for number in range(200):

        async def handler(ctx, number=number):
            ctx[f"done{number}"] = True

        plan.state(f"step.s{number}", after=[first])(handler)
    with machine.open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        store._session.conn.set_trace_callback(lambda text: text == "COMMIT" and commits.append(text))
        config = RunConfig(durability=durability, execution_mode=FanOutJoin(50))
        assert machine.run(plan, store=store, config=config).status == "completed"
    # the lease and the first event are among them; one for each boundary would be 400
    assert len(commits) <= most


def test_what_every_waiter_gets_is_the_failure_of_the_commit():
    class Full(Slow):
        def append(self, *args, **more):
            raise machine.errors.OtherStoreError("no space left", code="store_full")

    queue, told = queue_of(Full()), []

    async def one(event):
        queue.add([event], {}, behind=False)
        with pytest.raises(machine.errors.OtherStoreError, match="no space left"):
            await queue.durable()
        told.append(event.seq)
        with pytest.raises(machine.errors.OtherStoreError, match="no space left"):
            await queue.durable()

    async def main():
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for event in events(1, 5):
                    group.start_soon(one, event)

    asyncio.run(main())
    queue.close()
    assert sorted(told) == [1, 2, 3, 4, 5]


def test_a_commit_made_in_the_loop_wakes_who_waits_for_the_writer():
    store = Slow(0.0)
    queue = queue_of(store)
    store.commit_limits.max_pending = 4
    made = events(1, 4)

    async def wait():
        await queue.durable()

    async def main():
        with anyio.fail_after(10):
            queue.add(made[:1], {}, behind=False)
            waiting = [asyncio.create_task(wait()) for _ in range(3)]
            await asyncio.sleep(0)
            queue.add(made[1:], {}, behind=False)  # too many wait: it commits at once
            await asyncio.gather(*waiting)

    asyncio.run(main())
    queue.close()
    assert queue.written == 4


# -- an outcome that is being committed ----------------------------------------------------------------------


class AtOutcome(Slow):
    """A slow store that says when the outcome of an effect is on its way into it."""

    def __init__(self):
        super().__init__(0.05)
        self.reached = threading.Event()

    def append(self, run_id, expected_seq, events, artifacts=(), **more):
        if any(b'"fact_recorded"' in event.data for event in events):
            self.reached.set()
        super().append(run_id, expected_seq, events, artifacts, **more)


async def reached(store):
    while not store.reached.is_set():  # noqa: ASYNC110 - it is set in another thread
        await asyncio.sleep(0)


async def by_the_task(store, effect):
    task = asyncio.create_task(effect())
    await reached(store)
    task.cancel()
    return task


async def by_a_scope(store, effect):
    async def within():
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().create_task(cancel(scope))
            return await effect()

    async def cancel(scope):
        await reached(store)
        scope.cancel()

    return asyncio.create_task(within())


async def by_a_timeout(store, effect):
    async def within():
        async with asyncio.timeout(30) as limit:
            asyncio.get_running_loop().create_task(expire(limit))
            await effect()

    async def expire(limit):
        await reached(store)
        limit.reschedule(0)

    return asyncio.create_task(within())


@pytest.mark.parametrize("cancel", [by_the_task, by_a_scope, by_a_timeout])
def test_an_outcome_that_is_being_committed_is_handed_out_before_its_task_is_cancelled(world, cancel):
    store, chosen = AtOutcome(), machine.new_run_id()
    plan = Plan("op")

    @plan.state("write.one", side_effects="apply_side_effect", idempotency="once")
    async def write(ctx, io, rec):
        seen = []

        async def effect():
            seen.append((await io.call("outside", {"do": 1})).response)
            await asyncio.sleep(0 if store is None else 30)
            seen.append("went on")

        task = await cancel(store, effect) if store is not None else None
        if task is None:
            seen.append((await io.call("outside", {"do": 1})).response)
        else:
            await asyncio.wait([task])
        ctx["seen"] = seen

    result = machine.run(plan, store=store, run_id=chosen, transports=world)
    assert result.error is None
    assert len(result.context["seen"]) == 1, "the outcome, and nothing after it"
    recording, store = store, None
    assert machine.replay(chosen, plan=plan, store=recording).identical


def test_a_timeout_that_passes_while_an_outcome_is_committed_does_not_undo_it(world):
    """The block has ended in time as far as anybody can tell: nothing in it was waiting any more."""
    store, plan = AtOutcome(), Plan("op")

    @plan.state("write.one", side_effects="apply_side_effect", idempotency="once")
    async def write(ctx, io, rec):
        async def expire(limit):
            await reached(store)
            limit.reschedule(0)

        async with asyncio.timeout(30) as limit:
            expiring = asyncio.create_task(expire(limit))
            got = (await io.call("outside", {"do": 1})).response
        await expiring
        await asyncio.sleep(0.01)  # where a cancellation that was left would be raised
        ctx["got"] = got

    assert machine.run(plan, store=store, transports=world).error is None


def test_outcomes_are_handed_out_in_the_order_of_the_log_whichever_must_be_durable(world):
    store, chosen, plan = Slow(), machine.new_run_id(), Plan("op")

    @plan.state("write.one", side_effects="apply_side_effect", idempotency="by request")
    async def write(ctx, io, rec):
        order = []

        async def one(namespace, number):
            await io.call(namespace, {"n": number, "delay": 0.004 * number})
            order.append(number)

        async with anyio.create_task_group() as group:
            group.start_soon(one, "outside", 0)
            for number in range(1, 20):  # many of them while the outcome of the effect is being committed
                group.start_soon(one, "world", number)
        ctx["order"] = order

    assert machine.run(plan, store=store, run_id=chosen, transports=world).status == "completed"
    assert machine.replay(chosen, plan=plan, store=store).identical


def test_tasks_are_counted_again_only_when_one_was_made(monkeypatch):
    """Counting takes as long as some commits, so a run that stays alone counts them once."""
    counted, store = [], Slow(seconds=0)

    def running():
        counted.append(asyncio.all_tasks())
        return counted[-1]

    monkeypatch.setattr("machine.engine.commit_queue.running_tasks", running)
    queue, made = queue_of(store), events(1, 5)

    async def commits(*, by_itself):
        store.threads.clear()
        queue.add([made.pop(0)], {}, behind=False)
        await queue.durable()
        assert (store.threads == {"MainThread"}) is by_itself

    async def main():
        with notice_tasks():
            await commits(by_itself=True)
            await commits(by_itself=True)
            assert len(counted) == 1
            other = asyncio.get_running_loop().create_task(asyncio.sleep(60))
            await commits(by_itself=False)
            other.cancel()
            await asyncio.wait([other])
            await commits(by_itself=True)
            assert len(counted) == 3
            await commits(by_itself=True)
            assert len(counted) == 3

    asyncio.run(main())
    queue.close()
