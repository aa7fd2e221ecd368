"""Handlers that catch a cancellation and go on: the attempt was interrupted all the same, and replays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading

import anyio
import pytest

import machine
from machine import FixedBackoff, Plan, RetryPolicy, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import Code
from machine.events import StateCompleted, StateFailed

ALLOW = RunConfig(undeclared_io="allow")


async def by_io(io):
    await io.sleep(60)


async def by_call(io):
    await io.call("world", {"delay": 60})


async def by_own_sleep(io):
    await asyncio.sleep(60)


async def by_task(io):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(io.sleep(60))


WAYS = [by_io, by_call, by_own_sleep, by_task]


def swallowing(way, **options):
    plan, begun = Plan("op"), threading.Event()

    @plan.state("step.first")
    async def first(ctx, io, rec):
        ctx["at"] = await io.now()

    @plan.state("step.stubborn", after=[first], **options)
    async def stubborn(ctx, io, rec):
        begun.set()
        try:
            await way(io)
        except asyncio.CancelledError:
            ctx["caught"] = True
        ctx["done"] = True

    return plan, begun


def failures_of(store, run_id):
    events = [entry.event for entry, _ in run_reader.entries(store, run_id)]
    assert [event.state_id for event in events if isinstance(event, StateCompleted)] == ["op.step.first"]
    return [event.error.code for event in events if isinstance(event, StateFailed)]


def in_a_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("concurrent", [False, True], ids=["sequential", "concurrent"])
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_cancelled_ends_cancelled_and_replays(store, scripted, way, concurrent):
    plan, begun = swallowing(way)
    run_id = str(machine.new_run_id())
    config = RunConfig(undeclared_io="allow", execution_mode=FanOutJoin(2)) if concurrent else ALLOW
    transports = {"world": scripted()}
    driver = in_a_thread(
        lambda: machine.run(plan, store=store, run_id=run_id, config=config, transports=transports)
    )
    assert begun.wait(10)
    assert machine.cancel(run_id, store=store, timeout=20).status == "cancelled"
    driver.join(20)

    assert failures_of(store, run_id) == [Code.RUN_CANCELLED]
    assert machine.replay(run_id, plan=plan, store=store, transports=transports).identical


@pytest.mark.parametrize("way", WAYS)
def test_an_attempt_past_its_timeout_is_timed_out_and_replays(store, scripted, way):
    plan, _ = swallowing(way, timeout=0.2)
    transports = {"world": scripted()}
    result = machine.run(plan, store=store, config=ALLOW, transports=transports)
    assert failures_of(store, result.run_id) == [Code.STATE_TIMEOUT]
    assert machine.replay(result.run_id, plan=plan, store=store, transports=transports).identical


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_is_cancelled_stops_the_run_which_goes_on_later(store, scripted, way):
    plan, begun = swallowing(way)
    run_id, transports = str(machine.new_run_id()), {"world": scripted()}

    async def main():
        task = asyncio.ensure_future(
            machine.aio.run(plan, store=store, run_id=run_id, config=ALLOW, transports=transports)
        )
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert failures_of(store, run_id) == [Code.ATTEMPT_INTERRUPTED]
    assert machine.replay(run_id, plan=plan, store=store, transports=transports).identical


def test_one_that_failed_beside_it_interrupts_it(store):
    plan, begun = Plan("op"), threading.Event()

    @plan.state("step.fails")
    async def fails(ctx, io, rec):
        await asyncio.to_thread(begun.wait, 10)
        raise machine.Failure("no")

    @plan.state("step.stubborn")
    async def stubborn(ctx, io, rec):
        begun.set()
        try:
            await io.sleep(60)
        except asyncio.CancelledError:
            ctx["caught"] = True

    mode = FanOutJoin(2, on_failure="cancel")
    config = RunConfig(undeclared_io="allow", execution_mode=mode)
    result = machine.run(plan, store=store, config=config)
    codes = [
        entry.event.error.code
        for entry, _ in run_reader.entries(store, result.run_id)
        if isinstance(entry.event, StateFailed)
    ]
    assert codes[1:] == [Code.ATTEMPT_INTERRUPTED]
    assert machine.replay(result.run_id, plan=plan, store=store).identical


async def own_scope(io):
    with anyio.move_on_after(0.02):
        await asyncio.sleep(60)


async def own_timeout(io):
    try:
        async with asyncio.timeout(0.02):
            await io.sleep(60)
    except TimeoutError:
        return


async def own_group(io):
    async def fails():
        await asyncio.sleep(0.02)
        raise ValueError

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails())
            tasks.create_task(asyncio.sleep(60))
    except* ValueError:
        pass


async def own_group_in_its_body(io):
    async def fails():
        await asyncio.sleep(0.02)
        raise ValueError

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails())
            await asyncio.sleep(60)
    except* ValueError:
        pass


async def own_task(io):
    task = asyncio.ensure_future(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return


@contextlib.asynccontextmanager
async def entered(io, own):
    await own(io)
    yield


async def through_a_context_manager(io, own):
    async with entered(io, own):
        await asyncio.sleep(0)


@pytest.mark.parametrize("own", [own_scope, own_timeout, own_group, own_group_in_its_body, own_task])
@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("undeclared_io", ["allow", "warn"])
def test_what_a_handler_cancels_by_itself_interrupts_nothing(store, own, timeout, undeclared_io):
    plan = Plan("op")

    @plan.state("step.one", timeout=timeout)
    async def one(ctx, io, rec):
        await own(io)
        await through_a_context_manager(io, own)
        ctx["done"] = True

    result = machine.run(plan, store=store, config=RunConfig(undeclared_io=undeclared_io))
    assert result.status == "completed"
    assert machine.replay(result.run_id, plan=plan, store=store).identical


CONCURRENT = RunConfig(undeclared_io="allow", execution_mode=FanOutJoin(2, on_failure="cancel"))
MODES = pytest.mark.parametrize("config", [ALLOW, CONCURRENT], ids=["sequential", "concurrent"])


async def cleans_up(io):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError as exc:
        raise ValueError("of its own") from exc


async def cleans_up_after_a_call(io):
    try:
        await io.call("world", {"delay": 60})
    finally:
        raise ValueError("of its own")


async def fails_on_purpose(io):
    try:
        await io.sleep(60)
    except asyncio.CancelledError:
        raise machine.Failure("of its own", code="own") from None


async def cuts_a_group(io):
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(io.sleep(60))
            tasks.create_task(io.call("world", {"delay": 60}))
    except asyncio.CancelledError:
        raise ValueError("of its own") from None


async def breaks_a_group(io):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(cleans_up(io))
        await io.sleep(60)


async def breaks_a_scoped_group(io):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cleans_up, io)
        await io.sleep(60)


async def times_out_by_itself(io):
    try:
        await asyncio.wait_for(asyncio.sleep(60), 30)
    except asyncio.CancelledError:
        raise TimeoutError("of its own") from None


async def exits(io):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise SystemExit("of its own") from None


ANSWERS = [
    *(cleans_up, cleans_up_after_a_call, fails_on_purpose, cuts_a_group),
    *(breaks_a_group, breaks_a_scoped_group, times_out_by_itself, exits),
]


def answering(answer, **options):
    plan, begun = Plan("op"), threading.Event()

    @plan.state("step.first")
    async def first(ctx, io, rec):
        ctx["at"] = await io.now()

    @plan.state("step.answers", after=[first], **options)
    async def answers(ctx, io, rec):
        begun.set()
        await answer(io)

    return plan, begun


def failed_in(store, run_id):
    events = [entry.event for entry, _ in run_reader.entries(store, run_id)]
    return [event.error for event in events if isinstance(event, StateFailed)]


@MODES
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_timeout_that_is_answered_with_an_error_is_a_timeout_caused_by_it(store, scripted, answer, config):
    plan, _ = answering(answer, timeout=0.1, retry=RetryPolicy(2, FixedBackoff(0)))
    transports = {"world": scripted()}
    result = machine.run(plan, store=store, config=config, transports=transports)

    assert (result.status, result.error.code) == ("failed", Code.STATE_TIMEOUT)
    assert failures_of(store, result.run_id) == [Code.STATE_TIMEOUT] * 2
    assert any("of its own" in cause.text for cause in result.error.causes)
    assert machine.replay(result.run_id, plan=plan, store=store, transports=transports).identical


@MODES
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_cancel_that_is_answered_with_an_error_ends_the_run_cancelled(store, scripted, answer, config):
    plan, begun = answering(answer)
    run_id, transports = str(machine.new_run_id()), {"world": scripted()}
    driver = in_a_thread(
        lambda: machine.run(plan, store=store, run_id=run_id, config=config, transports=transports)
    )
    assert begun.wait(10)
    assert machine.cancel(run_id, store=store, timeout=20).status == "cancelled"
    driver.join(20)

    assert failures_of(store, run_id) == [Code.RUN_CANCELLED]
    assert machine.replay(run_id, plan=plan, store=store, transports=transports).identical


@MODES
@pytest.mark.parametrize("answer", ANSWERS)
def test_ctrl_c_that_is_answered_with_an_error_interrupts_the_run(store, scripted, answer, config):
    plan, begun = answering(answer)
    run_id, transports = str(machine.new_run_id()), {"world": scripted()}

    def press():
        if begun.wait(10):
            os.kill(os.getpid(), signal.SIGINT)

    in_a_thread(press)
    with pytest.raises(KeyboardInterrupt):
        machine.run(plan, store=store, run_id=run_id, config=config, transports=transports)
    assert failures_of(store, run_id) == [Code.ATTEMPT_INTERRUPTED]
    assert machine.replay(run_id, plan=plan, store=store, transports=transports).identical


@MODES
@pytest.mark.parametrize("raises", [False, True])
def test_ctrl_c_while_a_handler_holds_the_loop_interrupts_the_run(store, config, raises):
    async def holds(io):
        signal.raise_signal(signal.SIGINT)
        if raises:
            raise ValueError("of its own")

    plan, _ = answering(holds)
    run_id = str(machine.new_run_id())
    with pytest.raises(KeyboardInterrupt):
        machine.run(plan, store=store, run_id=run_id, config=config)
    assert failures_of(store, run_id) == [Code.ATTEMPT_INTERRUPTED]
    assert machine.replay(run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("answer", ANSWERS)
def test_one_that_failed_beside_it_interrupts_what_answers_with_an_error(store, scripted, answer):
    plan, begun = answering(answer)

    @plan.state("step.fails")
    async def fails(ctx, io, rec):
        await asyncio.to_thread(begun.wait, 10)
        raise machine.Failure("no", code="no")

    transports = {"world": scripted()}
    result = machine.run(plan, store=store, config=CONCURRENT, transports=transports)
    errors = failed_in(store, result.run_id)
    assert [error.code for error in errors] == ["no", Code.ATTEMPT_INTERRUPTED]
    assert result.error.code == "no"
    assert machine.replay(result.run_id, plan=plan, store=store, transports=transports).identical


@MODES
def test_an_error_before_the_timeout_is_the_handlers_own(store, config):
    async def at_once(io):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(60))
            await io.now()
            raise ValueError("of its own")

    plan, _ = answering(at_once, timeout=60)
    result = machine.run(plan, store=store, config=config)
    assert failures_of(store, result.run_id) == [Code.HANDLER_ERROR]
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def cancel_now():
    asyncio.current_task().cancel()


def cancel_soon():
    asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)


async def nothing(io):
    pass


async def a_call(io):
    await io.now()


async def a_sleep(io):
    await asyncio.sleep(60)


async def an_error(io):
    raise ValueError("of its own")


@MODES
@pytest.mark.parametrize(
    ("cancel", "then"),
    [
        *((cancel_now, then) for then in (nothing, a_call, a_sleep, by_io, an_error)),
        *((cancel_soon, then) for then in (a_sleep, by_io, cleans_up)),
    ],
)
def test_a_handler_that_cancels_its_own_task_interrupts_its_attempt(store, config, cancel, then):
    async def cancels(io):
        cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await then(io)

    plan, _ = answering(cancels)
    run_id = str(machine.new_run_id())
    with pytest.raises(machine.errors.RunError, match="a handler cancelled the task") as raised:
        machine.run(plan, store=store, run_id=run_id, config=config)
    assert raised.value.code == Code.ATTEMPT_INTERRUPTED
    assert failures_of(store, run_id) == [Code.ATTEMPT_INTERRUPTED]
    assert machine.replay(run_id, plan=plan, store=store).identical
