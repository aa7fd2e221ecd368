"""What handlers do around their waits: races, given-up waits, retries, time limits, clean-up, and paranoid runs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

import machine
from machine import Plan, RetryPolicy, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import Code
from machine.events import FactError, FactRecorded, StateEntered, StateFailed, WaitBegun
from machine.io import parked_tasks
from machine.stores import MemoryStore

YES = {"approved": True, "by": "ada"}


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(parked_tasks, "WAIT_GRACE", 0.05)
    monkeypatch.setattr(parked_tasks, "_LOOK_SECONDS", 0.01)


@pytest.fixture(params=[RunConfig(), RunConfig(execution_mode=FanOutJoin(2)), RunConfig(paranoid=True)])
def config(request):
    return request.param


def plan_of(handler, **options):
    plan = Plan("waits")
    plan.state("step.wait", **options)(handler)
    return plan


def events(store, run_id, kind):
    found = [entry.event for entry, _ in run_reader.entries(store, run_id)]
    return [event for event in found if isinstance(event, kind)]


def answer(store, result, key, **more):
    store.post(result.run_id, "answer", {"key": key, "answer": {**YES, **more}})


def replayed(plan, store, result):
    found = machine.replay(result.run_id, plan=plan, store=store)
    assert found.identical, found.divergence
    assert (found.digest, found.status) == (result.digest, result.status)


async def first_of_two(ctx, io):
    """Wait for two and give up the one that did not come first."""
    tasks = {name: asyncio.create_task(io.approval("?", key=name)) for name in ("a", "b")}
    done, left = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.wait(tasks.values())
    ctx["first"] = [name for name, task in tasks.items() if task in done]
    ctx["late"] = await io.now()


async def in_a_task_group(ctx, io):
    async with asyncio.TaskGroup() as group:
        first = group.create_task(io.approval("?", key="a"))
        second = group.create_task(io.approval("?", key="b"))
    ctx["by"] = [first.result().by, second.result().by]


async def in_an_anyio_group(ctx, io):
    by = []

    async def wait(key):
        by.append((await io.approval("?", key=key)).by)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "a")
        group.start_soon(wait, "b")
    ctx["by"] = by


async def gathered_with_exceptions(ctx, io):
    found = await asyncio.gather(*(io.approval("?", key=key) for key in "ab"), return_exceptions=True)
    ctx["by"] = [each.by for each in found]


async def the_same_wait_twice(ctx, io):
    found = await asyncio.gather(*(io.approval("?", key="a") for _ in range(2)))
    ctx["by"] = [each.by for each in found]
    ctx["again"] = (await io.approval("?", key="a")).by
    ctx["b"] = (await io.approval("?", key="b")).by


async def with_a_queue(ctx, io):
    """Hand the answers to a main task that waits for nothing of `io`."""
    queue = asyncio.Queue()

    async def wait(key):
        await queue.put((await io.approval("?", key=key)).by)

    tasks = [asyncio.create_task(wait(key)) for key in "ab"]
    ctx["by"] = [await queue.get() for _ in tasks]
    await asyncio.wait(tasks)


async def beside_calls(ctx, io):
    async def call():
        return [str(await io.uuid()) for _ in range(3)]

    decision, ids, other = await asyncio.gather(io.approval("?", key="a"), call(), io.approval("?", key="b"))
    ctx["by"], ctx["ids"] = [decision.by, other.by], ids


def in_threads(ctx, io):
    with ThreadPoolExecutor(2) as pool:
        ctx["by"] = list(pool.map(lambda key: io.approval("?", key=key).by, "ab"))


def one_after_the_other(ctx, io):
    ctx["by"] = [io.approval("?", key="a").by, io.approval("?", key="b").by]


HANDLERS = [
    first_of_two,
    in_a_task_group,
    in_an_anyio_group,
    gathered_with_exceptions,
    the_same_wait_twice,
    with_a_queue,
    beside_calls,
    in_threads,
    one_after_the_other,
]


@pytest.mark.parametrize("order", ["ab", "ba", "both"])
@pytest.mark.parametrize("handler", HANDLERS)
def test_any_handler_goes_on_in_any_order_of_answers(store, config, handler, order):
    plan = plan_of(handler)
    result = machine.run(plan, store=store, config=config)
    assert result.status == "suspended", result.error
    replayed(plan, store, result)
    if order == "both":
        answer(store, result, "b")
        answer(store, result, "a")
    else:
        answer(store, result, order[0])
    result = machine.resume(result.run_id, plan=plan, store=store)
    while result.status == "suspended":
        replayed(plan, store, result)
        left = [wait.key for wait in result.waits]
        answer(store, result, left[0])
        result = machine.resume(result.run_id, plan=plan, store=store)
    assert (result.status, result.error) == ("completed", None)
    replayed(plan, store, result)
    assert len(events(store, result.run_id, WaitBegun)) == 2


def test_a_wait_that_is_given_up_is_recorded_so(store, config):
    plan = plan_of(first_of_two)
    result = machine.run(plan, store=store, config=config)
    answer(store, result, "b")
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.context["first"] == ["b"]
    outcomes = {fact.key: fact.outcome for fact in events(store, result.run_id, FactRecorded)}
    assert isinstance(outcomes["a"], FactError)
    assert outcomes["a"].error.code == Code.CALL_CANCELLED
    replayed(plan, store, result)


def test_a_retry_after_a_failure_has_the_answer(store, config):
    tries = []

    async def handler(ctx, io):
        ctx["by"] = (await io.approval("?", key="a", timeout=60)).by
        if not tries:
            tries.append(1)
            raise ValueError("once")

    plan = plan_of(handler, retry=RetryPolicy(2))
    if config.paranoid:
        return  # which finds that this handler is not deterministic
    result = machine.run(plan, store=store, config=config)
    answer(store, result, "a")
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.context == {"by": "ada"}
    assert [event.attempt for event in events(store, result.run_id, StateEntered)] == [0, 0, 1]
    tries.clear()
    replayed(plan, store, result)


def test_finally_blocks_and_context_managers_run_to_their_end(store):
    ended = []

    async def handler(ctx, io):
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(ended.append, "stack")
            try:
                await io.approval("?", key="a")
            finally:
                await asyncio.sleep(0.02)
                ended.append("finally")

    plan = plan_of(handler)
    result = machine.run(plan, store=store)
    assert (result.status, ended) == ("suspended", ["finally", "stack"])


def test_what_only_the_handler_itself_could_wake_is_cancelled(store):
    cancelled = []

    async def handler(ctx, io):
        async def never():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append("task")
                raise

        task = asyncio.create_task(never())
        waits = asyncio.create_task(io.approval("?", key="a"))
        await asyncio.wait([task])
        ctx["by"] = waits.result().by

    result = machine.run(plan_of(handler), store=store)
    assert (result.status, cancelled) == ("suspended", ["task"])


def test_the_time_limit_of_a_state_does_not_count_while_it_is_put_away(store):
    async def handler(ctx, io):
        ctx["by"] = (await io.approval("?", key="a")).by
        await asyncio.sleep(0.05)

    plan = plan_of(handler, timeout=5)
    result = machine.run(plan, store=store)
    answer(store, result, "a")
    assert machine.resume(result.run_id, plan=plan, store=store).status == "completed"


def test_a_state_that_exceeds_its_time_limit_after_an_answer_fails(store):
    async def handler(ctx, io):
        ctx["by"] = (await io.approval("?", key="a")).by
        await asyncio.sleep(30)

    plan = plan_of(handler, timeout=0.2)
    result = machine.run(plan, store=store)
    answer(store, result, "a")
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert (result.status, result.error.code) == ("failed", Code.STATE_TIMEOUT)


def test_a_wait_that_a_handler_leaves_behind_is_given_up(store):
    async def handler(ctx, io):
        ctx["task"] = 1
        held.append(asyncio.create_task(io.approval("?", key="a")))
        await io.now()

    held = []
    plan = plan_of(handler)
    result = machine.run(plan, store=store)
    assert (result.status, result.waits) == ("completed", ())
    replayed(plan, store, result)


def test_a_run_that_waits_can_be_cancelled(store, config):
    plan = plan_of(one_after_the_other)
    result = machine.run(plan, store=store, config=config)
    assert machine.cancel(result.run_id, store=store).status == "cancelled"
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def test_a_plain_handler_of_many_threads_is_put_away_once_they_rest(store):
    began = threading.Barrier(2, timeout=20)

    def handler(ctx, io):
        def work():
            began.wait()
            return str(io.uuid())

        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(work)
            began.wait()
            ctx["by"] = io.approval("?", key="a").by
            ctx["id"] = made.result()

    plan = plan_of(handler)
    result = machine.run(plan, store=store)
    assert result.status == "suspended"
    assert len(events(store, result.run_id, FactRecorded)) == 1
    answer(store, result, "a")
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.status == "completed"
    replayed(plan, store, result)


def test_a_thread_that_is_put_away_reports_no_exception(store):
    ended = []

    def handler(ctx, io):
        def ask():
            ended.append(io.approval("?", key="a").by)

        def fail():
            raise ValueError("a fault of the handler")

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join()
        if ended:
            ctx["by"] = ended.pop()
            failing = threading.Thread(target=fail)
            failing.start()
            failing.join()

    plan, seen = plan_of(handler), []
    report, threading.excepthook = threading.excepthook, seen.append
    try:
        result = machine.run(plan, store=store)
        assert (result.status, seen) == ("suspended", [])
        answer(store, result, "a")
        result = machine.resume(result.run_id, plan=plan, store=store)
        assert result.context == {"by": "ada"}
        assert [args.exc_type for args in seen] == [ValueError], "all other exceptions are reported"
        seen.clear()  # they hold the thread
    finally:
        threading.excepthook = report


def test_attempts_that_were_put_away_say_so(store):
    plan = plan_of(one_after_the_other)
    result = machine.run(plan, store=store)
    (failed,) = events(store, result.run_id, StateFailed)
    assert failed.suspended
