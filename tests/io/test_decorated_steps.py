"""`machine.step`: a function of the user's is a step wherever a handler calls it, and itself elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import machine
from machine import Plan, RunConfig, open_store, replay, run
from machine.config import FanOutJoin
from machine.engine.run_reader import PastRun
from machine.error_codes import Code
from machine.errors import StateError, UsageError
from machine.events import FactRecorded
from tests.io import functions_of_steps as functions

CONCURRENT = RunConfig(undeclared_io="error", execution_mode=FanOutJoin(3))


@pytest.fixture
def calls():
    functions.CALLS.clear()
    yield functions.CALLS
    functions.CALLS.clear()


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


def plan_of(handler, **meta):
    plan = Plan("steps")
    plan.state("a.one", **{"side_effects": "read_only_io", **meta})(handler)
    return plan


def recorded(store, handler, *, config=RunConfig(undeclared_io="error"), **meta):  # noqa: B008 - a value
    """Run a handler, replay it, and return the context and the facts of both."""
    plan = plan_of(handler, **meta)
    result = run(plan, store=store, config=config)
    assert result.status == "completed", result.error
    called = len(functions.CALLS)
    again = replay(result.run_id, plan=plan, store=store)
    assert again.divergence is None
    assert len(functions.CALLS) == called, "the replay called a function"
    entries = PastRun.read(result.run_id, store).entries
    return result.context, [entry.event for entry in entries if isinstance(entry.event, FactRecorded)]


def test_outside_of_a_run_a_step_is_the_function_itself(calls):
    assert functions.decorated(1) == 2
    assert asyncio.run(functions.decorated_async(1)) == 3
    assert functions.with_options()[0].x == 1
    assert functions.charge(5) == "charged 5"
    assert functions.decorated.__doc__ == "Return one more."
    assert str(inspect.signature(functions.decorated)) == "(x: 'int') -> 'int'"
    assert inspect.iscoroutinefunction(functions.decorated_async)


def test_an_async_handler_calls_both_kinds(store, calls):
    async def handler(ctx):
        ctx["async"] = await functions.decorated_async(1)
        ctx["plain"] = functions.decorated(3)
        ctx["thread"] = await asyncio.to_thread(functions.decorated, 5)
        ctx["executor"] = await asyncio.get_running_loop().run_in_executor(None, functions.decorated, 7)

    context, facts = recorded(store, handler)
    assert context == {"async": 3, "plain": 4, "thread": 6, "executor": 8}
    assert [fact.namespace for fact in facts] == ["step"] * 4, "the step inside a step was recorded too"


def test_a_plain_handler_calls_them_in_its_threads_too(store, calls):
    def handler(ctx):
        ctx["plain"] = functions.decorated(1)
        with ThreadPoolExecutor(2) as pool:
            ctx["pool"] = list(pool.map(functions.decorated, range(4)))
        found = []
        thread = threading.Thread(target=lambda: found.append(functions.decorated(10)))
        thread.start()
        thread.join()
        ctx["thread"] = found

    context, facts = recorded(store, handler, config=RunConfig(undeclared_io="allow"))
    assert context == {"plain": 2, "pool": [1, 2, 3, 4], "thread": [11]}
    assert len(facts) == 6


def test_its_options_hold_and_io_step_may_add_to_them(store, calls):
    async def handler(ctx, io):
        ctx["one"] = functions.with_options()[0].x
        ctx["two"] = (await io.step(functions.with_options))[0].x
        ctx["three"] = (await io.step(functions.with_options, name="other"))[0].x

    _, facts = recorded(store, handler)
    requests = [store.get(fact.request_digest) for fact in facts]
    assert requests == [b'{"args":{},"function":"renamed"}'] * 2 + [b'{"args":{},"function":"other"}']


def test_its_name_is_the_same_by_io_step_and_by_a_call(store, calls):
    async def handler(ctx, io):
        ctx["a"] = await io.step(functions.decorated, 1) + functions.decorated(1)

    _, facts = recorded(store, handler)
    assert facts[0].request_digest == facts[1].request_digest
    assert b'"tests.io.functions_of_steps:decorated"' in store.get(facts[0].request_digest)


def test_a_step_of_a_method_has_its_self_as_an_argument(store, calls):
    class Shop:
        def __init__(self):
            self.lock = threading.Lock()

        @machine.step(name="price", ignore_args=["self"])
        def price(self, item):
            return len(item)

    async def handler(ctx):
        ctx["price"] = Shop().price("pear")

    context, (fact,) = recorded(store, handler)
    assert context == {"price": 4}
    assert store.get(fact.request_digest) == b'{"args":{"item":"pear"},"function":"price"}'


def test_bad_options_are_refused_where_the_function_is_defined():
    with pytest.raises(UsageError, match="has no option 'nam'"):
        machine.step(nam="x")(functions.same)
    with pytest.raises(UsageError, match=r"name it: name="):
        machine.step(lambda x: x)
    with pytest.raises(UsageError, match="is a generator") as raised:
        machine.step(functions.numbers)
    assert raised.value.code == Code.INVALID_STEP


def test_a_task_left_behind_may_not_call_one(store, calls):
    left = []

    async def handler(ctx):
        async def later():
            await asyncio.sleep(0.02)
            try:
                functions.decorated(1)
            except StateError as exc:
                left.append(exc.code)

        left.append(asyncio.create_task(later()))

    async def whole():
        result = await machine.aio.run(plan_of(handler), store=store)
        await left[0]
        return result

    asyncio.run(whole())
    assert left[1:] == [Code.ATTEMPT_CLOSED]
    assert calls == []


# -- the event loop's own thread ---------------------------------------------------------------------------------


def test_on_the_loops_thread_the_fact_is_there_at_once(store, calls):
    async def handler(ctx, io):
        task = asyncio.create_task(io.now())
        ctx["first"] = functions.decorated(1)  # before the task has begun
        await task
        ctx["second"] = functions.decorated(1)

    context, facts = recorded(store, handler)
    assert context == {"first": 2, "second": 2}
    assert [fact.namespace for fact in facts] == ["step", "clock.now", "step"]
    assert len(calls) == 2


def test_in_a_replay_outcomes_that_were_recorded_before_it_are_let_through(store, calls):
    """A call whose outcome waits for its turn, and a plain step that comes after it without giving way."""

    async def handler(ctx, io):
        order = []

        async def one(name, seconds):
            await io.sleep(seconds)
            order.append(name)

        tasks = [asyncio.create_task(one(name, seconds)) for name, seconds in (("b", 0.02), ("a", 0.005))]
        await io.sleep(0.04)
        order.append(functions.decorated(1))
        await asyncio.gather(*tasks)
        ctx["order"] = order

    context, _ = recorded(store, handler)
    assert context["order"] == ["a", "b", 2]


def test_a_replay_that_does_not_give_way_lets_a_waiting_outcome_through(store, calls):
    """The handler has lost a pause between two plain steps, in which another task's outcome was recorded."""

    def plan(*, pauses):
        async def handler(ctx, io):
            task = asyncio.create_task(io.sleep(0.01))
            await asyncio.sleep(0)
            ctx["one"] = functions.decorated(1)
            if pauses:
                await asyncio.sleep(0.05)
            ctx["two"] = functions.decorated(2)
            await task

        return plan_of(handler)

    result = run(plan(pauses=True), store=store)
    namespaces = [
        entry.event.namespace
        for entry in PastRun.read(result.run_id, store).entries
        if isinstance(entry.event, FactRecorded)
    ]
    assert namespaces == ["step", "clock.sleep", "step"]
    assert replay(result.run_id, plan=plan(pauses=False), store=store).identical


def test_two_handlers_with_plain_steps_run_concurrently_and_replay(store, calls):
    plan = Plan("many")
    for name in ("one", "two", "three"):

        @(
            plan.state(f"a.{name}", side_effects="read_only_io", depends_on=[], writes=[name])
            if False
            else plan.state(f"a.{name}", side_effects="read_only_io")
        )
        async def handler(ctx, io, name=name):
            await io.sleep(0.001)
            ctx[name] = functions.decorated(len(name)) + await functions.decorated_async(1)

    result = run(plan, store=store, config=CONCURRENT)
    assert result.status == "completed", result.error
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_failure_on_the_loops_thread_is_raised_as_itself(store, calls):
    failing = machine.step(name="failing")(functions.fails)

    async def handler(ctx):
        try:
            failing("own")
        except functions.OwnError as exc:
            ctx["args"] = repr(exc.args)

    context, _ = recorded(store, handler)
    assert context == {"args": "({'a': 1}, (2,))"}


def test_an_effect_on_the_loops_thread_is_refused(store, calls):
    async def handler(ctx):
        functions.charge(1)

    plan = plan_of(handler, side_effects="apply_side_effect", idempotency="key-1")
    result = run(plan, store=store)
    assert (result.status, result.error.code) == ("failed", Code.INVALID_STEP)
    assert "await io.step" in result.error.message
    assert calls == []
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_plain_step_that_is_not_made_any_more_is_a_divergence_and_no_hang(store, calls):
    def plan(*, swapped):
        async def handler(ctx, io):
            if swapped:
                functions.decorated(2)
                functions.decorated(1)
            else:
                functions.decorated(1)
                functions.decorated(2)

        return plan_of(handler)

    result = run(plan(swapped=False), store=store)
    again = replay(result.run_id, plan=plan(swapped=True), store=store)
    assert str(again.divergence.kind) == "call_reordered"
