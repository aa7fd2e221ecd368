"""Tasks and threads that outlive their handler: what they do through `io` or `rec` fails attempt or run."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import attrs
import pytest

import machine
from machine import DomainEvent, Plan, RetryPolicy, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import Code
from machine.events import FactRecorded, RunCompleted, StateCompleted, StateFailed

EFFECT: dict[str, Any] = {"side_effects": "apply_side_effect", "idempotency": "k"}
MODES = {"sequential": RunConfig(undeclared_io="allow"), "watched": RunConfig(undeclared_io="warn")}
MODES["concurrent"] = RunConfig(undeclared_io="allow", execution_mode=FanOutJoin(3))


@pytest.fixture(params=MODES.values(), ids=MODES)
def config(request):
    return request.param


def events_of(store, run_id, kind):
    return [entry.event for entry, _ in run_reader.entries(store, run_id) if isinstance(entry.event, kind)]


def begun(coro):
    """Begin a task whose exception nobody waits for, and nobody is told of."""
    task = asyncio.ensure_future(coro)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


async def until(event):
    """Wait for what another thread says."""
    await asyncio.to_thread(event.wait, 10)


def replayed(plan, store, run_id, transports):
    assert machine.verify(run_id, store=store).problems == ()
    return machine.replay(
        run_id, plan=plan, store=store, transports=transports, undeclared_io="allow"
    ).identical


async def at_once(io, rec):
    await io.call("world", {"n": 2})


async def a_little_later(io, rec):
    await asyncio.sleep(0.1)
    await io.call("world", {"n": 2})


async def a_read_later(io, rec):
    await asyncio.sleep(0.05)
    await io.now()


async def an_event_later(io, rec):
    await asyncio.sleep(0.05)
    await rec.emit(DomainEvent("late", {}))


async def in_flight(io, rec):
    await io.call("world", {"delay": 60})


async def by_a_task_of_its_own(io, rec):
    await asyncio.sleep(0.02)
    begun(a_little_later(io, rec))


USES = {
    at_once: "called world",
    a_little_later: "called world",
    a_read_later: "called clock.now",
    an_event_later: "emitted late",
    by_a_task_of_its_own: "called world",
}


@pytest.mark.parametrize("use", [*USES, in_flight])
def test_the_attempt_fails_and_the_call_is_named(store, config, scripted, use):
    plan, kept = Plan("op"), []

    @plan.state("step.one", **EFFECT)
    async def one(ctx, io, rec):
        kept.append(begun(use(io, rec)))
        if use is in_flight:
            await asyncio.sleep(0.02)
        ctx["done"] = True

    world = scripted(effect=True)
    transports = {"world": world}
    result = machine.run(plan, store=store, config=config, transports=transports)

    assert (result.status, result.error.code) == ("failed", Code.TASK_LEFT_BEHIND)
    assert result.error.details["use"] == USES.get(use, "was still calling world")
    assert result.context == {}
    assert len(events_of(store, result.run_id, StateFailed)) == 1
    assert len(world.asked) == (use is in_flight)
    assert replayed(plan, store, result.run_id, transports)


def test_a_thread_that_calls_before_the_run_ends_fails_it(store, scripted):
    plan, go, ended, refused = Plan("op"), threading.Event(), threading.Event(), []

    @plan.state("step.one", **EFFECT)
    def one(ctx, io, rec):
        def later():
            go.wait(10)
            try:
                io.call("world", {"n": 1})
            except machine.errors.StateError as exc:
                refused.append(exc.code)
            ended.set()

        threading.Thread(target=later, daemon=True).start()
        ctx["one"] = True

    @plan.state("step.two", after=[one])
    async def two(ctx, io, rec):
        go.set()
        await until(ended)
        ctx["two"] = True

    @plan.state("step.three", after=[two])
    async def three(ctx, io, rec):
        raise AssertionError("nothing is begun any more")

    transports = {"world": scripted(effect=True)}
    result = machine.run(plan, store=store, config=MODES["sequential"], transports=transports)

    assert (result.status, result.error.code) == ("failed", Code.TASK_LEFT_BEHIND)
    assert result.error.details["state_id"] == "op.step.one"
    assert len(events_of(store, result.run_id, StateCompleted)) == 2
    assert result.context == {"one": True, "two": True}
    assert machine.resume(result.run_id, plan=plan, store=store).status == "failed"
    assert refused == [Code.ATTEMPT_CLOSED]
    go.clear()
    ended.clear()
    assert replayed(plan, store, result.run_id, transports)


def test_a_task_that_acts_after_its_attempt_has_completed_fails_the_run(store, config, scripted, monkeypatch):
    monkeypatch.setattr("machine.engine.leftover_tasks.LEFT_SECONDS", 0.02)
    plan, kept = Plan("op"), []

    @plan.state("step.one", **EFFECT)
    async def one(ctx, io, rec):
        async def later():
            await asyncio.sleep(0.2)
            await io.call("world", {"n": 1})

        kept.append(begun(later()))

    @plan.state("step.two", after=[one])
    async def two(ctx, io, rec):
        await asyncio.sleep(0.4)

    @plan.state("step.three", after=[two])
    async def three(ctx, io, rec):
        raise AssertionError("nothing is begun any more")

    world = scripted(effect=True)
    result = machine.run(plan, store=store, config=config, transports={"world": world})

    assert (result.status, result.error.code) == ("failed", Code.TASK_LEFT_BEHIND)
    assert world.asked == []
    (completed,) = events_of(store, result.run_id, RunCompleted)
    assert completed.error == result.error
    assert replayed(plan, store, result.run_id, {"world": world})


def test_a_task_that_ends_by_itself_is_waited_for_and_leaves_no_trace(store, config):
    plan, kept = Plan("op"), []

    @plan.state("step.one")
    async def one(ctx, io, rec):
        async def harmless():
            await asyncio.sleep(0.05)
            ctx["too"] = "late"

        kept.append(begun(harmless()))
        ctx["done"] = await io.now()

    result = machine.run(plan, store=store, config=config)
    assert result.status == "completed"
    assert list(result.context) == ["done"]
    assert kept[0].done()
    assert replayed(plan, store, result.run_id, {})


def test_a_task_that_goes_on_for_ever_without_io_disturbs_nobody(store, config, monkeypatch):
    monkeypatch.setattr("machine.engine.leftover_tasks.LEFT_SECONDS", 0.05)
    plan, kept, seen = Plan("op"), [], []

    @plan.state("step.one")
    async def one(ctx, io, rec):
        kept.append(begun(asyncio.sleep(60)))

    @plan.state("step.two", after=[one])
    async def two(ctx, io, rec):
        seen.append(kept[0].done())

    result = machine.run(plan, store=store, config=config)
    assert (result.status, seen) == ("completed", [False])


def test_what_is_left_at_every_attempt_is_waited_for_in_full_once_a_run(store, monkeypatch):
    monkeypatch.setattr("machine.engine.leftover_tasks.LEFT_SECONDS", 0.2)
    plan, waits, wait = Plan("op"), [], asyncio.wait

    async def waiting(tasks, **options):
        waits.append(options["timeout"])
        return await wait(tasks, **options)

    async def listens(ctx, io, rec):
        begun(asyncio.sleep(60))

    for name in "abcde":
        plan.state(f"step.{name}")(listens)
    monkeypatch.setattr("machine.engine.leftover_tasks.asyncio.wait", waiting)
    for _ in range(2):
        waits.clear()
        assert machine.run(plan, store=store, config=MODES["sequential"]).status == "completed"
        assert [rest > 0.1 for rest in waits] == [True, False, False, False, False]


def test_a_call_after_the_short_wait_still_fails_the_run(store, config, scripted, monkeypatch):
    monkeypatch.setattr("machine.engine.leftover_tasks.LEFT_SECONDS", 0.05)
    plan, go = Plan("op"), []

    @plan.state("step.listens")
    async def listens(ctx, io, rec):
        begun(asyncio.sleep(60))

    @plan.state("step.pays", after=[listens], **EFFECT)
    async def pays(ctx, io, rec):
        go.append(asyncio.Event())

        async def later():
            await go[-1].wait()
            await io.call("world", {"n": 1})

        begun(later())

    @plan.state("step.next", after=[pays])
    async def following(ctx, io, rec):
        go[-1].set()
        await asyncio.sleep(0.02)

    world = scripted(effect=True)
    result = machine.run(plan, store=store, config=config, transports={"world": world})
    assert (result.status, result.error.code) == ("failed", Code.TASK_LEFT_BEHIND)
    assert world.asked == []
    assert replayed(plan, store, result.run_id, {"world": world})


def test_a_read_in_flight_that_lost_a_race_is_given_up(store, config, scripted):
    plan = Plan("op")

    @plan.state("step.race")
    async def race(ctx, io, rec):
        tasks = [asyncio.ensure_future(io.call("world", {"delay": n, "n": n})) for n in (0.01, 60)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ctx["won"] = tasks[0].result().response

    transports = {"world": scripted()}
    result = machine.run(plan, store=store, config=config, transports=transports)
    assert result.status == "completed"
    assert [fact.given_up for fact in events_of(store, result.run_id, FactRecorded)] == [False, True]
    assert replayed(plan, store, result.run_id, transports)


def test_concurrent_states_are_not_taken_for_each_other(store, scripted):
    plan = Plan("op")

    @plan.state("step.quick")
    async def quick(ctx, io, rec):
        ctx["quick"] = True

    @plan.state("step.busy")
    async def busy(ctx, io, rec):
        async def some(n):
            await asyncio.sleep(0.02 * n)
            await io.call("world", {"n": n})

        async with asyncio.TaskGroup() as tasks:
            for n in range(5):
                tasks.create_task(some(n))

    result = machine.run(plan, store=store, config=MODES["concurrent"], transports={"world": scripted()})
    assert result.status == "completed"


def test_a_handler_that_fails_fails_with_its_own_error(store, config, scripted):
    plan, kept, lives = Plan("op"), [], []

    @plan.state("step.one", retry=RetryPolicy(2), **EFFECT)
    async def one(ctx, io, rec):
        lives.append(1)
        kept.append(begun(a_little_later(io, rec)))
        if len(lives) == 1:
            raise machine.Failure("of its own", code="own", retryable=True)
        await kept[-1]

    transports = {"world": scripted(effect=True)}
    result = machine.run(plan, store=store, config=config, transports=transports)
    assert [failed.error.code for failed in events_of(store, result.run_id, StateFailed)] == ["own"]
    assert result.status == "completed"
    lives.clear()
    assert replayed(plan, store, result.run_id, transports)


def test_a_plain_handler_that_was_timed_out_is_not_blamed_for_what_its_thread_does(store, scripted):
    plan, refused, seen = Plan("op"), threading.Event(), []

    @plan.state("step.slow", timeout=0.1, retry=RetryPolicy(2))
    def slow(ctx, io, rec):
        if not seen:
            seen.append(True)
            threading.Event().wait(0.2)
            try:
                io.call("world", {"n": 1})
            except machine.errors.StateError:
                refused.set()

    @plan.state("step.next", after=[slow])
    async def after(ctx, io, rec):
        await until(refused)

    result = machine.run(plan, store=store, config=MODES["sequential"], transports={"world": scripted()})
    assert result.status == "completed"


def test_a_paranoid_run_says_the_same(store, scripted):
    plan, kept = Plan("op"), []

    @plan.state("step.one", **EFFECT)
    async def one(ctx, io, rec):
        kept.append(begun(a_little_later(io, rec)))

    transports = {"world": scripted(effect=True)}
    config = RunConfig(undeclared_io="allow", paranoid=True)
    result = machine.run(plan, store=store, config=config, transports=transports)
    assert result.error.code == Code.TASK_LEFT_BEHIND


def test_a_task_factory_that_was_there_is_still_asked(store):
    plan, made = Plan("op"), []

    @plan.state("step.one")
    async def one(ctx, io, rec):
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    def factory(loop, coro, **options):
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **options)

    async def main():
        asyncio.get_running_loop().set_task_factory(factory)
        for _ in range(3):
            await machine.aio.run(plan, store=store, config=MODES["sequential"])

    asyncio.run(main())
    assert made.count("sleep") == 6


def test_the_event_loop_has_its_own_task_factory_again_after_the_last_run(store):
    plan, started, go, seen = Plan("op"), [], [], []

    @plan.state("step.inner")
    async def inner(ctx, io, rec):
        loop = asyncio.get_running_loop()
        started.append(True)
        while len(started) < 3:  # noqa: ASYNC110 - runs on one event loop, which ends with each test
            await asyncio.sleep(0)
        seen.append(loop.get_task_factory())

    @plan.state("step.within", after=[inner])
    async def within(ctx, io, rec):
        nested = Plan("nested")

        @nested.state("step.one")
        async def one(ctx, io, rec):
            pass

        await machine.aio.run(nested, store=store, config=MODES["sequential"])
        go.append(asyncio.get_running_loop().get_task_factory())

    def factory(loop, coro, **options):
        return asyncio.Task(coro, loop=loop, **options)

    async def main(before):
        loop = asyncio.get_running_loop()
        loop.set_task_factory(before)
        runs = [machine.aio.run(plan, store=store, config=MODES["sequential"]) for _ in range(3)]
        results = await asyncio.gather(*runs)
        assert [result.status for result in results] == ["completed"] * 3
        assert before not in [*seen, *go], "as long as any of them goes on"
        assert loop.get_task_factory() is before

    for before in (None, factory):
        started.clear()
        asyncio.run(main(before))


def test_a_task_factory_that_was_set_meanwhile_stays(store):
    plan = Plan("op")

    def factory(loop, coro, **options):
        return asyncio.Task(coro, loop=loop, **options)

    @plan.state("step.one")
    async def one(ctx, io, rec):
        asyncio.get_running_loop().set_task_factory(factory)

    async def main():
        await machine.aio.run(plan, store=store, config=MODES["sequential"])
        assert asyncio.get_running_loop().get_task_factory() is factory

    asyncio.run(main())


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_a_program_left_in_flight_fails_the_attempt_whatever_its_state_is_declared(config, store, plain):
    plan = Plan("p")
    call = ["sh", "-c", "echo began > began; sleep 60"]

    def has_begun():
        while not Path("began").exists():
            time.sleep(0.01)

    async def leaves(ctx, io, rec):
        begun(io.exec(call))
        await asyncio.to_thread(has_begun)

    def leaves_a_thread(ctx, io, rec):
        def quiet():
            with contextlib.suppress(machine.MachineError):
                io.exec(call)

        threading.Thread(target=contextvars.copy_context().run, args=(quiet,)).start()
        has_begun()

    plan.state("a.x")(leaves_a_thread if plain else leaves)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.chdir(folder)
        result = machine.run(plan, store=store, config=attrs.evolve(config, undeclared_io="allow"))
    assert (result.status, result.error.code) == ("failed", Code.TASK_LEFT_BEHIND)
    assert "which was interrupted and may have been done" in result.error.message
    assert replayed(plan, store, result.run_id, None)
