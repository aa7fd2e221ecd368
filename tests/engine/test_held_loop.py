"""Handlers that hold the event loop: timed out when they come back, and named."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

import machine
from machine import Plan, Reporter, RetryPolicy, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import Code
from machine.events import EffectIntended, FactRecorded, StateFailed

MODES = {"sequential": RunConfig(undeclared_io="allow"), "watched": RunConfig(undeclared_io="warn")}
MODES["concurrent"] = RunConfig(undeclared_io="allow", execution_mode=FanOutJoin(3))


@pytest.fixture(params=MODES.values(), ids=MODES)
def config(request):
    return request.param


def block(seconds):
    """Hold the event loop, as code does that knows of none."""
    time.sleep(seconds)


class Told(Reporter):
    def __init__(self):
        self.held_by = []

    def held(self, state_id, seconds):
        self.held_by.append((state_id, seconds))

    def undeclared(self, state_id, what):
        return


def events_of(store, run_id, kind):
    return [entry.event for entry, _ in run_reader.entries(store, run_id) if isinstance(entry.event, kind)]


def test_a_handler_that_blocks_past_its_timeout_is_timed_out_when_it_comes_back(store, config, scripted):
    plan = Plan("op")

    @plan.state("step.blocks", timeout=0.2, side_effects="apply_side_effect", idempotency="k")
    async def blocks(ctx, io, rec):
        ctx["n"] = (await io.call("world", {"n": 1})).response
        block(0.4)
        ctx["done"] = True

    transports = {"world": scripted(effect=True)}
    result = machine.run(plan, store=store, config=config, transports=transports, reporter=Told())

    assert (result.status, result.error.code) == ("failed", Code.STATE_TIMEOUT)
    assert result.context == {}
    (failed,) = events_of(store, result.run_id, StateFailed)
    assert failed.cut
    assert failed.failure_snapshot_id is None
    assert len(events_of(store, result.run_id, FactRecorded)) == 1
    assert machine.replay(result.run_id, plan=plan, store=store, undeclared_io="allow").identical


def test_a_timed_out_attempt_is_tried_again_and_what_it_learned_is_kept(store, config, scripted):
    plan, lives = Plan("op"), []

    @plan.state(
        "step.blocks", timeout=0.2, side_effects="apply_side_effect", idempotency="k", retry=RetryPolicy(2)
    )
    async def blocks(ctx, io, rec):
        await io.call("world", {"n": 1})
        lives.append(1)
        if len(lives) == 1:
            block(0.4)
        ctx["lives"] = "some"

    world = scripted(effect=True)
    result = machine.run(plan, store=store, config=config, transports={"world": world}, reporter=Told())

    assert (result.status, result.context) == ("completed", {"lives": "some"})
    assert len(world.asked) == 1
    assert machine.replay(result.run_id, plan=plan, store=store, undeclared_io="allow").identical


def test_a_handler_that_raises_past_its_timeout_is_timed_out_and_what_it_raised_is_the_cause(store, config):
    plan = Plan("op")

    @plan.state("step.blocks", timeout=0.1)
    async def blocks(ctx, io, rec):
        block(0.2)
        raise machine.Failure("of its own", code="own")

    result = machine.run(plan, store=store, config=config, reporter=Told())
    assert result.error.code == Code.STATE_TIMEOUT
    assert "of its own" in result.error.causes[0].text
    assert machine.replay(result.run_id, plan=plan, store=store, undeclared_io="allow").identical


def test_a_plain_handler_past_its_timeout_is_timed_out(store, config):
    plan = Plan("op")

    @plan.state("step.blocks", timeout=0.1)
    def blocks(ctx, io, rec):
        time.sleep(0.3)
        ctx["done"] = True

    result = machine.run(plan, store=store, config=config, reporter=Told())
    assert (result.status, result.error.code, result.context) == ("failed", Code.STATE_TIMEOUT, {})


def test_a_handler_within_its_timeout_is_not_timed_out(store, config):
    plan = Plan("op")

    @plan.state("step.blocks", timeout=30)
    async def blocks(ctx, io, rec):
        block(0.05)
        ctx["done"] = True

    assert machine.run(plan, store=store, config=config, reporter=Told()).status == "completed"


def test_a_handler_that_holds_the_loop_is_named_and_others_are_not(store, config):
    plan, told = Plan("op"), Told()

    @plan.state("step.waits")
    async def waits(ctx, io, rec):
        for _ in range(3):
            await asyncio.sleep(0.4)

    @plan.state("step.holds")
    async def holds(ctx, io, rec):
        await asyncio.sleep(0)
        block(1.1)

    @plan.state("step.plain")
    def plain(ctx, io, rec):
        time.sleep(1.1)

    result = machine.run(plan, store=store, config=config, reporter=told)

    assert result.status == "completed"
    ((state_id, seconds),) = told.held_by
    assert state_id == "op.step.holds"
    assert seconds >= 1.1
    told.held_by.clear()
    assert machine.replay(
        result.run_id, plan=plan, store=store, reporter=told, undeclared_io="allow"
    ).identical
    assert told.held_by == []


def test_a_store_that_keeps_the_loop_waiting_is_no_fault_of_the_handler(store, scripted, monkeypatch):
    plan, told, append = Plan("op"), Told(), store.append

    def slow(run_id, expected_seq, events, *args, **more):
        append(run_id, expected_seq, events, *args, **more)
        if any(b"fact_recorded" in event.data for event in events):
            time.sleep(1.1)

    @plan.state("step.pays", side_effects="apply_side_effect", idempotency="k")
    async def pays(ctx, io, rec):
        await io.call("world", {})

    monkeypatch.setattr(store, "append", slow)
    machine.run(plan, store=store, transports={"world": scripted(effect=True)}, reporter=told)
    assert told.held_by == []


def test_the_warning_names_the_state_and_the_seconds(caplog):
    with caplog.at_level(logging.WARNING, "machine"):
        Reporter().held("op.step.holds", 2.04)
    assert caplog.messages[0].startswith("op.step.holds held the event loop for 2.0 s")


def test_a_reporter_that_raises_when_it_is_told_ends_the_run(store):
    plan = Plan("op")

    class Raising(Reporter):
        def held(self, state_id, seconds):
            raise RuntimeError(state_id)

    @plan.state("step.holds")
    async def holds(ctx, io, rec):
        block(1.05)

    with pytest.raises(RuntimeError, match=r"op\.step\.holds"):
        machine.run(plan, store=store, config=MODES["sequential"], reporter=Raising())


def test_no_effect_begins_when_the_time_is_over(store, config, scripted):
    plan = Plan("op")

    @plan.state("step.blocks", timeout=0.1, side_effects="apply_side_effect", idempotency="k")
    async def blocks(ctx, io, rec):
        block(0.2)
        await io.call("world", {"n": 1})

    world = scripted(effect=True)
    result = machine.run(plan, store=store, config=config, transports={"world": world}, reporter=Told())

    assert result.error.code == Code.STATE_TIMEOUT
    assert world.asked == []
    assert events_of(store, result.run_id, EffectIntended) == []
    assert machine.replay(result.run_id, plan=plan, store=store, undeclared_io="allow").identical
