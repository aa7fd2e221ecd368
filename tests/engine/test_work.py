"""A worker drives what nobody drives and what is due, leaves the rest alone, and stops when it is asked to."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import attrs
import pytest
from crashes import left_after

import machine
from machine import Plan, resolve
from machine.config import Target
from machine.engine.plan_loader import PlanLoader
from machine.engine.work import Worker, WorkReporter
from machine.engine.work_stop import Stop
from machine.errors import Code, OtherStoreError, PlanError, UsageError
from machine.recordings.double_run import SecondRun
from machine.stores import MemoryStore, SqliteStore
from machine.stores.base import RunPage
from machine.stores.lease import wall_clock
from machine.target import Loaded
from machine.testing.store_samples import Clock, run_id_of, suspend

LONG = 30
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@attrs.define
class Plans:
    """The plans that a worker can load, by their targets."""

    found: dict = attrs.field(factory=dict)
    loads: list = attrs.field(factory=list)

    def add(self, plan):
        target = Target(f"/plans/{plan.op_id}.py:plan", "/plans")
        self.found[target.spec] = Loaded(plan, target)
        return target

    def load(self, spec, directory):
        self.loads.append(spec)
        if spec not in self.found:
            raise PlanError(f"there is no {spec}", code=Code.TARGET_NOT_FOUND)
        return self.found[spec]


@attrs.define
class Reports(WorkReporter):
    """All that a worker reported."""

    runs: list = attrs.field(factory=list)
    failures: list = attrs.field(factory=list)

    def ended(self, result):
        self.runs.append((result.run_id, result.status))

    def failed(self, what, error, *, for_good):
        self.failures.append((what, getattr(error, "code", type(error).__name__), for_good))


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


@pytest.fixture
def plans():
    return Plans()


def counting(op_id, done):
    """Return a plan that notes each of its handler's calls in a list."""
    plan = Plan(op_id)

    @plan.state("a.counts")
    async def counts(ctx, io):
        ctx["id"] = str(await io.uuid())
        done.append(op_id)

    return plan


def left_behind(store, plans, plan, times=1):
    """Return runs of a plan that a crash has left behind before their handler."""
    target = plans.add(plan)
    first = machine.run(plan, store=store, target=target)
    return [left_after(store, first.run_id, 1) for _ in range(times)]


def work(store, plans, **options):
    reports = Reports()
    options = {"until_idle": True, **options}
    result = machine.work(store=store, load=plans.load, reporter=reports, **options)
    return result, reports


# what is driven


@pytest.mark.parametrize("how", [{"until_idle": True}, {"once": True, "until_idle": False}])
def test_every_run_that_nobody_drives_goes_on_and_others_are_left_alone(store, plans, how):
    done = []
    ids = left_behind(store, plans, counting("one", done), times=3)
    ids += left_behind(store, plans, counting("two", done), times=2)
    driven = left_behind(store, plans, counting("three", done))[0]
    lease = store.acquire(driven, "somebody else", 60_000)
    done.clear()
    result, reports = work(store, plans, **how)
    assert result.to_json() == {"counts": {"completed": 5}, "left_alone": 0}
    assert sorted(reports.runs) == sorted((run_id, "completed") for run_id in ids)
    assert sorted(done) == ["one"] * 3 + ["two"] * 2
    store.release(lease)
    assert work(store, plans)[0].counts == {"completed": 1}
    assert work(store, plans)[0].counts == {}


def test_more_runs_than_it_drives_at_once_and_more_than_a_page(store, plans, monkeypatch):
    monkeypatch.setattr("machine.engine.work._PAGE", 2)
    done = []
    left_behind(store, plans, counting("one", done), times=9)
    result, _ = work(store, plans, concurrency=2)
    assert (result.counts, len(done)) == ({"completed": 9}, 10)


def test_with_targets_only_their_runs_are_driven(store, plans):
    done = []
    for op_id in ("one", "two", "three"):
        left_behind(store, plans, counting(op_id, done))
    done.clear()
    result, _ = work(store, plans, targets=["/plans/one.py:plan", "/plans/three.py:plan"])
    assert (sorted(done), result.to_json()) == (
        ["one", "three"],
        {"counts": {"completed": 2}, "left_alone": 0},
    )


def test_a_target_is_the_plan_of_runs_that_recorded_another_or_none(store, plans):
    done = []
    plan = counting("one", done)
    first = machine.run(plan, store=store)
    left_after(store, first.run_id, 1)
    result, reports = work(store, plans)
    assert (result.counts, result.left_alone) == ({}, 1)
    assert [failure[1:] for failure in reports.failures] == [(Code.USAGE, True)]
    plans.add(plan)
    assert work(store, plans, targets=["/plans/one.py:plan"])[0].counts == {"completed": 1}


def test_a_suspended_run_goes_on_once_it_is_answered(store, plans):
    plan = Plan("asks")

    @plan.state("a.effect", side_effects="apply_side_effect", idempotency="k", on_uncertain="ask")
    async def effect(ctx, io):
        ctx["out"] = (await io.exec(["echo", "once"])).stdout

    target = plans.add(plan)
    first = machine.run(plan, store=store, target=target)
    log = [event.data for event in store.read_range(first.run_id)]
    cut = left_after(
        store, first.run_id, next(n for n, data in enumerate(log, 1) if b"effect_intended" in data)
    )
    assert work(store, plans)[1].runs == [(cut, "suspended")]
    assert work(store, plans)[1].runs == [], "it waits, and nobody has answered"
    key = machine.resume(cut, plan=plan, store=store).waits[0].key
    resolve(cut, key, store=store, not_done=True)
    assert work(store, plans)[1].runs == [(cut, "completed")]


@pytest.mark.parametrize("timeout", [None, 0.9, 3600])
def test_an_answer_is_due_at_once_whatever_the_time_limit_of_its_wait(store, plans, timeout):
    plan = Plan("asks")

    @plan.state("a.asks")
    async def asks(ctx, io):
        ctx["by"] = (await io.approval("?", timeout=timeout)).by

    run_id = machine.run(plan, store=store, target=plans.add(plan)).run_id
    now = store.clock()
    store.clock = lambda: now  # so that the time limit runs out in no case
    assert work(store, plans)[1].runs == [], "it waits, and nobody has answered"
    machine.approve(run_id, store=store, by="ada")
    assert work(store, plans)[1].runs == [(run_id, "completed")]


# what holds nothing else up


def test_a_handler_that_blocks_its_event_loop_holds_up_no_other_run(store, plans):
    released = threading.Event()
    blocks, frees = Plan("blocks"), Plan("frees")

    @blocks.state("a.blocks")
    async def blocking(ctx):
        ctx["freed"] = released.wait(LONG)

    @frees.state("a.frees")
    async def freeing(ctx):
        released.set()

    released.set()
    left_behind(store, plans, frees)
    (blocked,) = left_behind(store, plans, blocks)
    released.clear()
    result, _ = work(store, plans)
    assert result.counts == {"completed": 2}
    assert machine.resume(blocked, plan=blocks, store=store).context == {"freed": True}


def test_a_run_whose_plan_cannot_be_loaded_is_left_alone_and_reported_once(store, plans):
    done = []
    ids = left_behind(store, plans, counting("gone", done), times=2)
    left_behind(store, plans, counting("there", done))
    del plans.found["/plans/gone.py:plan"]
    done.clear()
    result, reports = work(store, plans)
    assert (done, result.to_json()) == (["there"], {"counts": {"completed": 1}, "left_alone": 2})
    assert sorted(reports.failures) == sorted((run_id, Code.TARGET_NOT_FOUND, True) for run_id in ids)
    assert plans.loads.count("/plans/gone.py:plan") == 1
    assert store.run_row(ids[0]).status == "interrupted"


def test_a_run_that_cannot_be_driven_is_tried_again_later_each_time_after_longer(store, plans):
    now = [0.0]
    (run_id,) = left_behind(store, plans, counting("changes", []))
    reports = Reports()
    worker = Worker(store, PlanLoader(plans.load), reporter=reports, clock=lambda: now[0])
    tries = []

    async def rounds():
        for second in range(20):
            now[0] = float(second)
            before = dict(worker._backoff._until)
            await worker.work(until_idle=True)
            if worker._backoff._until != before:
                tries.append(second)

    plan = Plan("changes")

    @plan.state("b.other")
    def other(ctx):
        pass

    plans.add(plan)
    anyio.run(rounds)
    assert tries == [0, 1, 3, 7, 15]
    assert reports.failures == [(run_id, Code.PLAN_CHANGED, False)], "it is reported once"
    assert store.run_row(run_id).head_seq == 1


@pytest.mark.parametrize("ends", ["sys.exit(3)", "raise KeyboardInterrupt", "raise SystemExit"])
def test_a_handler_that_exits_stops_no_other_run(store, plans, ends):
    done = []
    plan = Plan("exits")

    @plan.state("a.exits")
    async def exits(ctx, io):
        await io.uuid()
        exec(f"import sys; {ends}")

    target = plans.add(plan)
    other = counting("one", done)
    first = machine.run(other, store=store, target=plans.add(other))
    started = machine.run(counting("exits", done), store=store, target=target)
    del first
    left_after(store, started.run_id, 1)
    left_behind(store, plans, other)
    done.clear()
    result, _ = work(store, plans)
    assert done == ["one"]
    assert result.counts["completed"] == 1


def test_a_run_that_another_took_meanwhile_is_not_reported(store, plans, monkeypatch):
    (run_id,) = left_behind(store, plans, counting("one", []))
    monkeypatch.setattr(store, "lease_of", lambda _: None)
    store.acquire(run_id, "somebody else", 60_000)
    result, reports = work(store, plans)
    assert (result.counts, reports.failures) == ({}, [])


def test_a_run_that_waits_as_it_did_is_not_driven_again_at_once(store, plans, monkeypatch):
    (run_id,), _ = waiting(store, plans)
    monkeypatch.setattr(store, "due_runs", lambda *_, **__: [run_id])
    monkeypatch.setattr(store, "run_row", lambda run_id: store._contents.rows[run_id]._replace(wake_ms=None))
    assert work(store, plans)[1].runs == [(run_id, "suspended")]


def test_the_log_of_a_run_that_somebody_drives_is_not_read(store, plans, monkeypatch):
    (run_id,) = left_behind(store, plans, counting("one", []))
    monkeypatch.setattr(store, "list_runs", lambda **_: RunPage([store.run_row(run_id)], None))
    store.acquire(run_id, "somebody else", 60_000)
    monkeypatch.setattr(store, "read_range", pytest.fail)
    assert work(store, plans)[0].counts == {}


# stopping


@pytest.fixture
def held(store, plans):
    """Return a plan whose handler notes that it began and waits to be released."""
    plan = Plan("holds")
    begun, released = threading.Event(), threading.Event()

    @plan.state("a.holds")
    async def holds(ctx):
        begun.set()
        await anyio.to_thread.run_sync(released.wait, abandon_on_cancel=True)

    released.set()
    (run_id,) = left_behind(store, plans, plan)
    begun.clear()
    released.clear()
    return plan, run_id, begun, released


def in_a_thread(store, plans, stop, **options):
    pool = ThreadPoolExecutor(1)
    done = pool.submit(lambda: work(store, plans, until_idle=False, stop=stop, **options))
    pool.shutdown(wait=False)
    return done


def test_asked_to_stop_it_takes_no_more_runs_and_waits_for_those_in_hand(store, plans, held):
    _, run_id, begun, released = held
    stop = Stop()
    done = in_a_thread(store, plans, stop, concurrency=1)
    assert begun.wait(LONG)
    late = left_behind(store, plans, counting("late", []))[0]
    stop.ask()
    released.set()
    result, reports = done.result(LONG)
    assert (result.counts, reports.runs) == ({"completed": 1}, [(run_id, "completed")])
    assert store.run_row(late).status == "interrupted"


@pytest.mark.parametrize("how", ["no grace", "asked twice"])
def test_runs_that_do_not_end_are_interrupted_and_can_be_resumed(store, plans, held, how):
    plan, run_id, begun, released = held
    stop = Stop()
    done = in_a_thread(store, plans, stop, grace=0 if how == "no grace" else LONG)
    assert begun.wait(LONG)
    stop.ask()
    if how == "asked twice":
        stop.ask()
    result, reports = done.result(LONG)
    assert (dict(result.counts), reports.failures) == ({"interrupted": 1}, [])
    assert store.lease_of(run_id) is None
    assert store.run_row(run_id).status == "interrupted"
    released.set()
    assert machine.resume(run_id, plan=plan, store=store).status == "completed"


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_asks_to_stop_and_the_second_interrupts(store, plans, signum):
    """In this process: a handler sends the signals, to its own worker."""
    sent, seconds = [], 0
    plan = Plan("signals")

    @plan.state("a.signals")
    async def signals(ctx, io):
        await io.uuid()
        while sent:
            os.kill(os.getpid(), sent.pop())
        await io.sleep(seconds)

    (run_id,) = left_behind(store, plans, plan)
    before = [signal.getsignal(each) for each in SIGNALS]
    # two signals of one kind may arrive as one
    sent[:], seconds = [next(each for each in SIGNALS if each != signum), signum], LONG
    assert work(store, plans, until_idle=False)[0].counts == {"interrupted": 1}
    assert store.run_row(run_id).status == "interrupted"
    sent[:], seconds = [signum], 0
    assert work(store, plans, until_idle=False)[0].counts == {"completed": 1}
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_an_idle_worker_ends_at_once_when_it_is_asked(store, plans):
    stop = Stop()
    stop.ask()
    assert in_a_thread(store, plans, stop).result(LONG)[0].counts == {}


def test_a_worker_whose_task_is_cancelled_interrupts_its_runs(store, plans, held):
    _, run_id, begun, _ = held

    async def cancelled():
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: machine.aio.work(store=store, load=plans.load))
            await anyio.to_thread.run_sync(begun.wait)
            group.cancel_scope.cancel()

    anyio.run(cancelled)
    assert store.lease_of(run_id) is None
    assert store.run_row(run_id).status == "interrupted"


# several


def test_of_four_workers_one_drives_each_run(tmp_path, plans):
    done = []
    path = tmp_path / "runs.db"
    with SqliteStore(path) as store:
        left_behind(store, plans, counting("one", done), times=12)
    done.clear()
    ready = threading.Barrier(4)

    def one(_):
        with SqliteStore(path) as own:
            ready.wait(LONG)
            return work(own, plans, concurrency=3)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(4)))
    assert len(done) == 12
    assert sum(result.counts.get("completed", 0) for result, _ in results) == 12
    assert [reports.failures for _, reports in results] == [[]] * 4


# what is refused


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"concurrency": True}, {"grace": -1}, {"grace": float("nan")}, {"lease": 0.1}],
)
def test_what_cannot_be_is_refused(store, plans, options):
    with pytest.raises(UsageError):
        work(store, plans, **options)


def test_targets_that_cannot_be_told_apart_are_refused(store, plans):
    plans.add(counting("one", []))
    with pytest.raises(UsageError, match="one op id"):
        work(store, plans, targets=["/plans/one.py:plan", "/plans/one.py:plan"])
    with pytest.raises(PlanError):
        work(store, plans, targets=["/plans/nothing.py:plan"])


def test_a_busy_store_is_tried_again_and_another_failure_ends_the_worker(store, plans, monkeypatch):
    done = []
    left_behind(store, plans, counting("one", done))
    real, answers = store.list_runs, [Code.STORE_BUSY, None, Code.STORE_FAILED]

    def list_runs(**filters):
        assert filters["status"] == "interrupted"
        code = answers.pop(0) if answers else None
        if code is not None:
            raise OtherStoreError("no", code=code)
        return real(**filters)

    monkeypatch.setattr(store, "list_runs", list_runs)
    monkeypatch.setattr("machine.engine.work.IDLE_SECONDS", 0.01)
    with pytest.raises(OtherStoreError) as caught:
        work(store, plans, until_idle=False)
    assert caught.value.code == Code.STORE_FAILED
    assert len(done) == 2


# plans of several directories


def test_plans_whose_modules_could_be_confused_are_not_loaded_into_one_process(tmp_path):
    loads = []
    for place in ("one", "two", "three"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "flow.py").touch()
    (tmp_path / "one" / "prices.py").touch()
    (tmp_path / "two" / "prices").mkdir()
    (tmp_path / "two" / "prices" / "__init__.py").touch()
    plan = Loaded(Plan("op"), Target("x", ""))
    loader = PlanLoader(lambda spec, directory: loads.append(spec) or plan)
    targets = [Target(f"{tmp_path}/{place}/flow.py:plan", "/") for place in ("one", "two", "three")]
    assert loader.of_target(targets[0]) is plan
    for _ in range(2):
        with pytest.raises(UsageError, match="both have a module 'prices'"):
            loader.of_target(targets[1])
    assert loader.of_target(targets[2]) is plan
    assert loads == [targets[0].spec, targets[2].spec]


# what it costs


def test_runs_that_wait_cost_a_worker_no_look_at_their_logs(tmp_path, plans):
    looks = []

    class Counting(SqliteStore):
        def read_range(self, *args, **kwargs):
            looks.append("read_range")
            return super().read_range(*args, **kwargs)

        def run_row(self, *args, **kwargs):
            looks.append("run_row")
            return super().run_row(*args, **kwargs)

        def lease_of(self, *args, **kwargs):
            looks.append("lease_of")
            return super().lease_of(*args, **kwargs)

    with Counting(tmp_path / "runs.db") as store:
        for number in range(50):
            suspend(store, run_id_of(number), store.clock() + 3_600_000)
        statements = []
        store._session.conn.set_trace_callback(statements.append)
        work(store, plans)
        assert looks == []
        assert len(statements) == 3, "what is due, what nobody drives, and the schedules"


# waits


def waiting(store, plans, seconds=3600.0, times=1, done=None):
    """Return runs of a plan that sleep for so long, and the list of what they did afterwards."""
    plan = Plan("sleeps")
    done = [] if done is None else done

    @plan.state("a.sleeps")
    async def sleeps(ctx, io):
        await io.sleep(seconds)
        done.append(1)

    target = plans.add(plan)
    results = [machine.run(plan, store=store, target=target) for _ in range(times)]
    assert {result.status for result in results} == {"suspended"}
    return [result.run_id for result in results], done


def test_a_timer_fires_once_it_is_due_and_not_before(store, plans):
    store.clock = Clock(store.clock())
    ids, done = waiting(store, plans, times=3)
    store.clock.now += 3_590_000
    assert work(store, plans)[0].counts == {}
    store.clock.now += 20_000
    result, reports = work(store, plans)
    assert (result.counts, len(done)) == ({"completed": 3}, 3)
    assert sorted(reports.runs) == sorted((run_id, "completed") for run_id in ids)


def test_of_four_workers_one_fires_each_timer(tmp_path, plans):
    path, now = tmp_path / "runs.db", Clock(wall_clock())
    with SqliteStore(path, clock=now) as store:
        _, done = waiting(store, plans, times=6)
    now.now += 3_610_000
    ready = threading.Barrier(4)

    def one(_):
        with SqliteStore(path, clock=now) as own:
            ready.wait(LONG)
            return work(own, plans, concurrency=3)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(4)))
    assert len(done) == 6
    assert sum(result.counts.get("completed", 0) for result, _ in results) == 6
    assert [reports.failures for _, reports in results] == [[]] * 4


def test_a_worker_waits_for_a_timer_of_the_next_second_no_longer_than_needed(store, plans, monkeypatch):
    store.clock = Clock(store.clock())
    waiting(store, plans)
    store.clock.now += 3_600_000 - 500
    worker = Worker(store, PlanLoader(plans.load), second=SecondRun)
    waits = []

    class Woken:
        def __init__(self):
            self.set = lambda: None

        async def wait(self, seconds):
            waits.append(seconds)
            store.clock.now += int(seconds * 1000) + 1
            await anyio.sleep(0.001)

        def listening(self, stop):
            stops.append(stop)
            return contextlib.nullcontext()

    stops = []
    monkeypatch.setattr("machine.engine.work.Wake", Woken)

    class Stopping(Reports):
        def ended(self, result):
            super().ended(result)
            stops[0].ask()

    worker._reporter = reports = Stopping()
    anyio.run(worker.work)
    assert [status for _, status in reports.runs] == ["completed"]
    assert 0.3 < waits[0] <= 0.6
