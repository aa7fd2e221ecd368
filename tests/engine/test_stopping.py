"""Stopping a run, and keeping two drivers apart: cancel, interruption, leases, idempotent starts, other plans."""

from __future__ import annotations

import functools
import itertools
import secrets
import threading
import time
from typing import Any

import anyio
import anyio.to_thread
import pytest

import machine
from machine import MachineError, Plan
from machine.engine import run_reader
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import CANCEL, Keeper, keeper_of
from machine.errors import Code, ConcurrencyError, PlanError, RunError, UsageError
from machine.events import FactRecorded, RunCompleted, RunResumed, StateEntered, StateFailed
from machine.stores import MemoryStore, Store, open_store
from machine.stores.lease import owner_here


@pytest.fixture(params=["memory", "sqlite"])
def any_store(request, tmp_path):
    if request.param == "memory":
        with MemoryStore() as store:
            yield store
    else:
        with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
            yield store


def waiting(seconds: float = 60, *, blocking: bool = False) -> tuple[Plan, threading.Event]:
    """Return a plan whose second state waits, and the event that it has begun to."""
    plan, begun = Plan("op"), threading.Event()

    @plan.state("step.first")
    async def first(ctx: Any, io: Any, rec: Any) -> None:
        ctx["time"] = await io.now()

    if blocking:

        @plan.state("step.wait", after=[first])
        def wait_plainly(ctx: Any, io: Any, rec: Any) -> None:
            begun.set()
            io.sleep(seconds)
            ctx["done"] = ctx["time"]
    else:

        @plan.state("step.wait", after=[first])
        async def wait(ctx: Any, io: Any, rec: Any) -> None:
            begun.set()
            await io.sleep(seconds)
            ctx["done"] = ctx["time"]

    return plan, begun


class Driver(threading.Thread):
    """Drives a run in a thread, and keeps what came of it."""

    def __init__(self, drive: Any) -> None:
        super().__init__(daemon=True)
        self.drive = drive
        self.result: Any = None
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.drive()
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the test looks at it
            self.failure = exc


def events_of(store: Store, run_id: str) -> list[Any]:
    return [entry.event for entry, _ in run_reader.entries(store, run_id)]


def sound(plan: Plan, store: Store, run_id: str) -> None:
    assert machine.verify(run_id, store=store).problems == ()
    assert machine.replay(run_id, plan=plan, store=store).divergence is None


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "plain"])
def test_a_cancel_from_elsewhere_cuts_the_handler_and_ends_the_run_cancelled(any_store, blocking):
    plan, begun = waiting(blocking=blocking)
    run_id = str(machine.new_run_id())
    driver = Driver(lambda: machine.run(plan, store=any_store, run_id=run_id))
    assert begun.wait(10)

    result = machine.cancel(run_id, store=any_store, timeout=20)
    driver.join(20)

    assert result.status == driver.result.status == "cancelled"
    assert result.digest == driver.result.digest
    *_, failed, completed = events_of(any_store, run_id)
    assert isinstance(failed, StateFailed)
    assert failed.cut
    assert failed.error.code == Code.RUN_CANCELLED
    assert completed == RunCompleted("cancelled", result.final_snapshot_id)
    assert any_store.lease_of(run_id) is None
    assert machine.resume(run_id, plan=plan, store=any_store).status == "cancelled"
    sound(plan, any_store, run_id)


def test_a_cancel_while_a_retry_waits_ends_the_run(store):
    plan, begun = Plan("op"), threading.Event()

    @plan.state("step.fails", retry=machine.RetryPolicy(3, machine.FixedBackoff(60)))
    async def fails(ctx: Any, io: Any, rec: Any) -> None:
        begun.set()
        raise machine.Failure("not yet", retryable=True)

    run_id = str(machine.new_run_id())
    driver = Driver(lambda: machine.run(plan, store=store, run_id=run_id))
    assert begun.wait(10)

    assert machine.cancel(run_id, store=store, timeout=20).status == "cancelled"
    driver.join(20)
    assert driver.result.status == "cancelled"
    sound(plan, store, run_id)


def test_a_run_that_nobody_drives_is_cancelled_on_the_spot(any_store):
    plan, _ = waiting()
    run_id = crashed(plan, any_store)

    assert machine.cancel(run_id, store=any_store).status == "cancelled"
    sound(plan, any_store, run_id)


def test_a_cancel_that_was_not_answered_is_heeded_by_the_next_driver(store):
    plan, _ = waiting()
    run_id = crashed(plan, store)
    lease = store.acquire(run_id, owner_here(), 60_000)  # a driver that does not answer

    with pytest.raises(RunError) as failure:
        machine.cancel(run_id, store=store, timeout=0.3)
    assert failure.value.code == Code.CANCEL_PENDING
    store.release(lease)

    assert machine.resume(run_id, plan=plan, store=store).status == "cancelled"
    sound(plan, store, run_id)


def test_a_finished_run_cannot_be_cancelled_and_nothing_is_written(store):
    plan, _ = waiting(0)
    run_id = machine.run(plan, store=store).run_id
    head = store.head(run_id)

    with pytest.raises(RunError) as failure:
        machine.cancel(run_id, store=store)

    assert failure.value.code == Code.INVALID_TRANSITION
    assert store.head(run_id) == head
    assert store.inbox(run_id) == []


def test_an_interrupted_run_says_so_and_goes_on_where_it_was(any_store):
    plan, begun = waiting(0.5)
    run_id = str(machine.new_run_id())

    async def interrupted() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(functools.partial(machine.aio.run, plan, store=any_store, run_id=run_id))
            await anyio.to_thread.run_sync(begun.wait)
            tasks.cancel_scope.cancel()

    anyio.run(interrupted)
    last = events_of(any_store, run_id)[-1]
    assert isinstance(last, StateFailed)
    assert last.error.code == Code.ATTEMPT_INTERRUPTED
    assert any_store.lease_of(run_id) is None

    result = machine.resume(run_id, plan=plan, store=any_store)
    assert result.status == "completed"
    times = [event for event in events_of(any_store, run_id) if isinstance(event, FactRecorded)]
    assert [fact.namespace for fact in times].count("clock.now") == 1
    sound(plan, any_store, run_id)


def test_an_interruption_uses_up_no_retry(store):
    plan, begun = waiting(0.3)
    run_id = str(machine.new_run_id())
    for drive in (
        functools.partial(machine.aio.run, plan, store=store, run_id=run_id),
        *[functools.partial(machine.aio.resume, run_id, plan=plan, store=store)] * 4,
    ):
        begun.clear()

        async def interrupted(drive: Any = drive) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(drive)
                await anyio.to_thread.run_sync(begun.wait)
                tasks.cancel_scope.cancel()

        anyio.run(interrupted)

    assert machine.resume(run_id, plan=plan, store=store).status == "completed"
    entered = [event for event in events_of(store, run_id) if isinstance(event, StateEntered)]
    assert [event.attempt for event in entered if event.state_id == "op.step.wait"] == [0, 1, 2, 3, 4, 5]
    sound(plan, store, run_id)


def test_a_second_driver_is_refused_and_changes_nothing(any_store):
    plan, begun = waiting(1)
    run_id = str(machine.new_run_id())
    driver = Driver(lambda: machine.run(plan, store=any_store, run_id=run_id))
    assert begun.wait(10)

    with pytest.raises(ConcurrencyError) as failure:
        machine.resume(run_id, plan=plan, store=any_store)
    driver.join(20)

    assert failure.value.code == Code.RUN_LEASED
    assert driver.result.status == "completed"
    sound(plan, any_store, run_id)


def test_a_driver_that_lost_its_lease_stops_and_changes_nothing_more(any_store, monkeypatch):
    # as from another machine: nobody sees whether it lives
    monkeypatch.setattr("machine.engine.run_keeper.owner_here", lambda _: secrets.token_hex(8))
    plan, begun = waiting()
    run_id = str(machine.new_run_id())
    driver = Driver(lambda: machine.run(plan, store=any_store, run_id=run_id, lease=1))
    assert begun.wait(10)
    deadline = time.monotonic() + 10
    while any_store.head_seq(run_id) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    # watched for longer than the lease, in the moment between two renewals
    any_store.boot_clock = itertools.count(0, 500).__next__
    while any_store.lease_of(run_id) is not None:
        pass
    stolen = any_store.acquire(run_id, owner_here(), 60_000)
    driver.join(20)

    assert isinstance(driver.failure, ConcurrencyError)
    assert driver.failure.code == Code.LEASE_LOST
    assert not isinstance(events_of(any_store, run_id)[-1], StateFailed)
    any_store.release(stolen)
    assert machine.cancel(run_id, store=any_store).status == "cancelled"
    sound(plan, any_store, run_id)


def test_a_lease_is_renewed_from_the_moment_it_is_taken(any_store):
    """Also while the last driver's programs are ended and the log is read, and by `resolve` and `cancel`."""
    run_id = str(machine.new_run_id())
    with Keeper(any_store, run_id, 1_000):
        taken = any_store.lease_of(run_id)
        deadline = time.monotonic() + 10
        while (now := any_store.lease_of(run_id)) == taken and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (now.epoch, now.owner) == (taken.epoch, taken.owner)
        assert now != taken


def test_what_is_said_is_not_heard_before_the_run_listens(any_store):
    run_id = crashed(waiting()[0], any_store)
    any_store.post(run_id, CANCEL, {})
    with Keeper(any_store, run_id, 1_000) as keeper:
        taken = any_store.lease_of(run_id)
        deadline = time.monotonic() + 10
        while any_store.lease_of(run_id) == taken and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not keeper.control.cancelling
        keeper.listen(from_the_start=True)
        assert keeper.control.cancelling


class Told(Reporter):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def leased(self, why: ConcurrencyError, seconds: float) -> None:
        self.seconds.append(seconds)


def test_who_waits_for_a_lease_looks_at_it_and_takes_it_once(any_store, monkeypatch):
    """To try to take it is a write and a thread each time."""
    run_id = crashed(waiting()[0], any_store)
    any_store.acquire(run_id, "nobody knows whom", 1_000)
    tries = []
    really = any_store.acquire
    monkeypatch.setattr(any_store, "acquire", lambda *args: (tries.append(args), really(*args))[1])
    told = Told()

    async def wait() -> Keeper:
        return await keeper_of(any_store, run_id, 1_000, told.leased)

    with anyio.run(wait):
        assert len(tries) == 2
    assert told.seconds == [1.1]


def test_a_driver_that_renews_its_lease_is_not_waited_for(any_store):
    run_id = crashed(waiting()[0], any_store)
    lease = any_store.acquire(run_id, "nobody knows whom", 60_000)
    told = Told()

    def leased(why: ConcurrencyError, seconds: float) -> None:
        told.leased(why, seconds)
        threading.Timer(0.5, any_store.renew, [lease]).start()

    with pytest.raises(ConcurrencyError) as failure:
        anyio.run(keeper_of, any_store, run_id, 1_000, leased)
    assert failure.value.code == Code.RUN_LEASED
    assert "it has just renewed its lease" in failure.value.hint
    assert told.seconds == [66.0]


def test_starts_with_one_invocation_key_are_one_run(any_store):
    plan, _ = waiting(0.5)

    def start() -> Any:
        return machine.run(plan, store=any_store, input={"n": 1}, invocation_key="order-7")

    drivers = [Driver(start) for _ in range(4)]
    for driver in drivers:
        driver.join(30)

    assert [driver.failure for driver in drivers] == [None] * 4
    assert len({driver.result.run_id for driver in drivers}) == 1
    assert {driver.result.status for driver in drivers} == {"completed"}
    assert len(any_store.list_runs().rows) == 1
    assert start().run_id == drivers[0].result.run_id


def test_a_start_with_the_key_of_a_run_that_crashed_resumes_it(store):
    plan, _ = waiting(0)
    run_id = crashed(plan, store, invocation_key="order-7")

    result = machine.run(plan, store=store, invocation_key="order-7")

    assert (result.run_id, result.status) == (run_id, "completed")
    sound(plan, store, run_id)


def test_an_invocation_key_names_one_request(store):
    plan, _ = waiting(0)
    machine.run(plan, store=store, input={"n": 1}, invocation_key="order-7")

    with pytest.raises(RunError) as failure:
        machine.run(plan, store=store, input={"n": 2}, invocation_key="order-7")

    assert failure.value.code == Code.INVOCATION_CONFLICT
    assert len(store.list_runs().rows) == 1


@pytest.mark.parametrize("key", ["", "\n", 7])
def test_an_invocation_key_that_is_none_is_refused(store, key):
    with pytest.raises(UsageError) as failure:
        machine.run(waiting(0)[0], store=store, invocation_key=key)

    assert failure.value.code == Code.INVALID_INVOCATION_KEY
    assert store.list_runs().rows == []


def test_an_invocation_key_does_not_move_the_digest(store):
    plan = Plan("op")

    @plan.state("step.only")
    async def only(ctx: Any, io: Any, rec: Any) -> None:
        ctx["n"] = 1

    assert machine.run(plan, store=store).digest == machine.run(plan, store=store, invocation_key="k").digest


def grown(names: list[tuple[str, str | None]], **options: Any) -> Plan:
    plan = Plan("op")
    for name, after in names:

        async def handler(ctx: Any, io: Any, rec: Any, name: str = name) -> None:
            ctx[name] = await io.now()

        plan.state(f"step.{name}", after=[f"step.{after}"] if after else [], **options)(handler)
    return plan


def crashed(plan: Plan, store: Store, **options: Any) -> str:
    """Start a run whose process ends when its first state has completed."""

    class PowerCut(BaseException):
        pass

    class Watch(machine.Reporter):
        def entry(self, entry: Any) -> None:
            if entry.event.type == "state_completed":
                raise PowerCut

    run_id = str(machine.new_run_id())
    with pytest.raises(PowerCut):
        machine.run(plan, store=store, run_id=run_id, reporter=Watch(), **options)
    return run_id


OLD = [("a", None), ("b", "a"), ("c", "b")]
SAFE = [("a", None), ("new", "a"), ("b", "new"), ("d", "b")]
UNSAFE = [("new", None), ("a", "new"), ("b", "a")]


def test_another_plan_is_refused_with_what_differs_and_nothing_is_written(store):
    run_id = crashed(grown(OLD), store)
    head = store.head(run_id)

    with pytest.raises(PlanError) as failure:
        machine.resume(run_id, plan=grown(SAFE), store=store)

    assert failure.value.code == Code.PLAN_CHANGED
    changes = failure.value.info.details["changes"]
    assert {"+ state op.step.new", "- state op.step.c", "+ edge op.step.a -> op.step.new"} <= set(changes)
    assert store.head(run_id) == head
    assert store.lease_of(run_id) is None


def test_a_safe_change_of_plan_goes_on_when_allowed_and_replays(store):
    run_id = crashed(grown(OLD), store)

    result = machine.resume(run_id, plan=grown(SAFE), store=store, allow_plan_change=True)

    assert result.status == "completed"
    assert sorted(result.context) == ["a", "b", "d", "new"]
    changed = [event for event in events_of(store, run_id) if isinstance(event, RunResumed)]
    assert changed == [RunResumed("plan_change", grown(SAFE).graph.plan_id)]
    sound(grown(SAFE), store, run_id)
    divergence = machine.replay(run_id, plan=grown(OLD), store=store).divergence
    assert divergence is not None
    assert divergence.kind == "plan_changed"


def test_a_plan_may_change_more_than_once(store):
    run_id = crashed(grown(OLD), store)
    for plan in (grown(OLD, timeout=5), grown(OLD, timeout=6)):

        class PowerCut(BaseException):
            pass

        class Watch(machine.Reporter):
            def entry(self, entry: Any) -> None:
                if entry.event.type == "state_completed":
                    raise PowerCut

        with pytest.raises(PowerCut):
            machine.resume(run_id, plan=plan, store=store, allow_plan_change=True, reporter=Watch())
    result = machine.resume(
        run_id,
        plan=grown(OLD, tags=["t"]),
        store=store,
        allow_plan_change=True,
    )

    assert result.status == "completed"
    sound(grown(OLD, tags=["t"]), store, run_id)


@pytest.mark.parametrize(
    ("names", "code"), [(UNSAFE, Code.PLAN_CHANGED), ([("b", None)], Code.RECOVERY_STATE_NOT_IN_PLAN)]
)
def test_an_unsafe_change_of_plan_is_refused_although_allowed(store, names, code):
    run_id = crashed(grown(OLD), store)
    head = store.head(run_id)

    with pytest.raises(MachineError) as failure:
        machine.resume(run_id, plan=grown(names), store=store, allow_plan_change=True)

    assert failure.value.code == code
    assert store.head(run_id) == head
