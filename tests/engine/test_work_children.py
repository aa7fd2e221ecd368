"""A worker drives a child run with the run that waits for it: once the child is answered, or its time has come."""

from __future__ import annotations

import functools
import time

import pytest

import machine
from machine import Plan
from machine.config import Target
from machine.engine.children import CHILD_ANSWERED
from machine.stores import MemoryStore
from machine.target import Loaded


async def asks(ctx, io):
    ctx["by"] = (await io.approval("Go on?", key="ask")).by


async def sleeps(ctx, io):
    await io.sleep(3600)
    ctx["by"] = "the clock"


async def signalled(ctx, io):
    ctx["by"] = await io.wait_signal("go", correlation="A-1")


def family(handler):
    """Return a plan with a child that has a child, whose handler this is."""
    grand, child, plan = Plan("grand"), Plan("child"), Plan("family")
    grand.state("step.only")(handler)

    @child.state("step.only")
    async def middle(ctx, io):
        ctx["by"] = (await io.run_child(grand)).context["by"]

    @plan.state("step.only")
    async def top(ctx, io):
        ctx["by"] = (await io.run_child(child)).context["by"]

    return plan


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


def started(store, handler):
    plan = family(handler)
    target = Target("/plans/family.py:plan", "/plans")
    result = machine.run(plan, store=store, target=target)
    assert result.status == "suspended"
    work = functools.partial(
        machine.work, store=store, load=lambda spec, directory: Loaded(plan, target), until_idle=True
    )
    assert work().to_json() == {"counts": {}, "left_alone": 0}, "nothing is due, and no child is an error"
    return result.run_id, work


def statuses(store):
    return {row.op_id: row.status for row in store.list_runs().rows}


def grand(store):
    (row,) = store.list_runs(op="grand").rows
    return row.run_id


def test_an_answer_to_a_child_makes_the_runs_above_it_due(store):
    run_id, work = started(store, asks)
    machine.approve(grand(store), by="ada", store=store)
    assert CHILD_ANSWERED in {message.kind for message in store.inbox(run_id)}
    assert work().counts == {"completed": 1}
    assert statuses(store) == dict.fromkeys(("family", "child", "grand"), "completed")
    assert work().to_json() == {"counts": {}, "left_alone": 0}


def test_the_time_of_a_child_is_one_of_the_runs_above_it(store):
    run_id, work = started(store, sleeps)
    wakes = {store.run_row(row.run_id).wake_ms for row in store.list_runs().rows}
    assert len(wakes) == 1
    assert None not in wakes
    later = time.time_ns() // 1_000_000 + 3_700_000
    store.clock = lambda: later
    assert store.due_runs(later, op="family") == [run_id]
    assert work().counts == {"completed": 1}
    assert statuses(store) == dict.fromkeys(("family", "child", "grand"), "completed")


def test_a_signal_by_correlation_to_a_child_makes_the_runs_above_it_due(store):
    _, work = started(store, signalled)
    machine.signal(None, "go", 7, correlation="A-1", store=store)
    assert work().counts == {"completed": 1}
    assert statuses(store) == dict.fromkeys(("family", "child", "grand"), "completed")
