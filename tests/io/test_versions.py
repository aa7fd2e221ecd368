"""`io.version`: code that changes while runs are suspended, and which way an attempt goes."""

from __future__ import annotations

import anyio
import pytest
from crashes import left_after

import machine
from machine import Plan, RetryPolicy, RunConfig, open_store
from machine.engine.run_reader import entries
from machine.errors import Code, IdError
from machine.events import FactRecorded


@pytest.fixture
def store():
    with open_store("memory://") as store:
        yield store


def only(handler, **options):
    plan = Plan("versions")
    plan.state("do.it", **options)(handler)
    return plan


def facts_of(run_id, store, namespace="version"):
    log = [entry.event for entry, _ in entries(store, run_id)]
    return [event for event in log if isinstance(event, FactRecorded) and event.namespace == namespace]


async def changed(ctx, io):
    if await io.version("ask twice"):
        ctx["twice"] = await io.uuid() and "yes"
    ctx["again"] = await io.version("ask twice")
    ctx["other"] = await io.version("another")


def test_it_is_true_where_it_is_first_reached_and_recorded_once(store):
    plan = only(changed)
    result = machine.run(plan, store=store)
    assert result.context == {"twice": "yes", "again": True, "other": True}
    assert len(facts_of(result.run_id, store)) == 2
    assert machine.replay(result.run_id, plan=plan, store=store).identical
    assert machine.verify(result.run_id, store=store).ok


def test_a_recording_from_before_the_change_replays_on_the_old_way(store):
    async def before(ctx, io):
        ctx["now"] = await io.now()

    async def after(ctx, io):
        if await io.version("stamp"):
            ctx["stamp"] = str(await io.uuid())
        if await io.version("stamp"):
            ctx["stamp"] = "twice"
        ctx["now"] = await io.now()

    old = machine.run(only(before), store=store)
    assert machine.replay(old.run_id, plan=only(after), store=store).identical
    new = machine.run(only(after), store=store)
    assert new.context["stamp"] == "twice"
    assert not machine.replay(new.run_id, plan=only(before), store=store).identical


def test_each_attempt_says_for_itself_what_it_has(store):
    tries = []

    async def fails_once(ctx, io):
        tries.append(await io.version("x"))
        if len(tries) == 1:
            raise machine.Failure("again", retryable=True)

    plan = only(fails_once, retry=RetryPolicy(2))
    run_id = machine.run(plan, store=store).run_id
    assert [fact.attempt for fact in facts_of(run_id, store)] == [0, 1]
    tries.clear()
    assert machine.replay(run_id, plan=plan, store=store).identical
    assert tries == [True, True]


def test_an_attempt_after_a_crash_has_the_change_whatever_the_one_before_had(store):
    async def before(ctx, io):
        ctx["id"] = str(await io.uuid())
        ctx["way"] = "old"

    async def after(ctx, io):
        ctx["way"] = "new" if await io.version("x") else "old"
        ctx["id"] = str(await io.uuid())

    run_id = machine.run(only(before), store=store).run_id
    left = left_after(store, run_id, 3)
    result = machine.resume(left, plan=only(after), store=store)
    assert result.context["way"] == "new"
    assert [fact.attempt for fact in facts_of(left, store)] == [1]
    assert len(facts_of(left, store, "random.bytes")) == 1
    assert machine.replay(left, plan=only(after), store=store).identical


def test_calls_that_race_have_one_answer(store):
    async def handler(ctx, io):
        answers = []

        async def ask():
            answers.append(await io.version("x"))
            await io.now()

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
        ctx["answers"] = answers

    plan = only(handler)
    result = machine.run(plan, store=store)
    assert result.context == {"answers": [True, True, True]}
    assert len(facts_of(result.run_id, store)) == 1
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def test_a_plain_handler_asks_too_and_facts_are_durable_first(store):
    def plain(ctx, io):
        ctx["has"] = io.version("x")

    result = machine.run(only(plain), store=store, config=RunConfig(durability="facts"))
    assert result.context == {"has": True}


@pytest.mark.parametrize("name", ["", "a" * 129, "two\nlines", None, 3])
def test_an_id_that_is_none_is_refused(store, name):
    async def handler(ctx, io):
        with pytest.raises(IdError, match="VersionId"):
            await io.version(name)
        await io.version(name)

    result = machine.run(only(handler), store=store)
    assert (result.status, result.error.code) == ("failed", Code.INVALID_ID)
    assert facts_of(result.run_id, store) == []


def test_code_changes_in_front_of_a_wait_while_runs_are_suspended_there(store):
    async def before(ctx, io):
        ctx["now"] = await io.now()
        await io.approval("Go on?", key="ask")

    async def after(ctx, io):
        ctx["new"] = [await io.version("stamp")]
        if ctx["new"][0]:
            ctx["stamp"] = str(await io.uuid())
        ctx["now"] = await io.now()
        await io.approval("Go on?", key="ask")
        ctx["new"] = [*ctx["new"], await io.version("stamp"), await io.version("behind it")]

    def approve(run_id):
        store.post(run_id, "answer", {"key": "ask", "answer": {"approved": True}})

    old = machine.run(only(before), store=store)
    approve(old.run_id)
    ended = machine.resume(old.run_id, plan=only(after), store=store)
    assert ended.context == {"new": [False, False, True], "now": ended.context["now"]}
    assert len(facts_of(old.run_id, store)) == 1
    new = machine.run(only(after), store=store)
    approve(new.run_id)
    assert machine.resume(new.run_id, plan=only(after), store=store).context["new"] == [True, True, True]
    for run_id in (old.run_id, new.run_id):
        found = machine.replay(run_id, plan=only(after), store=store)
        assert found.identical, found.divergence
