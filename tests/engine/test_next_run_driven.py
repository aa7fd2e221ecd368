"""Runs that go on as another, seen by who drives them or waits for them: parents, workers and schedules."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from crashes import CommittedStore

import machine
from machine import Plan, StateOutcome
from machine.config import Target
from machine.engine import run_reader
from machine.errors import NotFoundError
from machine.kernel.segments import FIRST_RUN, NEXT_RUN, PREVIOUS_RUN, SEGMENT
from machine.stores import MemoryStore
from machine.stores.base import ZERO_CHAIN, StoredEvent
from machine.stores.schedule import CatchUp, Overlap
from machine.target import Loaded
from machine.testing.store_samples import Clock, schedule_of

TARGET = Target("/plans/loop.py:plan", "/plans")
HOUR = 3_600_000


@pytest.fixture
def store():
    with MemoryStore() as store:
        yield store


def looping(last: int = 2, *, waits: int = -1, name: str = "loop") -> Plan:
    """Return a plan that goes on until `last`, and that waits for a signal in run number `waits`."""
    plan = Plan(name)

    @plan.state("count.up")
    async def up(ctx, io):
        number = ctx.get("n", 0)
        ctx["n"] = number
        if number == waits:
            ctx["heard"] = await io.wait_signal("go")
        if number < last:
            return StateOutcome(next_run={"n": number + 1})
        return None

    return plan


def parent_of(child: Plan, **options: Any) -> Plan:
    plan = Plan("parent")

    @plan.state("step.only")
    async def only(ctx, io):
        result = await io.run_child(child, key="part", **options)
        ctx["child"], ctx["status"], ctx["n"] = result.run_id, result.status, result.context["n"]

    return plan


def rows(store: Any, op: str = "loop") -> list[Any]:
    return [*reversed(store.list_runs(op=op).rows)]


# -- children --------------------------------------------------------------------------------------------


def test_a_child_that_goes_on_ends_with_its_last_run(store):
    plan = parent_of(looping())
    result = machine.run(plan, store=store)
    runs = rows(store)
    assert len(runs) == 3
    assert result.context == {"child": runs[-1].run_id, "status": "completed", "n": 2}
    for row in runs:
        first, _ = run_reader.first_entry(store, row.run_id)
        assert (first.info["parent"], first.info["parent_key"]) == (result.run_id, "part")
    found = machine.replay(result.run_id, plan=plan, store=store, deep=True)
    assert found.identical
    assert [each.run_id for each in found.children] == [row.run_id for row in runs]


def test_a_deep_replay_names_the_run_of_a_child_that_differs_or_is_missing(store):
    plan = parent_of(looping())
    result = machine.run(plan, store=store)
    other = parent_of(looping(last=1))
    found = machine.replay(result.run_id, plan=other, store=store, deep=True)
    assert not found.identical
    middle = rows(store)[1].run_id
    assert found.divergence.summary.startswith(
        f"in the child run {middle} of loop: the run goes on as another in"
    )
    with MemoryStore() as elsewhere:
        for run_id in (result.run_id, rows(store)[0].run_id):
            for row in [*store.read_range(run_id)]:
                elsewhere.append(run_id, row.seq - 1, [row])
        elsewhere._contents.artifacts.update(store._contents.artifacts)
        with pytest.raises(NotFoundError, match=middle):
            machine.replay(result.run_id, plan=plan, store=elsewhere, deep=True)


def test_a_child_that_waits_in_a_later_run_is_answered_by_any_of_them(store):
    plan = parent_of(looping(waits=1))
    result = machine.run(plan, store=store)
    assert result.status == "suspended"
    first, second = rows(store)
    assert machine.signal(first.run_id, "go", 7, store=store).run_id == second.run_id
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert (result.status, result.context["child"]) == ("completed", rows(store)[-1].run_id)
    assert machine.replay(result.run_id, plan=plan, store=store, deep=True).identical


def test_a_child_that_another_driver_ends_wakes_its_parent(store):
    child = looping(waits=1)
    plan = parent_of(child)
    result = machine.run(plan, store=store)
    first, second = rows(store)
    machine.signal(second.run_id, "go", 7, store=store)
    assert machine.resume(first.run_id, plan=child, store=store).context["n"] == 2
    (told,) = [each for each in store.inbox(result.run_id) if each.kind == "child_ended"]
    assert told.data == {"key": "part", "run_id": rows(store)[-1].run_id}
    assert machine.resume(result.run_id, plan=plan, store=store).context["n"] == 2


def test_an_end_of_the_parent_reaches_the_last_run_of_a_child(store):
    plan = parent_of(looping(waits=1))
    result = machine.run(plan, store=store)
    assert machine.cancel(result.run_id, store=store).status == "cancelled"
    assert [row.status for row in rows(store)] == ["completed", "cancelled"]


def test_wherever_a_crash_comes_a_child_has_one_chain():
    plan = parent_of(looping())
    with CommittedStore() as whole:
        machine.run(plan, store=whole)
        counts = len(whole.appended)
    for count in range(1, counts + 1):
        with whole.after(count) as left:
            (row,) = rows(left, "parent")
            result = machine.resume(row.run_id, plan=plan, store=left)
            runs = rows(left)
            assert (len(runs), result.context["n"]) == (3, 2)
            assert result.context["child"] == runs[-1].run_id
            assert machine.replay(result.run_id, plan=plan, store=left, deep=True).identical


# -- workers -----------------------------------------------------------------------------------------------


def works(store: Any, plan: Plan, function: Any = machine.work, **options: Any) -> dict[str, int]:
    options = {"until_idle": True, **options} if function is machine.work else {"once": True, **options}
    load = functools.partial(lambda spec, directory: Loaded(plan, TARGET))
    return dict(function(store=store, load=load, **options).counts)


def test_a_worker_drives_on_to_the_last_run(store):
    plan = looping(last=3, waits=1)
    result = machine.run(plan, store=store, target=TARGET)
    assert result.status == "suspended"
    assert works(store, plan) == {}
    machine.signal(result.run_id, "go", 1, store=store)
    assert works(store, plan) == {"completed": 1}
    assert [row.status for row in rows(store)] == ["completed"] * 4
    assert works(store, plan) == {}


def test_a_worker_takes_over_a_next_run_that_nobody_drives():
    plan = looping()
    with CommittedStore() as whole:
        machine.run(plan, store=whole, target=TARGET)
        begun = next(at for at, each in enumerate(whole.appended, 1) if each[4] is not None)
        with whole.after(begun) as left:
            assert [row.status for row in rows(left)] == ["completed", "interrupted"]
            assert works(left, plan) == {"completed": 1}
            assert [row.segment for row in rows(left)] == [None, 2, 3]


# -- schedules -----------------------------------------------------------------------------------------------


@pytest.fixture
def scheduled(store):
    store.clock = Clock(1_780_000_000_000 // HOUR * HOUR)
    since = store.clock.now
    store.add_schedule(
        schedule_of(
            "n",
            cron="0 * * * *",
            tz="UTC",
            target=TARGET,
            input={},
            catch_up=CatchUp.ALL,
            overlap=Overlap.SKIP,
            created_ms=since,
            since_ms=since,
        )
    )
    return store


def test_a_schedule_overlaps_with_no_run_of_a_chain(scheduled):
    plan = looping(waits=1)
    scheduled.clock.now += HOUR
    assert works(scheduled, plan, machine.run_schedules) == {"suspended": 1}
    assert len(rows(scheduled)) == 2
    scheduled.clock.now += HOUR
    assert works(scheduled, plan, machine.run_schedules) == {}, "the chain has not ended"
    machine.signal(rows(scheduled)[0].run_id, "go", 1, store=scheduled)
    assert works(scheduled, plan, machine.run_schedules)["completed"] == 1, "which it goes on with"
    assert [row.status for row in rows(scheduled)][:3] == ["completed"] * 3


def test_a_worker_of_schedules_leaves_a_chain_of_a_user_alone(scheduled):
    plan = looping(waits=1)
    result = machine.run(plan, store=scheduled, target=TARGET)
    machine.signal(result.run_id, "go", 1, store=scheduled)
    assert works(scheduled, plan, machine.run_schedules) == {}
    assert scheduled.run_row(result.run_id).status == "suspended"


# -- a log that does not fit ---------------------------------------------------------------------------------


def changed(store: Any, run_id: str, change: Any) -> Any:
    """Return another store with this run, of which each envelope was changed."""
    from machine.envelope import chain_next

    other, chain = MemoryStore(artifacts=store._contents.artifacts), ZERO_CHAIN
    for event in store.read_range(run_id):
        data = change(event.data)
        chain = chain_next(chain, data)
        other.append(run_id, event.seq - 1, [StoredEvent(event.seq, data, chain)])
    return other


@pytest.mark.parametrize("what", ["lost", "other", "failed", "from nowhere"])
def test_an_end_that_does_not_fit_its_states_is_damage(store, what):
    machine.run(looping(), store=store)
    first, _, last = rows(store)
    history, _ = run_reader.folded(store, first.run_id)
    (given,) = history.next_inputs.values()
    field = b'"next_input_id":"%b",' % given.encode()
    changes = {
        "lost": lambda data: data.replace(field, b"") if b"run_completed" in data else data,
        "other": lambda data: data.replace(given.encode(), b"0" * 64) if b"run_completed" in data else data,
        "failed": lambda data: data.replace(b'"status":"completed"', b'"status":"failed"'),
        "from nowhere": lambda data: (
            data.replace(b'"info":{', b'"info":{"next_run":"%b",' % first.run_id.encode())
            if b"run_completed" in data
            else data
        ),
    }
    run_id = last.run_id if what == "from nowhere" else first.run_id
    with changed(store, run_id, changes[what]) as damaged:
        found = machine.verify(run_id, store=damaged)
        assert not found.ok
        assert found.problems[0].code == "log_bad_event"


def test_the_names_in_the_log_are_those_of_its_format():
    assert (NEXT_RUN, PREVIOUS_RUN, FIRST_RUN, SEGMENT) == (
        "next_run",
        "previous_run",
        "first_run",
        "segment",
    )
