"""Facts: identity is path, not position; every call is recorded; live equals replayed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random

import anyio
import pytest
from crashes import left_after
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import machine
from machine import MachineError, Plan, RetryPolicy, RunConfig, replay, run
from machine.codec import decode_entry
from machine.engine import start_and_resume
from machine.errors import ConfigError
from machine.stores import MemoryStore
from machine.torture import crash_matrix


def facts_of(store, run_id):
    entries = (decode_entry(stored.seq, stored.data) for stored in store.read_range(run_id))
    return [entry.event for entry in entries if entry.event.type == "fact_recorded"]


def one_state(handler, **options):
    plan = Plan("op")
    plan.state("step.only", **options)(handler)
    return plan


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=12,
)


@given(json_values)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_live_value_equals_its_replayed_value(scripted, value):
    seen = []

    async def handler(ctx, io, rec):
        response = (await io.call("world", {"v": value})).response
        seen.append(repr(response))
        ctx["kept"] = response
        seen.append(repr(ctx["kept"]))

    plan = one_state(handler)
    with MemoryStore() as store:
        result = run(plan, store=store, transports={"world": scripted(lambda request: value)})
        assume(result.error is None or result.error.code != "secret_in_context")
        assert result.status == "completed", result.error
        assert replay(result.run_id, plan=plan, store=store).identical
    assert seen[:2] == seen[2:], "the same types, not only equal values"


def test_one_more_call_renumbers_nothing(store, scripted):
    async def two(ctx, io, rec):
        ctx["a"] = (await io.call("world", "a")).fact_key
        ctx["b"] = (await io.call("world", "b")).fact_key

    async def three(ctx, io, rec):
        await io.call("world", "new")
        await two(ctx, io, rec)

    contexts = [
        run(one_state(handler), store=store, transports={"world": scripted()}).context
        for handler in (two, three)
    ]
    assert contexts[0] == contexts[1]


def test_the_same_call_twice_is_two_facts(store, scripted):
    answers = iter(range(10))

    async def handler(ctx, io, rec):
        ctx["got"] = [(await io.call("world", "same")).response for _ in range(3)]

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": scripted(lambda request: next(answers))})
    assert result.context["got"] == [0, 1, 2]
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_explicit_key_is_single_assignment_for_the_run(store, scripted):
    world = scripted(lambda request: random.random())
    plan = Plan("op")

    @plan.state("step.first")
    async def first(ctx, io, rec):
        results = await asyncio.gather(*(io.call("world", {}, fact_key="price") for _ in range(3)))
        ctx["first"] = [result.response for result in results]

    @plan.state("step.second", after=[first])
    async def second(ctx, io, rec):
        ctx["second"] = (await io.call("world", {}, fact_key="price")).response
        ctx["looked_up"] = io.get_recorded_fact("price")

    result = run(plan, store=store, transports={"world": world})
    assert len(world.asked) == 1
    assert {*result.context["first"], result.context["second"], result.context["looked_up"]} == {
        result.context["second"]
    }
    assert replay(result.run_id, plan=plan, store=store).identical


def test_one_key_with_another_request_is_refused(store, scripted):
    async def handler(ctx, io, rec):
        await io.call("world", {"n": 1}, fact_key="price")
        await io.call("world", {"n": 2}, fact_key="price")

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": scripted()})
    assert result.error.code == "fact_key_conflict"
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_error_under_an_explicit_key_may_be_tried_again_by_the_next_attempt(store, scripted):
    answers = iter([machine.errors.TransportError("down", code="http_connect", retryable=True), 7])
    plan = one_state(None or _keyed, retry=RetryPolicy(2))
    result = run(plan, store=store, transports={"world": scripted(lambda request: next(answers))})
    assert (result.status, result.context) == ("completed", {"got": 7})
    assert replay(result.run_id, plan=plan, store=store).identical


async def _keyed(ctx, io, rec):
    ctx["got"] = (await io.call("world", {}, fact_key="price")).response


def test_a_retry_of_a_read_only_state_starts_fresh(store, scripted):
    answers = iter([1, 2, 3])

    async def handler(ctx, io, rec):
        if (await io.call("world", "poll")).response < 3:
            raise ValueError("not yet")

    world = scripted(lambda request: next(answers))
    plan = one_state(handler, retry=RetryPolicy(5))
    result = run(plan, store=store, transports={"world": world})
    assert (result.status, len(world.asked)) == ("completed", 3)
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_retry_of_an_effect_state_keeps_every_successful_fact(store, scripted):
    tries = []

    async def handler(ctx, io, rec):
        await io.call("outside", {"do": 1})
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("after the effect")

    outside = scripted(effect=True)
    plan = one_state(handler, side_effects="apply_side_effect", idempotency="k", retry=RetryPolicy(5))
    result = run(plan, store=store, transports={"outside": outside})
    assert (result.status, len(tries), len(outside.asked)) == ("completed", 3, 1)


def test_errors_are_facts_with_the_same_class_and_words(store, scripted):
    raised = [
        machine.errors.TransportError("down", code="http_connect", retryable=True, details={"host": "h"}),
        machine.errors.RateLimitedError("slow", retry_after=3),
        machine.errors.MissingFactError("none"),
        machine.errors.OtherIoError("refused", code="exec_not_allowed"),
    ]
    seen = []

    async def handler(ctx, io, rec):
        for number in range(len(raised)):
            try:
                await io.call("world", number)
            except MachineError as exc:
                seen.append((type(exc), exc.info, getattr(exc, "retry_after", None)))

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": scripted(lambda number: raised[number])})
    assert replay(result.run_id, plan=plan, store=store).identical
    assert seen[:4] == seen[4:]
    assert [item[0] for item in seen[:4]] == [type(exc) for exc in raised]
    assert seen[1][2] == 3


def test_a_transport_that_breaks_is_a_recorded_error(store, scripted):
    def broken(request):
        raise ZeroDivisionError("a bug")

    async def handler(ctx, io, rec):
        await io.call("world", {})

    plan = one_state(handler)
    for answer in (broken, lambda request: object()):
        result = run(plan, store=store, transports={"world": scripted(answer)})
        assert result.error.code == "io_transport_failed"
        assert replay(result.run_id, plan=plan, store=store).identical


def test_the_longest_registered_prefix_answers(store, scripted):
    async def handler(ctx, io, rec):
        ctx["got"] = [(await io.call(name, 0)).response for name in ("a", "a.b", "a.b.c", "a.x")]

    transports = {"a": scripted(lambda request: "a"), "a.b": scripted(lambda request: "a.b")}
    assert run(one_state(handler), store=store, transports=transports).context["got"] == [
        "a",
        "a.b",
        "a.b",
        "a",
    ]


def test_a_request_that_is_not_json_is_refused_and_not_recorded(store, scripted):
    async def handler(ctx, io, rec):
        await io.call("world", {"k": {1, 2}})

    result = run(one_state(handler), store=store, transports={"world": scripted()})
    assert result.error.code == "not_json"
    assert facts_of(store, result.run_id) == []


def test_a_second_effect_with_the_same_key_is_refused(store, scripted):
    async def handler(ctx, io, rec):
        await io.call("outside", {"n": 1})
        await io.call("outside", {"n": 2})

    plan = one_state(handler, side_effects="apply_side_effect", idempotency="k")
    outside = scripted(effect=True)
    result = run(plan, store=store, transports={"outside": outside})
    assert (result.error.code, len(outside.asked)) == ("idempotency_key_reused", 1)


@pytest.mark.parametrize("key", ["", 7, None])
def test_an_idempotency_function_must_give_a_key(store, key):
    plan = one_state(lambda ctx, io, rec: None, side_effects="apply_side_effect", idempotency=lambda ctx: key)
    assert run(plan, store=store).error.code == "invalid_idempotency_key"


def test_an_idempotency_key_can_be_computed_from_the_context(store, scripted):
    async def handler(ctx, io, rec):
        await io.call("outside", {"n": 1})

    outside = scripted(effect=True)
    plan = one_state(
        handler, side_effects="apply_side_effect", idempotency=lambda ctx: f"order-{ctx['order']}"
    )
    run(plan, input={"order": 7}, store=store, transports={"outside": outside})
    assert outside.asked == [{"key": "order-7", "n": 1}]


@pytest.fixture
def by_an_earlier_version(monkeypatch):
    """Let a run be started as an earlier version did: there may be recordings of it."""
    monkeypatch.setattr(start_and_resume, "check_startable", lambda config, **_: None)


def test_a_run_in_replay_mode_never_goes_outside(store, scripted, by_an_earlier_version):
    async def handler(ctx, io, rec):
        await io.call("world", {}, fact_key="named")

    async def without_a_key(ctx, io, rec):
        await io.call("world", {})

    world = scripted()
    for each, code in ((handler, "missing_fact"), (without_a_key, "missing_fact_key")):
        plan = one_state(each, retry=RetryPolicy(2))
        result = run(plan, store=store, transports={"world": world}, config=RunConfig(io_mode="replay"))
        assert (result.error.code, result.error.retryable, world.asked) == (code, False, [])
    config = RunConfig(io_mode="replay", replay_missing_fact_retryable=True)
    result = run(plan, store=store, transports={"world": world}, config=config)
    assert result.error.retryable
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize(
    "config",
    [RunConfig(io_mode="replay"), RunConfig(replay_missing_fact_retryable=True)],
    ids=["mode", "retryable"],
)
def test_a_run_that_could_never_work_is_refused_before_anything_is_written(store, config):
    plan = one_state(lambda ctx, io, rec: None)
    for start in (
        functools.partial(machine.run, store=store),
        functools.partial(machine.dry_run, store=store),
        crash_matrix,
    ):
        with pytest.raises(ConfigError) as caught:
            start(plan, config=config)
        assert caught.value.code == "invalid_config"
    assert not store.list_runs().rows


def test_a_run_in_replay_mode_that_was_left_open_is_resumed_as_it_was_started(
    store, scripted, by_an_earlier_version, monkeypatch
):
    async def handler(ctx, io, rec):
        await io.call("world", {}, fact_key="named")

    world, plan = scripted(), one_state(handler)
    ended = run(plan, store=store, transports={"world": world}, config=RunConfig(io_mode="replay"))
    monkeypatch.undo()
    for length in range(1, ended.head_seq):
        left = left_after(store, ended.run_id, length)
        result = machine.resume(left, plan=plan, store=store, transports={"world": world})
        assert (result.status, result.error.code, world.asked) == ("failed", "missing_fact", [])


def test_an_effect_in_replay_mode_is_neither_intended_nor_sent(store, scripted, by_an_earlier_version):
    async def handler(ctx, io, rec):
        await io.call("outside", {})

    outside = scripted(effect=True)
    plan = one_state(handler, side_effects="apply_side_effect", idempotency="k")
    config = RunConfig(io_mode="replay")
    result = run(plan, store=store, transports={"outside": outside}, config=config)
    assert (result.error.code, outside.asked) == ("missing_fact_key", [])
    assert b"effect_intended" not in b"".join(event.data for event in store.read_range(result.run_id))
    assert replay(result.run_id, plan=plan, store=store, transports={"outside": outside}).identical


def test_what_is_sent_is_what_was_recorded_although_the_handler_changes_its_object(store, scripted):
    async def handler(ctx, io, rec):
        request = {"n": 1, "delay": 0.01}
        call = asyncio.ensure_future(io.call("world", request, fact_key="a"))
        await asyncio.sleep(0)
        request["n"] = 2
        ctx["got"] = (await call).response

    result = run(one_state(handler), store=store, transports={"world": scripted()})
    assert result.context["got"]["n"] == 1


# -- races ----------------------------------------------------------------------------------------------------


async def gathered(ctx, io, rec):
    async def one(number):
        result = await io.call("world", {"n": number, "delay": random.random() / 100})
        order.append(number)
        await rec.emit(machine.DomainEvent("came", {"n": number}))
        return result.response["n"]

    order: list[int] = []
    ctx["all"] = await asyncio.gather(*(one(number) for number in range(10)))
    ctx["order"] = order


def jittered(rnd):
    """Return a transport that answers after a delay that no handler asked for, so that runs differ."""

    class Jitter(machine.io.transport.BaseTransport):
        async def perform(self, namespace, request):
            await asyncio.sleep(rnd.random() / 100)
            return request

    return Jitter()


@pytest.mark.parametrize("seed", range(6))
def test_ten_calls_that_race_replay_to_the_recorded_order(store, seed):
    async def handler(ctx, io, rec):
        order = []

        async def one(number):
            await io.call("world", {"n": number})
            order.append(number)
            await rec.emit(machine.DomainEvent("came", {"n": number}))

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(one, number)
        ctx["order"] = order

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": jittered(random.Random(seed))})
    assert result.context["order"] != sorted(result.context["order"])
    for _ in range(5):
        assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("seed", range(6))
def test_the_first_of_several_calls_wins_again_and_the_cancelled_ones_stay_cancelled(store, seed):
    async def handler(ctx, io, rec):
        winners = []
        left = {asyncio.create_task(io.call("world", {"n": number})) for number in range(5)}
        for _ in range(3):
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            winners.append(sorted(task.result().response["n"] for task in done))
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        ctx["winners"] = winners
        ctx["after"] = (await io.call("world", {"n": 99})).response["n"]

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": jittered(random.Random(seed))})
    assert result.status == "completed", result.error
    for _ in range(5):
        assert replay(result.run_id, plan=plan, store=store).divergence is None


def test_a_call_the_handler_gave_up_on_is_given_up_again(store, scripted):
    async def handler(ctx, io, rec):
        with anyio.move_on_after(0.05) as limit:
            await io.call("world", {"delay": 30})
        ctx["gave_up"] = limit.cancelled_caught

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": scripted()})
    assert result.context == {"gave_up": True}
    assert [fact.outcome.error.code for fact in facts_of(store, result.run_id)] == ["call_cancelled"]
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("left", ["gather", "task", "explicit key"])
def test_calls_that_a_handler_leaves_in_flight_are_given_up_and_recorded_so(store, scripted, left):
    def answer(request):
        return machine.errors.OtherIoError("boom", retryable=True) if request.get("fail") else request

    async def handler(ctx, io, rec):
        key = "same" if left == "explicit key" else None
        calls = [
            io.call("world", {"delay": 0.01, "fail": 1}),
            io.call("world", {"delay": 30}, key),
            io.call("world", {"delay": 30}, key),
        ]
        if left == "task":
            kept.extend(asyncio.ensure_future(call) for call in calls)
            await asyncio.sleep(0.05)
            raise ValueError("leaves all behind")
        await asyncio.gather(*calls)

    kept = []
    plan = one_state(handler, retry=RetryPolicy(2))
    result = run(plan, store=store, transports={"world": scripted(answer)})
    assert result.status == "failed"
    assert machine.verify(result.run_id, store=store).ok
    codes = [fact.outcome.error.code for fact in facts_of(store, result.run_id)]
    assert codes == ["io_transport_failed", *["call_cancelled"] * (1 if left == "explicit key" else 2)] * 2
    if left != "task":  # there, the moment of leaving is a timer of the handler's own
        assert replay(result.run_id, plan=plan, store=store).divergence is None
    for task in kept:
        assert isinstance(task.exception(), MachineError)


def test_a_task_group_with_one_failure_fails_with_that_failure(store, scripted):
    async def handler(ctx, io, rec):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(io.call, "world", {"delay": 30})
            tasks.start_soon(io.call, "world", {"fail": 1})

    def answer(request):
        return machine.errors.TransportError("gone", code="http_status") if request.get("fail") else request

    plan = one_state(handler, retry=RetryPolicy(5))
    result = run(plan, store=store, transports={"world": scripted(answer)})
    assert (result.error.code, result.error.retryable, result.error.message) == ("http_status", False, "gone")
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize(
    "raised",
    [
        machine.errors.TransportError("down", details={"amount": object()}),
        machine.errors.TransportError("a lone surrogate \ud800"),
        machine.errors.TransportError("down", code="Not A Code"),
        machine.errors.OtherIoError("claims to be cancelled", code="call_cancelled"),
        machine.errors.OtherIoError("claims a crash", code="orphan_attempt_recovered"),
        machine.errors.TransportError("deep", details={"deep": True}),
    ],
    ids=["no json", "surrogate", "no code", "cancelled", "orphan", "deep"],
)
def test_whatever_error_a_transport_raises_is_a_fact_that_replays(store, scripted, raised):
    if raised.message == "deep":
        deep = functools.reduce(lambda inner, _: [inner], range(2000), 0)
        raised = machine.errors.TransportError("deep", details={"deep": deep})

    async def handler(ctx, io, rec):
        await io.call("world", {})

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": scripted(lambda request: raised)})
    assert result.status == "failed"
    assert len(facts_of(store, result.run_id)) == 1
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_response_too_large_to_keep_fails_the_call_and_not_the_store(store, scripted, monkeypatch):
    monkeypatch.setattr("machine.io.live_io.MAX_VALUE_BYTES", 100)

    async def handler(ctx, io, rec):
        await io.call("world", {})

    result = run(one_state(handler), store=store, transports={"world": scripted(lambda request: "x" * 200)})
    assert result.error.code == "artifact_too_large"


async def racing(ctx, io, rec):
    tasks = [asyncio.create_task(io.call("outside", number)) for number in range(4)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    ctx["at once"] = len(done)
    await asyncio.wait(tasks)


async def interleaving(ctx, io, rec):
    order = []

    async def says():
        await rec.emit(machine.DomainEvent("noted"))
        order.append("says")
        await io.record_value("key", 1)
        order.append("records")

    async def only():
        order.append("only")

    await asyncio.gather(says(), only())
    ctx["order"] = order


async def giving_up_late(ctx, io, rec):
    try:
        async with asyncio.timeout(1.6):
            await io.call("outside", {"delay": 30})
    except TimeoutError:
        ctx["gave up"] = True


@pytest.mark.parametrize("handler", [racing, interleaving, giving_up_late])
@pytest.mark.parametrize("effect", [True, False])
def test_what_a_handler_sees_of_its_tasks_replays(store, scripted, handler, effect):
    declared = {"side_effects": "apply_side_effect", "idempotency": "k"} if effect else {}
    outside = scripted(effect=effect)
    outside.one_effect_per_key = False
    outside.with_idempotency_key = lambda namespace, request, key: request
    plan = one_state(handler, **declared)
    result = run(plan, store=store, transports={"outside": outside})
    assert result.status == "completed", result.error
    assert replay(result.run_id, plan=plan, store=store).divergence is None


def test_an_effect_that_the_handler_itself_tried_again_is_not_repeated(store, scripted):
    answers = iter([machine.errors.TransportError("down", retryable=True), "paid", "paid twice"])
    tries = []

    async def handler(ctx, io, rec):
        for _ in range(2):
            with contextlib.suppress(machine.errors.TransportError):
                ctx["got"] = (await io.call("outside", {"do": 1})).response
                break
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("after the effect")

    outside = scripted(lambda request: next(answers), effect=True)
    plan = one_state(handler, side_effects="apply_side_effect", idempotency="k", retry=RetryPolicy(2))
    result = run(plan, store=store, transports={"outside": outside})
    assert (result.context, len(outside.asked)) == ({"got": "paid"}, 2)


def test_an_answer_that_asks_to_try_again_is_not_reused(store, scripted):
    answers = iter([{"status": 503}, {"status": 200}])

    async def handler(ctx, io, rec):
        answer = (await io.call("outside", {"do": 1})).response
        if answer["status"] != 200:
            raise ValueError("busy")

    outside = scripted(lambda request: next(answers), effect=True)
    outside.is_final = lambda namespace, response: response["status"] == 200
    plan = one_state(handler, side_effects="apply_side_effect", idempotency="k", retry=RetryPolicy(3))
    result = run(plan, store=store, transports={"outside": outside})
    assert (result.status, len(outside.asked)) == ("completed", 2)
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.slow
@pytest.mark.long
def test_a_thousand_calls_that_race_replay_in_time_that_does_not_grow_with_their_number(store, scripted):
    async def handler(ctx, io, rec):
        answers = await asyncio.gather(*(io.call("world", {"n": number}) for number in range(1000)))
        ctx["sum"] = sum(answer.response["n"] for answer in answers)

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": jittered(random.Random(1))})
    assert result.context["sum"] == 499_500
    assert replay(result.run_id, plan=plan, store=store).divergence is None


def test_a_call_given_up_under_a_shared_key_is_made_again_for_who_still_waits(store, scripted):
    async def handler(ctx, io, rec):
        async def first():
            with anyio.move_on_after(0.02):
                await io.call("world", {"delay": 0.2}, fact_key="shared")

        async def second():
            await asyncio.sleep(0.005)
            ctx["second"] = (await io.call("world", {"delay": 0.2}, fact_key="shared")).response

        await asyncio.gather(first(), second())

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": scripted()})
    assert result.context == {"second": {"delay": 0.2}}, result.error
    assert replay(result.run_id, plan=plan, store=store).divergence is None


def test_a_request_too_large_to_keep_fails_the_call_and_not_the_store(store, scripted, monkeypatch):
    monkeypatch.setattr("machine.io.provider.MAX_VALUE_BYTES", 100)

    async def handler(ctx, io, rec):
        await io.call("world", "x" * 200)

    result = run(one_state(handler), store=store, transports={"world": scripted()})
    assert result.error.code == "artifact_too_large"


class LeavesError(BaseException):
    def __str__(self):
        raise RuntimeError("even its text fails")


@pytest.mark.parametrize("raised", [SystemExit(3), LeavesError(), machine.Failure("x", retryable="soon")])
def test_whatever_a_transport_raises_the_call_has_a_fact(store, scripted, raised):
    def answer(request):
        raise raised

    async def handler(ctx, io, rec):
        await io.call("world", {})

    plan = one_state(handler)
    result = run(plan, store=store, transports={"world": scripted(answer)})
    assert (result.status, len(facts_of(store, result.run_id))) == ("failed", 1)
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_error_reaches_the_handler_as_its_transport_raised_it(store, scripted):
    raised = [
        machine.errors.TransportError("down", code="http_connect", retryable=True, details={"host": "h"}),
        machine.errors.RateLimitedError("slow", retry_after=3),
        machine.errors.OtherIoError("refused", code="exec_not_allowed", hint="allow it"),
    ]
    seen = []

    async def handler(ctx, io, rec):
        for number in range(len(raised)):
            try:
                await io.call("world", number)
            except MachineError as exc:
                seen.append((type(exc), exc.info))

    run(one_state(handler), store=store, transports={"world": scripted(lambda number: raised[number])})
    assert seen == [(type(exc), exc.info) for exc in raised]


def test_a_value_that_a_handler_records_comes_back_as_replay_will_give_it(store):
    seen = []

    async def handler(ctx, io, rec):
        seen.append(repr(await io.record_value("mine", (1, 2.0, {"k": ()}))))

    plan = one_state(handler)
    result = run(plan, store=store)
    assert replay(result.run_id, plan=plan, store=store).identical
    assert seen == ["[1, 2, {'k': []}]"] * 2
