"""The runs of schedules: one for each instant whoever starts it, in order, and none that overlap."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import attrs
import pytest
from crashes import left_after

import machine
from machine import Plan
from machine.config import Target
from machine.cron.ticks import IN_TIME_MS
from machine.engine.due_ticks import DueTicks
from machine.engine.work import WorkReporter
from machine.errors import Code, ConcurrencyError, PlanError
from machine.kernel.run_status import FINAL_STATUSES
from machine.stores import MemoryStore, SqliteStore
from machine.stores.schedule import CatchUp, Overlap
from machine.target import Loaded
from machine.testing.store_samples import Clock, schedule_of

HOUR = 3_600_000
SPEC = "/plans/nightly.py:plan"
TARGET = Target(SPEC, "/plans")


def ms(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@attrs.define
class Reports(WorkReporter):
    runs: list = attrs.field(factory=list)
    failures: list = attrs.field(factory=list)

    def ended(self, result):
        self.runs.append(result)

    def failed(self, what, error, *, for_good):
        self.failures.append((what, error.code, for_good))


def plan_of(step=lambda ctx: None):
    plan = Plan("nightly")

    @plan.state("a.counts")
    def counts(ctx):
        step(ctx)
        ctx["counted"] = ctx.get("n", 0) + 1

    return plan


def started(store):
    """Return the instants of all runs, in the order in which they were started."""
    rows = reversed(store.list_runs().rows)
    return [(row.invocation_key or "").removeprefix("schedule:") for row in rows]


def fire(store, plan=None, *, once=True, **options):
    reports = Reports()
    loaded = Loaded(plan or plan_of(), TARGET)
    load = options.pop("load", lambda spec, directory: loaded)
    result = machine.run_schedules(store=store, once=once, load=load, reporter=reports, **options)
    return result, reports


@pytest.fixture
def store():
    with MemoryStore() as store:
        store.clock = Clock(ms("2026-06-01 00:30"))
        yield store


def add(store, name="n", **changes):
    changes = {
        "cron": "0 * * * *",
        "tz": "UTC",
        "target": TARGET,
        "input": {"n": 6},
        "catch_up": CatchUp.SKIP,
        "overlap": Overlap.SKIP,
        "since_ms": store.clock(),
        **changes,
    }
    store.add_schedule(schedule_of(name, **changes))


def test_an_instant_starts_one_run_with_the_input_and_the_target_of_its_schedule(store):
    add(store)
    assert fire(store)[0].counts == {}
    store.clock.now = ms("2026-06-01 01:00:02")
    result, reports = fire(store)
    assert result.counts == {"completed": 1}
    (ended,) = reports.runs
    assert ended.context == {"n": 6, "counted": 7}
    assert started(store) == ["n:2026-06-01T01:00:00Z"]
    assert fire(store)[0].counts == {}
    store.clock.now += HOUR
    assert fire(store)[0].counts == {"completed": 1}
    assert started(store) == ["n:2026-06-01T01:00:00Z", "n:2026-06-01T02:00:00Z"]
    assert machine.replay(ended.run_id, plan=plan_of(), store=store).identical


@pytest.mark.parametrize(
    ("catch_up", "hours"), [("skip", []), ("one", ["04"]), ("all", ["01", "02", "03", "04"])]
)
def test_what_was_missed_is_caught_up_one_after_another(store, catch_up, hours):
    add(store, catch_up=CatchUp(catch_up))
    store.clock.now = ms("2026-06-01 04:30")
    at_once = []

    def alone(ctx):
        at_once.append(sum(row.status not in FINAL_STATUSES for row in store.list_runs().rows))

    assert fire(store, plan_of(alone))[0].counts == ({"completed": len(hours)} if hours else {})
    assert started(store) == [f"n:2026-06-01T{hour}:00:00Z" for hour in hours]
    assert set(at_once) <= {1}


@pytest.mark.parametrize("night", ["2026-03-29", "2026-10-25"])
@pytest.mark.parametrize(("catch_up", "quarters"), [("one", 1), ("all", 11)])
def test_the_odd_nights_of_berlin_are_caught_up(store, night, catch_up, quarters):
    store.clock.now = ms(f"{night} 00:00")
    add(store, "half", cron="30 2 * * *", tz="Europe/Berlin", catch_up=CatchUp(catch_up))
    add(store, "quarter", cron="*/15 * * * *", tz="Europe/Berlin", catch_up=CatchUp(catch_up))
    store.clock.now = ms(f"{night} 02:50")
    fire(store)
    half = "01:00" if night == "2026-03-29" else "00:30"
    found = started(store)
    assert [one for one in found if one.startswith("half")] == [f"half:{night}T{half}:00Z"]
    assert len([one for one in found if one.startswith("quarter")]) == quarters
    assert len(set(found)) == len(found)


def test_of_four_schedulers_one_starts_each_instant(tmp_path):
    path, handled = tmp_path / "runs.db", []
    begin = ms("2026-06-01 00:30")
    with SqliteStore(path, clock=Clock(begin)) as store:
        for name in ("a", "b", "c"):
            add(store, name, catch_up=CatchUp.ALL)
    ready = threading.Barrier(4)

    def one(_):
        with SqliteStore(path, clock=Clock(begin + 3 * HOUR)) as own:
            ready.wait(30)
            return fire(own, plan_of(lambda ctx: handled.append(1)))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(4)))
    with SqliteStore(path) as store:
        wanted = [f"{name}:2026-06-01T0{hour}:00:00Z" for name in ("a", "b", "c") for hour in (1, 2, 3)]
        assert sorted(started(store)) == wanted
        assert {row.status for row in store.list_runs().rows} == {"completed"}
    assert len(handled) == 9
    assert sum(result.counts.get("completed", 0) for result, _ in results) == 9
    assert [reports.failures for _, reports in results] == [[]] * 4


def test_a_paused_schedule_starts_nothing_and_catches_nothing_up(store):
    add(store, catch_up=CatchUp.ALL)
    store.pause_schedule("n", paused=True)
    store.clock.now += 5 * HOUR
    assert fire(store)[0].counts == {}
    store.pause_schedule("n", paused=False)
    assert fire(store)[0].counts == {}
    store.clock.now += HOUR
    assert fire(store)[0].counts == {"completed": 1}


@pytest.mark.parametrize(("overlap", "then"), [("skip", ["04"]), ("queue", ["02", "03", "04"])])
def test_an_instant_that_overlaps_the_last_run_is_skipped_or_waits(store, overlap, then):
    add(store, overlap=Overlap(overlap))
    store.clock.now = ms("2026-06-01 01:00:05")
    fire(store)
    (row,) = store.list_runs().rows

    def stands(status, updated):
        times = {"created_ms": ms("2026-06-01 01:00:06"), "updated_ms": ms(updated)}
        store._contents.rows[row.run_id] = row._replace(status=status, **times)

    stands("suspended", "2026-06-01 01:00:07")
    store.clock.now = ms("2026-06-01 03:30")
    assert fire(store)[0].counts == {}
    stands("completed", "2026-06-01 03:40")
    store.clock.now = ms("2026-06-01 04:00:05")
    fire(store)
    assert started(store)[1:] == [f"n:2026-06-01T{hour}:00:00Z" for hour in then]


def test_a_run_that_was_interrupted_does_not_stay_in_the_way_of_the_next_instant(store):
    add(store)
    handled = []
    plan = plan_of(lambda ctx: handled.append(1))
    other = machine.run(plan, store=store, target=TARGET).run_id
    left_after(store, other, 1)
    store.clock.now = ms("2026-06-01 01:00:05")
    assert fire(store, plan)[0].counts == {"completed": 1}
    (tick,) = [row for row in store.list_runs().rows if row.invocation_key]
    del store._contents.logs[tick.run_id][1:]
    store._contents.rows[tick.run_id] = tick._replace(status="running", head_seq=1)
    handled.clear()
    store.clock.now = ms("2026-06-01 02:30:05")
    result, _ = fire(store, plan)
    assert (result.counts, len(handled)) == ({"completed": 1}, 1), (
        "and the other run is not one of a schedule"
    )
    store.clock.now = ms("2026-06-01 03:00:05")
    assert fire(store, plan)[0].counts == {"completed": 1}


def test_a_start_that_does_not_attach_refuses_a_key_that_is_taken(store):
    first = machine.run(plan_of(), store=store, invocation_key="key", attach=False)
    assert machine.run(plan_of(), store=store, invocation_key="key").run_id == first.run_id
    with pytest.raises(ConcurrencyError) as caught:
        machine.run(plan_of(), store=store, invocation_key="key", attach=False)
    assert caught.value.code == Code.INVOCATION_TAKEN
    assert caught.value.info.details["run_id"] == first.run_id
    assert [row.run_id for row in store.list_runs().rows] == [first.run_id]


def test_a_schedule_that_is_added_again_starts_no_instant_again(store):
    add(store)
    store.clock.now = ms("2026-06-01 01:00:05")
    assert fire(store)[0].counts == {"completed": 1}
    store.remove_schedule("n")
    add(store, since_ms=ms("2026-06-01 00:30"), catch_up=CatchUp.ALL, input={"n": 0})
    assert fire(store)[0].counts == {}
    store.clock.now += HOUR
    assert fire(store)[1].runs[0].context == {"n": 0, "counted": 1}


def test_a_schedule_whose_plan_cannot_be_loaded_is_reported_once_and_starts_nothing(store):
    add(store)
    add(store, "other", target=Target("/plans/other.py:plan", "/plans"))
    loaded = Loaded(plan_of(), TARGET)

    def load(spec, directory):
        if spec != SPEC:
            raise PlanError("it is gone", code=Code.TARGET_NOT_FOUND)
        return loaded

    store.clock.now = ms("2026-06-01 01:00:05")
    result, reports = fire(store, load=load)
    assert result.to_json() == {"counts": {"completed": 1}, "left_alone": 1}
    assert reports.failures == [("schedule other", Code.TARGET_NOT_FOUND, True)]
    assert started(store) == ["n:2026-06-01T01:00:00Z"]


def test_a_run_that_cannot_start_is_tried_again_and_then_missed(store):
    add(store, input={"n": 1}, catch_up=CatchUp.SKIP)
    plan = Plan("nightly")  # without a state it cannot be run
    store.clock.now = ms("2026-06-01 01:00:05")
    result, reports = fire(store, plan)
    assert (result.counts, store.list_runs().rows) == ({}, [])
    assert reports.failures == [("schedule:n:2026-06-01T01:00:00Z", Code.EMPTY_PLAN, False)]
    store.clock.now += IN_TIME_MS
    assert fire(store)[0].counts == {}


def test_a_schedule_without_its_library_is_reported_and_the_others_run(store, monkeypatch):
    add(store)
    add(store, "odd", cron="0 0 30 2 *")  # as another version may have stored it
    store.clock.now = ms("2026-06-01 01:00:05")
    result, reports = fire(store)
    assert result.to_json() == {"counts": {"completed": 1}, "left_alone": 1}
    assert reports.failures == [("schedule odd", Code.INVALID_CRON, True)]


def test_a_worker_starts_the_schedules_of_its_targets(store):
    add(store)
    add(store, "other", target=Target("/plans/other.py:plan", "/plans"))
    store.clock.now = ms("2026-06-01 01:00:05")
    loaded = Loaded(plan_of(), TARGET)
    options = {"store": store, "until_idle": True, "load": lambda spec, directory: loaded}
    assert machine.work([SPEC], **options).counts == {"completed": 1}
    assert started(store) == ["n:2026-06-01T01:00:00Z"]
    assert machine.work(**options).counts == {"completed": 1}


def test_schedules_that_have_nothing_to_do_are_not_asked_about(tmp_path):
    asked = []

    class Counting(SqliteStore):
        def last_invocation(self, *args, **kwargs):
            asked.append(args)
            return super().last_invocation(*args, **kwargs)

    with Counting(tmp_path / "runs.db", clock=Clock(ms("2026-06-01 00:30"))) as store:
        for number in range(20):
            add(store, f"n{number}")
        ticks = DueTicks(store, lambda _: True, pytest.fail)
        for _ in range(10):
            assert list(ticks.due(store.clock())) == []
            store.clock.now += 1000
        assert len(asked) == 20
        assert ticks.next_ms(store.clock()) == ms("2026-06-01 01:00")
        store.pause_schedule("n1", paused=True)
        store.clock.now += 5000
        store.pause_schedule("n1", paused=False)
        store.remove_schedule("n2")
        assert list(ticks.due(store.clock())) == []
        assert len(asked) == 21, "a change is looked at"
        store.clock.now = ms("2026-06-01 01:00:01")
        assert len(list(ticks.due(store.clock()))) == 19
