"""`io.step`: a function runs live with any IO, its result or exception is a fact, and a replay never calls it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import threading

import httpx
import pytest

from machine import Plan, RunConfig, open_store, replay, run
from machine.error_codes import Code
from machine.errors import ContextError, StateError, StepError, UsageError
from machine.events import FactRecorded
from tests.io import functions_of_steps as functions

ERROR = RunConfig(undeclared_io="error")


@pytest.fixture
def calls():
    functions.CALLS.clear()
    yield functions.CALLS
    functions.CALLS.clear()


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


@pytest.fixture
def recorded(store, calls):
    """Give a function that runs a handler, replays it, and returns what it returned live and in the replay."""

    def record(handler, *, config=ERROR, completes=True, **meta):
        said = []
        plan = Plan("steps")

        if asyncio.iscoroutinefunction(handler):

            @plan.state("a.one", **{"side_effects": "read_only_io", **meta})
            async def one(ctx, io, rec):
                said.append(await handler(ctx, io, rec))
        else:

            @plan.state("a.one", **{"side_effects": "read_only_io", **meta})
            def one(ctx, io, rec):
                said.append(handler(ctx, io, rec))

        result = run(plan, store=store, config=config)
        if completes:
            assert result.status == "completed", result.error
        called = len(calls)
        again = replay(result.run_id, plan=plan, store=store)
        assert again.divergence is None
        assert again.identical
        assert len(calls) == called, "the replay called a function"
        record.result = result
        record.plan = plan
        assert len(said) in {0, 2}
        return said

    return record


def facts(store, run_id):
    from machine.engine.run_reader import PastRun

    return [
        entry.event for entry in PastRun.read(run_id, store).entries if isinstance(entry.event, FactRecorded)
    ]


# -- values -----------------------------------------------------------------------------------------------------


def typed(value):
    """Return a value with the types of all of its parts."""
    if isinstance(value, dict):
        return dict, [(typed(key), typed(item)) for key, item in sorted(value.items(), key=repr)]
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    return type(value), repr(value), getattr(value, "fold", None), repr(getattr(value, "tzinfo", None))


@pytest.mark.parametrize("value", functions.RICH, ids=repr)
def test_arguments_and_results_come_back_with_their_types(recorded, value):
    async def handler(ctx, io, rec):
        return await io.step(functions.same, value), await io.step(functions.later, [value])

    live, again = recorded(handler)
    assert typed(live) == typed(again) == typed((value, [value]))


@pytest.mark.parametrize(
    "value",
    [
        functions.Point(1, functions.decimal.Decimal("1.0")),
        functions.Pair("a", [functions.Point(2, functions.decimal.Decimal(3))]),
        functions.model(),
        functions.Colour.RED,
        [{"deep": functions.Colour.RED}],
    ],
    ids=repr,
)
def test_classes_of_the_users_own_are_arguments(recorded, value):
    async def handler(ctx, io, rec):
        def compared(given, like):
            return [type(given).__name__, given == like, given is like]

        return await io.step(compared, value, value, name="compared", ignore_args=["like"])

    assert recorded(handler) == [[type(value).__name__, True, isinstance(value, functions.enum.Enum)]] * 2


@pytest.mark.parametrize("name", ["point", "pairs", "model", "colour"])
def test_the_annotation_of_a_function_is_the_type_of_its_result(recorded, name):
    function = getattr(functions, name)

    async def handler(ctx, io, rec):
        return await io.step(function, *([4] if name == "point" else []))

    live, again = recorded(handler)
    assert live == again == function(*([4] if name == "point" else []))
    assert type(live) is type(again)


def test_a_function_that_is_annotated_wrongly_is_believed_by_its_result(recorded):
    async def handler(ctx, io, rec):
        return await io.step(functions.lying)

    assert recorded(handler) == ["no int"] * 2


def test_an_argument_is_a_copy(recorded):
    def grow(items):
        items.append(1)
        return len(items)

    async def handler(ctx, io, rec):
        items = []
        count = await io.step(grow, items, name="grow")
        return count, items

    assert recorded(handler) == [(1, []), (1, [])]


def test_a_result_without_a_declared_type_is_refused_with_its_path_and_the_remedy(recorded):
    async def handler(ctx, io, rec):
        with pytest.raises(StepError) as raised:
            await io.step(functions.bare)
        rows = await io.step(functions.bare, returns=dict[str, list[functions.Point]], name="again")
        return raised.value.code, str(raised.value), rows["rows"][0].x

    live, again = recorded(handler)
    assert live == again
    assert live[::2] == ("step_result", 1)
    assert "tests.io.functions_of_steps:bare" in live[1]
    assert "$.rows[0]" in live[1]
    assert "returns=" in live[1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lock", "$.deep[0]: lock cannot be stored"),
        ("makes_generator", "generator is no result; return a list"),
        ("makes_coroutine", "coroutine is no result; await it"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(recorded, name, says):
    async def handler(ctx, io, rec):
        with pytest.raises(StepError) as raised:
            await io.step(getattr(functions, name))
        return raised.value.code, str(raised.value)

    live, again = recorded(handler)
    assert live == again
    assert live[0] == Code.STEP_RESULT
    assert f"the result of tests.io.functions_of_steps:{name} cannot be stored" in live[1]
    assert says in live[1]


def test_a_generator_function_is_refused_before_it_is_called(recorded):
    async def handler(ctx, io, rec):
        with pytest.raises(UsageError, match="numbers is a generator, and a step has one result") as raised:
            await io.step(functions.numbers)
        return raised.value.code

    assert recorded(handler) == [Code.INVALID_STEP] * 2


# -- the function and its arguments ------------------------------------------------------------------------------


def test_a_function_does_any_io_undeclared_and_in_its_threads(recorded, store, tmp_path):
    (tmp_path / "a").write_text("from a file")
    path = str(tmp_path / "a")

    async def handler(ctx, io, rec):
        one, two = await asyncio.gather(
            io.step(functions.worldly, path), io.step(functions.worldly_async, path)
        )
        return one, two

    live, again = recorded(handler)
    assert live == again
    assert live[0][3] == ["from a file"]
    assert live[1][1] == "from a file"
    assert {fact.namespace for fact in facts(store, recorded.result.run_id)} == {"step"}


def test_the_request_names_the_function_and_its_arguments(recorded, store):
    async def handler(ctx, io, rec):
        await io.step(functions.same, kwargs={"value": functions.dt.date(2026, 1, 2)})
        await io.step(functions.same, functions.dt.date(2026, 1, 2))
        await io.step(max, 1, 2)
        await io.step(functions.point, kwargs={"x": 1})

    recorded(handler)
    found = [store.get(fact.request_digest).decode() for fact in facts(store, recorded.result.run_id)]
    assert found == [
        '{"args":{"value":{"$date":"2026-01-02"}},"function":"tests.io.functions_of_steps:same"}',
        '{"args":{"value":{"$date":"2026-01-02"}},"function":"tests.io.functions_of_steps:same"}',
        '{"args":{"*args":[1,2]},"function":"builtins:max"}'.replace("[1,2]", '{"$tuple":[1,2]}'),
        '{"args":{"x":1},"function":"tests.io.functions_of_steps:point"}',
    ]


def test_a_plain_handler_calls_a_step_and_waits(recorded):
    def handler(ctx, io, rec):
        return io.step(functions.same, (1, 2)), io.step(functions.later, 3)

    assert recorded(handler) == [((1, 2), 3)] * 2


def test_a_lambda_a_local_and_a_partial_need_a_name(recorded):
    async def handler(ctx, io, rec):
        factor = 3

        def local(x):
            return x * factor

        for function in (lambda x: x, local, functools.partial(functions.same, 1)):
            with pytest.raises(UsageError, match="name it: name=") as raised:
                await io.step(function, *([] if isinstance(function, functools.partial) else [1]))
            assert raised.value.code == Code.INVALID_STEP
        return (
            await io.step(local, 2, name="local"),
            await io.step(lambda: factor, name="a lambda"),
            await io.step(functools.partial(functions.same, (7,)), name="a partial"),
        )

    assert recorded(handler) == [(6, 3, (7,))] * 2


def test_the_variables_around_a_function_are_arguments(recorded, store):
    async def handler(ctx, io, rec):
        seen = []

        def grow():
            seen.append(1)
            return len(seen)

        await io.step(grow, name="grow")
        await io.step(functools.partial(functions.same, value={"a": 1}), name="partial")
        return seen

    assert recorded(handler) == [[], []]
    found = [store.get(fact.request_digest).decode() for fact in facts(store, recorded.result.run_id)]
    assert found == [
        '{"args":{},"cells":{"seen":[]},"function":"grow"}',
        '{"args":{},"cells":{"value":{"a":1}},"function":"partial"}',
    ]


def test_a_variable_that_cannot_be_recorded_is_refused_by_name(recorded):
    async def handler(ctx, io, rec):
        lock = threading.Lock()
        with pytest.raises(
            UsageError, match=r"the variable around it lock of the step held cannot be recorded"
        ) as raised:
            await io.step(lambda: not lock.locked(), name="held")
        held = not await io.step(lambda: not lock.locked(), name="held", ignore_args="lock")
        with pytest.raises(UsageError, match="ctx"):
            await io.step(lambda: ctx["a"], name="uses ctx")
        return raised.value.code, held

    assert recorded(handler) == [(Code.STEP_ARGUMENT, False)] * 2


def test_a_bound_self_is_an_argument_or_refused(recorded, store):
    async def handler(ctx, io, rec):
        scale = functions.Scale(2)
        found = await io.step(scale.times, 10), scale.factor, await io.step(functions.Scale.make, 3)
        counter = functions.Counter(1)
        with pytest.raises(
            UsageError, match=r'the argument self of the step .*:Counter.up .*ignore_args=\("self",\)'
        ):
            await io.step(counter.up, 1)
        return *found, await io.step(counter.up, 1, ignore_args=["self"])

    assert recorded(handler) == [(30, 2, ["Scale", 3], 2)] * 2
    first = facts(store, recorded.result.run_id)[0]
    assert b'"self":{"$object":"Scale","value":{"factor":2}}' in store.get(first.request_digest)


def test_ignored_arguments_are_given_and_not_recorded(recorded, store):
    async def handler(ctx, io, rec):
        connection = threading.Lock()

        def load(conn, day):
            return conn.locked(), day

        with pytest.raises(UsageError, match="the argument conn of the step load cannot be recorded: lock"):
            await io.step(load, connection, "monday", name="load")
        with pytest.raises(UsageError, match="has no argument con, which ignore_args names"):
            await io.step(load, connection, "monday", name="load", ignore_args=["con"])
        return await io.step(load, connection, "monday", name="load", ignore_args=("conn",))

    assert recorded(handler) == [(False, "monday")] * 2
    (fact,) = facts(store, recorded.result.run_id)
    assert store.get(fact.request_digest) == b'{"args":{"day":"monday"},"function":"load"}'


def test_a_wrong_call_is_refused_before_anything_is_recorded(recorded, store):
    async def handler(ctx, io, rec):
        found = []
        for function, options in (
            (functions.point, {}),
            (functions.Point, {}),
            (functions.same, {"timeout": 0}),
            (functions.same, {"tries": 2}),
            (functions.same, {"on": "moon"}),
            (functions.later, {"on": "thread"}),
            (functions.same, {"name": ""}),
            (functions.same, {"raises": [int]}),
            (functions.same, {"colour": 1}),
        ):
            with pytest.raises(UsageError) as raised:
                await io.step(function, **options)
            found.append(raised.value.code)
        return set(found)

    assert recorded(handler) == [{Code.INVALID_STEP}] * 2
    assert facts(store, recorded.result.run_id) == []


# -- exceptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "cls", "text"),
    [
        ("value", ValueError, "('bad', 1)"),
        ("missing", FileNotFoundError, "[Errno 2] No such file or directory: '/nonexistent/file'"),
        ("own", functions.OwnError, "({'a': 1}, (2,))"),
        ("odd", functions.OddError, "4: odd"),
    ],
)
def test_an_exception_that_can_be_rebuilt_is_raised_as_itself(recorded, kind, cls, text):
    async def handler(ctx, io, rec):
        try:
            await io.step(functions.fails, kind)
        except Exception as exc:  # noqa: BLE001 - whatever it is
            return type(exc), str(exc), exc.args, vars(exc), getattr(exc, "filename", None)

    live, again = recorded(handler)
    assert live == again
    assert live[:2] == (cls, text)


@pytest.mark.parametrize(
    ("kind", "name", "code", "retryable", "causes"),
    [
        ("unkeepable", "UnkeepableError", "step_failed", True, ()),
        ("cause", "UnkeepableError", "step_failed", True, ("KeyError: 'first'",)),
        ("foreign", "PydanticUserError", "step_failed", True, ()),
        ("exit", "SystemExit", "step_failed", True, ()),
        ("failure", "Failure", "out_of_stock", False, ()),
    ],
)
def test_any_other_exception_is_a_step_error_live_too(recorded, kind, name, code, retryable, causes):
    async def handler(ctx, io, rec):
        with pytest.raises(StepError) as raised:
            await io.step(functions.fails, kind)
        exc = raised.value
        return exc.exception, exc.code, exc.retryable, exc.causes, str(exc)

    live, again = recorded(handler)
    assert live == again
    assert live[:4] == (name, code, retryable, causes)
    assert live[4].startswith(f"{name}: ")


def test_a_class_in_raises_is_raised_as_itself(recorded):
    async def handler(ctx, io, rec):
        with pytest.raises(httpx.ConnectTimeout, match="slow"):
            await io.step(_slow, name="slow", raises=httpx.ConnectTimeout)
        with pytest.raises(StepError, match="ConnectTimeout: slow"):
            await io.step(_slow, name="slow 2")
        return True

    assert recorded(handler) == [True, True]


def _slow():
    raise httpx.ConnectTimeout("slow")


def test_no_class_is_imported_because_a_recording_names_it(recorded, monkeypatch):
    """The class has gone from the module: the replay raises the substitute, and does not look for it elsewhere."""

    async def handler(ctx, io, rec):
        try:
            await io.step(functions.fails, "own")
        except Exception as exc:  # noqa: BLE001 - whatever it is
            return type(exc).__name__

    plan = Plan("gone")
    said = []

    @plan.state("a.one", side_effects="read_only_io")
    async def one(ctx, io):
        said.append(await handler(ctx, io, None))

    with open_store("memory://") as store:
        result = run(plan, store=store)
        monkeypatch.delattr(functions, "OwnError")
        replay(result.run_id, plan=plan, store=store)
    assert said == ["OwnError", "StepError"]


def test_the_place_where_a_function_failed_is_in_the_trace_of_the_attempt(store, calls):
    plan = Plan("fails")

    @plan.state("a.one", side_effects="read_only_io")
    async def one(ctx, io):
        await io.step(functions.fails, "value")

    result = run(plan, store=store)
    assert result.error.message == "ValueError: ('bad', 1)"
    from machine.engine.run_reader import PastRun

    (trace,) = [
        entry.info["trace"] for entry in PastRun.read(result.run_id, store).entries if "trace" in entry.info
    ]
    assert trace.splitlines()[0].startswith("test_steps.py:")
    assert trace.splitlines()[-1].startswith("functions_of_steps.py:")
    assert replay(result.run_id, plan=plan, store=store).identical


# -- inside a step -----------------------------------------------------------------------------------------------


def _refused(use):
    try:
        use()
    except (StateError, ContextError) as exc:
        return exc.code
    return "allowed"


async def _refused_async(use):
    try:
        await use()
    except StateError as exc:
        return exc.code
    return "allowed"


def test_io_rec_and_writes_are_refused_inside_a_step_and_in_its_threads(recorded):
    async def handler(ctx, io, rec):
        ctx["before"] = 1

        async def uses():
            found = [
                await _refused_async(io.now),
                await _refused_async(lambda: io.step(functions.same, 1)),
                await _refused_async(lambda: rec.emit_many([])),
                _refused(lambda: ctx.update(a=1)),
                _refused(lambda: ctx.pop("before")),
                await asyncio.to_thread(_refused, lambda: ctx.update(a=1)),
                await asyncio.get_running_loop().run_in_executor(None, _refused, lambda: ctx.update(a=1)),
            ]
            thread = threading.Thread(target=lambda: found.append(_refused(lambda: ctx.update(a=1))))
            thread.start()
            await asyncio.to_thread(thread.join)
            return found, ctx["before"]

        return await io.step(uses, name="uses", ignore_args=["io", "rec", "ctx"])

    assert recorded(handler) == [([Code.IO_IN_STEP] * 8, 1)] * 2


def test_io_of_a_plain_handler_is_refused_inside_a_step_and_in_its_threads(recorded):
    def handler(ctx, io, rec):
        def uses():
            found = [_refused(io.now)]
            thread = threading.Thread(target=lambda: found.append(_refused(io.now)))
            thread.start()
            thread.join()
            return found

        return io.step(uses, name="uses", ignore_args=["io"])

    assert recorded(handler) == [[Code.IO_IN_STEP] * 2] * 2


def test_a_step_that_lets_the_refusal_through_fails_with_its_code(recorded):
    async def handler(ctx, io, rec):
        with pytest.raises(StepError) as raised:
            await io.step(lambda: ctx.update(a=1), name="writes", ignore_args=["ctx"])
        return raised.value.code, raised.value.retryable

    assert recorded(handler) == [(Code.IO_IN_STEP, False)] * 2


def test_other_steps_and_recorded_clients_run_plainly_inside_a_step(recorded, store, serve_bytes):
    url = serve_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

    async def handler(ctx, io, rec):
        transport = io.httpx_transport()

        async def outer():
            async with httpx.AsyncClient(transport=transport) as client:
                text = (await client.get(url)).text

            def block():
                with httpx.Client(transport=transport) as client:
                    return client.get(url).text

            return (
                text,
                await asyncio.to_thread(block),
                functions.decorated(1),
                await functions.decorated_async(1),
            )

        return await io.step(outer, name="outer", ignore_args=["transport"])

    assert recorded(handler) == [("ok", "ok", 2, 3)] * 2
    assert [fact.namespace for fact in facts(store, recorded.result.run_id)] == ["step"]


def test_a_run_inside_a_step_is_a_run_of_its_own(recorded):
    inner = Plan("inner")

    @inner.state("a.one", side_effects="read_only_io")
    async def one(ctx, io):
        ctx["a"] = await io.step(functions.same, 1) + functions.decorated(1)

    async def handler(ctx, io, rec):
        def nested():
            with open_store("memory://") as store:
                result = run(inner, store=store)
                return result.context, replay(result.run_id, plan=inner, store=store).identical

        return await io.step(nested, name="nested", ignore_args=["inner"])

    assert recorded(handler) == [({"a": 3}, True)] * 2


# -- racing and giving up ----------------------------------------------------------------------------------------


def test_racing_steps_come_in_the_recorded_order(recorded):
    async def handler(ctx, io, rec):
        order = []

        async def one(name, seconds):
            def work():
                threading.Event().wait(seconds)

            await io.step(work, name=name, ignore_args=["seconds"])
            order.append(name)

        await asyncio.gather(one("slow", 0.03), one("quick", 0), one("middle", 0.015))
        return order

    live, again = recorded(handler)
    assert live == again


def test_a_step_that_the_handler_gives_up_is_recorded_as_such(recorded, store):
    async def handler(ctx, io, rec):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(io.step(asyncio.sleep, 60, name="sleep"), 0.02)
        return "gave up"

    assert recorded(handler, config=RunConfig(undeclared_io="allow")) == ["gave up"] * 2
    (fact,) = facts(store, recorded.result.run_id)
    assert fact.given_up


def test_a_coroutine_as_a_result_leaves_no_warning(recorded, recwarn):
    async def handler(ctx, io, rec):
        with pytest.raises(StepError):
            await io.step(functions.makes_coroutine)

    recorded(handler)
    gc.collect()
    assert [str(each.message) for each in recwarn if "never awaited" in str(each.message)] == []


def test_a_changed_argument_is_the_divergence_and_is_named(store, calls):
    def plan_of(day):
        plan = Plan("days")

        @plan.state("a.one", side_effects="read_only_io")
        async def one(ctx, io):
            await io.step(functions.same, {"day": day})

        return plan

    result = run(plan_of("monday"), store=store)
    again = replay(result.run_id, plan=plan_of("tuesday"), store=store)
    assert str(again.divergence.kind) == "request_changed"
    assert again.divergence.summary == "the argument value of the step same changed"
    assert [change.pointer for change in again.divergence.changes] == ["/request/args/value/day"]


def test_the_transport_of_steps_needs_a_function(recorded):
    async def handler(ctx, io, rec):
        from machine import IoError

        with pytest.raises(IoError, match="step needs a function"):
            await io.call("step", {"function": "a:b", "args": {}})

    recorded(handler)
