"""A run from its start to its end: what a user writes, and what they get back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time

import pytest

import machine
from machine import (
    DomainEvent,
    ExponentialBackoff,
    FixedBackoff,
    Plan,
    RetryPolicy,
    RunConfig,
    StateMeta,
    StateOutcome,
    dry_run,
    replay,
    run,
)
from machine.codec import decode_entry
from machine.config import FanOutJoin, Sequential


def events_of(store, run_id):
    return [decode_entry(stored.seq, stored.data).event for stored in store.read_range(run_id)]


def types_of(store, run_id):
    return [event.type for event in events_of(store, run_id)]


def failing_with(handler, **options):
    plan = Plan("op")
    plan.state("step.only", **options)(handler)
    return plan


def test_the_input_becomes_the_context_and_states_add_to_it(store):
    plan = Plan("op")

    @plan.state("step.first")
    async def first(ctx, io, rec):
        ctx["doubled"] = ctx["n"] * 2

    @plan.state("step.second", after=[first])
    async def second(ctx, io, rec):
        ctx["text"] = f"{ctx['n']} doubled is {ctx['doubled']}"

    result = run(plan, input={"n": 21}, store=store)
    assert result.status == "completed"
    assert result.context == {"doubled": 42, "n": 21, "text": "21 doubled is 42"}
    assert result.head_seq == 6
    assert result.error is None
    assert types_of(store, result.run_id) == [
        "run_started",
        *["state_entered", "state_completed"] * 2,
        "run_completed",
    ]


def test_a_plain_function_gets_the_same_io_made_blocking(store):
    plan = Plan("op")

    @plan.state("step.only")
    def only(ctx, io, rec):
        ctx["now"] = io.now()
        ctx["uuid"] = str(io.uuid())
        ctx["drawn"] = io.random().random()
        ctx["seen"] = io.get_recorded_fact("nothing")
        rec.emit(DomainEvent("noted", {"by": "a plain function"}))

    result = run(plan, store=store)
    assert result.status == "completed"
    assert abs(result.context["now"] - time.time() * 1000) < 60_000
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_class_with_meta_and_handle_is_a_state(store):
    class Count:
        def meta(self):
            return StateMeta(tags=["compute"])

        async def handle(self, ctx, io, rec):
            ctx["count"] = len(ctx["items"])

    plan = Plan("op", states={"step.count": Count()})
    assert run(plan, input={"items": [1, 2]}, store=store).context["count"] == 2


def test_two_runs_have_different_ids_and_sort_by_creation(store):
    plan = failing_with(lambda ctx, io, rec: None)
    ids = [run(plan, store=store).run_id for _ in range(5)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 5


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("even its text fails")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ValueError("no"), "handler_error"),
        (KeyError("k"), "handler_error"),
        (SystemExit(3), "handler_error"),
        (asyncio.CancelledError(), "handler_error"),
        (GeneratorExit(), "handler_error"),
        (UnprintableError(), "handler_error"),
        (ExceptionGroup("several", [ValueError("a"), TypeError("b")]), "handler_error"),
        (ValueError("a lone surrogate \ud800"), "handler_error"),
        (machine.errors.TransportError("down", code="my_code", retryable=True), "my_code"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
@pytest.mark.parametrize("kind", ["async", "plain"])
def test_whatever_a_handler_raises_fails_its_state_and_replays(store, raised, code, kind):
    def plain(ctx, io, rec):
        raise raised

    async def coroutine(ctx, io, rec):
        raise raised

    plan = failing_with(plain if kind == "plain" else coroutine)
    result = run(plan, store=store)
    assert result.status == "failed"
    assert result.error.code == code
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_error_message_with_a_memory_address_replays(store):
    async def handler(ctx, io, rec):
        raise ValueError(f"cannot use {object()}")

    plan = failing_with(handler)
    result = run(plan, store=store)
    assert "at 0x..." in result.error.message
    assert replay(result.run_id, plan=plan, store=store).identical


class Unsayable:
    """A value that cannot be put in words: nothing that goes well needs it to be."""

    def __str__(self):
        raise AssertionError("nobody has asked")


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (lambda ctx, io, rec: 7, "invalid_outcome"),
        (lambda ctx, io, rec: ctx.__setitem__(7, 1), "invalid_id"),
        (lambda ctx, io, rec: ctx.__setitem__("", 1), "invalid_id"),
        (lambda ctx, io, rec: ctx.__setitem__("k", {1, 2}), "not_json"),
        (lambda ctx, io, rec: ctx["absent"], "context_key_missing"),
        (lambda ctx, io, rec: ctx["list"].append(4), "context_value_mutated"),
        (lambda ctx, io, rec: StateOutcome(error=ValueError("by decision")), "handler_error"),
        (lambda ctx, io, rec: rec.emit("text"), "invalid_domain_event"),
        (lambda ctx, io, rec: rec.emit(Unsayable()), "invalid_domain_event"),
        (lambda ctx, io, rec: rec.emit(DomainEvent("fact_recorded")), "invalid_domain_event"),
        (lambda ctx, io, rec: rec.emit(DomainEvent("No Name")), "invalid_domain_event"),
        (lambda ctx, io, rec: rec.emit(DomainEvent("tool_call_started", {"x": 1})), "malformed"),
        (lambda ctx, io, rec: io.call("nowhere.at.all", {}), "io_unknown_namespace"),
        (lambda ctx, io, rec: io.call("Not A Namespace", {}), "io_invalid_request"),
        (lambda ctx, io, rec: io.call("clock.now", {}, fact_key="@mine"), "invalid_id"),
        (lambda ctx, io, rec: io.write_file("/nowhere", "x"), "side_effect_not_declared"),
        (lambda ctx, io, rec: io.http("DELETE", "http://127.0.0.1:1/"), "side_effect_not_declared"),
    ],
)
def test_a_mistake_in_a_handler_fails_its_state_with_its_code(store, handler, code):
    plan = failing_with(handler)
    result = run(plan, input={"list": [1, 2, 3]}, store=store)
    assert (result.status, result.error.code) == ("failed", code)
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("mode", [Sequential(), FanOutJoin(2)])
@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_value_changed_after_it_was_written_is_no_silent_loss(store, mode, kind):
    def change(ctx, io, rec):
        value = {"rows": []}
        ctx["v"] = value
        value["rows"].append(1)

    async def change_async(ctx, io, rec):
        change(ctx, io, rec)

    plan = failing_with(change if kind == "plain" else change_async)
    for tried in (run, dry_run):
        result = tried(plan, store=store, config=RunConfig(execution_mode=mode))
        if tried is dry_run:
            result = result.result
        assert (result.status, result.error.code) == ("failed", "context_value_mutated")
        assert "ctx['v'] = value" in result.error.message
        assert replay(result.run_id, plan=plan, store=store).identical


def test_a_value_that_is_not_json_is_named_by_its_path(store):
    async def handler(ctx, io, rec):
        ctx["orders"] = [{"price": 1}, {"price": object()}]

    result = run(failing_with(handler), store=store)
    assert result.error.message.startswith("$.orders[1].price: object is not JSON")


def test_a_pure_state_may_not_call_the_outside(store):
    async def handler(ctx, io, rec):
        await io.now()

    result = run(failing_with(handler, side_effects="pure"), store=store)
    assert result.error.code == "side_effect_not_declared"
    assert "read_only_io" in result.error.message


def test_a_plain_function_that_returns_a_coroutine_is_told_so(store):
    async def inner():
        return None

    result = run(failing_with(lambda ctx, io, rec: inner()), store=store)
    assert result.error.code == "invalid_outcome"
    assert "async def" in result.error.message


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_handler_that_hangs_past_its_timeout_is_cut(store, kind):
    async def coroutine(ctx, io, rec):
        await rec.emit(DomainEvent("before"))
        await asyncio.sleep(60)

    def plain(ctx, io, rec):
        rec.emit(DomainEvent("before"))
        time.sleep(1.5)

    plan = failing_with(plain if kind == "plain" else coroutine, timeout=0.1)
    began = time.monotonic()
    result = run(plan, store=store)
    assert (result.status, result.error.code) == ("failed", "state_timeout")
    assert time.monotonic() - began < 1.4
    began = time.monotonic()
    assert replay(result.run_id, plan=plan, store=store).identical
    assert time.monotonic() - began < 1.4


def test_a_timed_out_attempt_is_retried_as_the_policy_says(store):
    seen = []

    async def handler(ctx, io, rec):
        seen.append(await io.now())
        if len(seen) == 1:
            await asyncio.sleep(60)

    plan = failing_with(handler, timeout=0.1, retry=RetryPolicy(2))
    result = run(plan, store=store)
    assert result.status == "completed"
    assert seen[0] == seen[1], "what a cut attempt had fetched is not fetched again"


@pytest.mark.parametrize("code", ["orphan_attempt_recovered", "state_timeout"])
def test_a_handler_cannot_claim_to_have_been_cut(store, code):
    async def handler(ctx, io, rec):
        raise machine.Failure("forged", code=code)

    result = run(failing_with(handler, retry=RetryPolicy(3)), store=store)
    assert (result.status, result.error.code) == ("failed", "handler_error")
    assert types_of(store, result.run_id).count("state_entered") == 1


def test_attempts_include_the_first_and_wait_as_the_backoff_says(store):
    async def handler(ctx, io, rec):
        raise ValueError("always")

    plan = failing_with(handler, retry=RetryPolicy(3, ExponentialBackoff(0.001, 0.0015)))
    result = run(plan, store=store)
    assert result.status == "failed"
    events = events_of(store, result.run_id)
    assert [event.delay_ms for event in events if event.type == "retry_scheduled"] == [1, 2]
    assert [event.attempt for event in events if event.type == "state_entered"] == [0, 1, 2]


def test_the_runs_policy_holds_where_the_state_has_none(store):
    async def handler(ctx, io, rec):
        raise ValueError("always")

    config = RunConfig(retry_policy=RetryPolicy(2, FixedBackoff(0)))
    result = run(failing_with(handler), store=store, config=config)
    assert types_of(store, result.run_id).count("state_entered") == 2


def test_an_error_that_is_not_retryable_is_not_retried(store):
    async def handler(ctx, io, rec):
        ctx["k"] = object()

    result = run(failing_with(handler, retry=RetryPolicy(5)), store=store)
    assert types_of(store, result.run_id).count("state_entered") == 1


def test_a_failing_attempts_writes_are_not_seen_by_the_next(store):
    async def handler(ctx, io, rec):
        assert "trace" not in ctx
        ctx["trace"] = 1
        if not await io.record_value("again", value=True) or len(ctx) == 1:
            raise ValueError("first")

    result = run(failing_with(handler, retry=RetryPolicy(3)), store=store)
    assert result.error.message == "ValueError: first"


def test_a_handler_may_fail_by_its_outcome_and_keep_a_diagnostic_snapshot(store):
    async def handler(ctx, io, rec):
        ctx["partial"] = 1
        return StateOutcome(
            error=machine.errors.RateLimitedError("slow down", retry_after=2), snapshot="always"
        )

    result = run(failing_with(handler), store=store)
    failed = next(event for event in events_of(store, result.run_id) if event.type == "state_failed")
    assert failed.error.details == {"retry_after": 2}
    assert b"partial" in store.get(failed.failure_snapshot_id)
    assert result.context == {}, "a diagnostic snapshot is never a boundary"


def test_a_state_that_promised_no_snapshot_may_not_write(store):
    async def handler(ctx, io, rec):
        ctx["k"] = 1
        return StateOutcome(snapshot="never")

    assert run(failing_with(handler), store=store).error.code == "invalid_outcome"


def test_states_with_a_skipped_tag_do_not_run_and_their_followers_do(store):
    plan = Plan("op")
    ran = []

    @plan.state("step.write", side_effects="apply_side_effect", idempotency="k")
    async def write(ctx, io, rec):
        ran.append("write")

    @plan.state("step.after", after=[write])
    async def after(ctx, io, rec):
        ran.append("after")

    result = run(plan, store=store, config=RunConfig(skip_tags=["apply_side_effect"]))
    assert ran == ["after"]
    skipped = next(event for event in events_of(store, result.run_id) if event.type == "state_skipped")
    assert (skipped.state_id, skipped.reason) == ("op.step.write", "skip_tag:apply_side_effect")
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_attempt_that_has_ended_refuses_its_io(store):
    kept = []

    async def handler(ctx, io, rec):
        kept.append((io, rec))

    run(failing_with(handler), store=store)
    io, rec = kept[0]
    with pytest.raises(machine.errors.StateError, match="has ended"):
        asyncio.run(io.now())
    with pytest.raises(machine.errors.StateError, match="has ended"):
        asyncio.run(rec.emit(DomainEvent("late")))


@pytest.mark.parametrize(
    ("profile", "kept"),
    [
        ("minimal", ["budget_exceeded"]),
        ("normal", ["budget_exceeded", "mine"]),
        ("verbose", ["budget_exceeded", "mine", "agent_tool_progress"]),
        (machine.config.EventProfile("custom", "only mine", ["mine"]), ["mine"]),
    ],
)
def test_the_profile_drops_optional_domain_events(store, profile, kept):
    async def handler(ctx, io, rec):
        await rec.emit_many(
            [
                DomainEvent("budget_exceeded", {"kind": "calls", "limit": 1, "current": 2}),
                DomainEvent("mine", {}),
                DomainEvent("agent_tool_progress", {"chunk_index": 1, "partial_output_summary": "a"}),
            ]
        )

    plan = failing_with(handler)
    result = run(plan, store=store, config=RunConfig(event_profile=profile))
    assert result.status == "completed", result.error
    names = [event.name for event in events_of(store, result.run_id) if event.type == "domain_event"]
    assert names == kept


def test_a_large_domain_payload_is_an_artifact(store):
    async def handler(ctx, io, rec):
        await rec.emit(DomainEvent("large", {"text": "x" * 20_000}))

    plan = failing_with(handler)
    result = run(plan, store=store)
    event = next(event for event in events_of(store, result.run_id) if event.type == "domain_event")
    assert event.payload is None
    assert len(store.get(event.payload_ref)) > 20_000
    assert machine.verify(result.run_id, store=store).ok
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize(
    ("given", "code"),
    [([1], "invalid_input"), ({"k": object()}, "not_json"), ({1: 2}, "not_json"), ({"": 1}, "invalid_id")],
)
def test_bad_input_is_refused_before_anything_is_written(store, given, code):
    with pytest.raises(machine.MachineError) as caught:
        run(failing_with(lambda ctx, io, rec: None), input=given, store=store)
    assert caught.value.code == code
    assert not store.list_runs().rows


def test_the_plain_face_inside_a_running_loop_says_what_to_call():
    async def main():
        run(Plan("op"), store=None)

    with pytest.raises(machine.errors.UsageError, match=r"machine\.aio\.run"):
        asyncio.run(main())


def test_the_coroutine_face_has_the_same_names(store):
    plan = failing_with(lambda ctx, io, rec: None)

    async def main():
        result = await machine.aio.run(plan, store=store)
        again = await machine.aio.resume(result.run_id, plan=plan, store=store)
        assert (await machine.aio.replay(result.run_id, plan=plan, store=store)).identical
        assert (await machine.aio.verify(result.run_id, store=store)).ok
        assert again == result

    asyncio.run(main())


def test_a_run_id_is_never_used_twice(store):
    plan = failing_with(lambda ctx, io, rec: None)
    chosen = machine.new_run_id()
    run(plan, store=store, run_id=chosen)
    with pytest.raises(machine.errors.UsageError) as caught:
        run(plan, store=store, run_id=chosen)
    assert caught.value.code == "run_id_in_use"


def test_a_reporter_sees_every_event_in_order(store):
    class Seen(machine.Reporter):
        def __init__(self):
            self.seqs = []

        def entry(self, entry):
            self.seqs.append(entry.seq)

    seen = Seen()
    result = run(failing_with(lambda ctx, io, rec: None), store=store, reporter=seen)
    assert seen.seqs == list(range(1, result.head_seq + 1))


def test_a_reporter_that_raises_stops_the_run_like_a_crash(store):
    class Broken(machine.Reporter):
        def entry(self, entry):
            if entry.seq == 3:
                raise RuntimeError("the reporter broke")

    plan = failing_with(lambda ctx, io, rec: None)
    chosen = machine.new_run_id()
    with pytest.raises(RuntimeError, match="the reporter broke"):
        run(plan, store=store, reporter=Broken(), run_id=chosen)
    assert machine.resume(chosen, plan=plan, store=store).status == "completed"


def test_a_handler_that_swallows_its_timeout_is_cut_all_the_same(store):
    async def handler(ctx, io, rec):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        ctx["late"] = 1

    result = run(failing_with(handler, timeout=0.05), store=store)
    assert (result.status, result.error.code) == ("failed", "state_timeout")


def test_a_cancelled_run_stops_and_can_be_resumed(store):
    async def handler(ctx, io, rec):
        await io.sleep(wait[0])

    wait = [60]
    plan = failing_with(handler)
    chosen = machine.new_run_id()

    async def main():
        task = asyncio.create_task(machine.aio.run(plan, store=store, run_id=chosen))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert machine.verify(chosen, store=store).ok
    assert store.run_row(chosen).status == "interrupted"
    wait[0] = 0
    assert machine.resume(chosen, plan=plan, store=store).status == "completed"


@pytest.mark.parametrize("caught", [True, False])
def test_a_task_group_that_fails_inside_a_handler_does_not_cancel_the_run(store, caught):
    plan = Plan("op")

    @plan.state("step.first", retry=RetryPolicy(2))
    async def first(ctx, io, rec):
        async def fails():
            raise ValueError("a child")

        async def waits():
            await asyncio.sleep(30)

        if await io.record_value(f"try {len(tries)}", value=True) and not tries:
            tries.append(1)
            with contextlib.suppress(ExceptionGroup if caught else ZeroDivisionError):
                async with asyncio.TaskGroup() as group:
                    group.create_task(fails())
                    group.create_task(waits())

    @plan.state("step.second", after=[first])
    async def second(ctx, io, rec):
        await io.sleep(0)

    tries = []
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    tries.clear()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_failure_has_the_code_and_the_words_its_handler_gave_it(store):
    async def handler(ctx, io, rec):
        raise machine.Failure("the shop is closed", code="shop_closed", details={"until": 9})

    result = run(failing_with(handler, retry=RetryPolicy(3)), store=store)
    error = result.error
    assert (error.code, error.message, error.retryable) == ("shop_closed", "the shop is closed", False)
    assert error.details == {"until": 9}
    assert types_of(store, result.run_id).count("state_entered") == 1


def test_a_handler_may_fail_with_a_code_alone(store):
    async def handler(ctx, io, rec):
        return StateOutcome(error="sold_out")

    assert run(failing_with(handler), store=store).error.code == "sold_out"


def test_an_input_nested_too_deep_is_refused_by_name(store):
    def nested(depth):
        return functools.reduce(lambda inner, _: [inner], range(depth), 0)

    with pytest.raises(machine.errors.CanonicalError, match="nested too deep"):
        run(failing_with(lambda ctx, io, rec: None), input={"deep": nested(2000)}, store=store)
    assert (
        run(failing_with(lambda ctx, io, rec: None), input={"deep": nested(400)}, store=store).status
        == "completed"
    )


def test_a_result_is_not_written_out_behind_its_back(store, monkeypatch):
    def refused(self):
        raise AssertionError("somebody asked for the text of a result")

    monkeypatch.setattr(machine.RunResult, "__repr__", refused)  # that of a large context takes its time
    assert run(failing_with(nothing), store=store).status == "completed"


@pytest.mark.parametrize("outcome", [5, StateOutcome(goto="step.nowhere"), StateOutcome(error="mine")])
def test_what_is_refused_when_the_handler_has_returned_names_no_line_of_this_library(store, outcome):
    async def handler(ctx, io, rec):
        return outcome

    result = run(failing_with(handler), store=store)
    (failed,) = [
        entry
        for stored in store.read_range(result.run_id)
        if (entry := decode_entry(stored.seq, stored.data)).event.type == "state_failed"
    ]
    assert (result.status, "trace" in failed.info) == ("failed", False)


async def nothing(ctx, io, rec):
    """Do nothing."""
