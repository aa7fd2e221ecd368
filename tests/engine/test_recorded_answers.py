"""Facts from a recording: a new run whose calls another run, or a bundle, answers."""

from __future__ import annotations

import functools
import time

import anyio
import pytest
from crashes import left_after

import machine
from machine import Plan, RetryPolicy, RunConfig, replay, run
from machine.codec import decode_entry
from machine.engine import run_reader
from machine.engine.recorded_answers import facts_from
from machine.errors import MachineError, TransportError
from machine.stores import MemoryStore

SHUT = RunConfig(io_mode="replay")


def plan_of(handler, **options):
    plan = Plan("op")
    plan.state("step.only", **options)(handler)
    return plan


def calling(*requests):
    async def handler(ctx, io, rec):
        ctx["got"] = [(await io.call("world", request)).response for request in requests]

    return plan_of(handler)


def events_of(store, run_id, kind):
    entries = (decode_entry(stored.seq, stored.data) for stored in store.read_range(run_id))
    return [entry.event for entry in entries if entry.event.type == kind]


@pytest.fixture
def world(scripted):
    numbers = iter(range(100))
    return scripted(lambda request: next(numbers))


@pytest.fixture(params=["run", "bundle", "other store"])
def source(request, store, tmp_path):
    """Return a function that makes of a recorded run what `facts_from` takes, and the store of the new run."""

    def given(run_id):
        if request.param == "run":
            return run_id, store
        path = tmp_path / "recorded.run"
        machine.export_run(run_id, path, store=store, readable=request.param == "bundle")
        return path, MemoryStore()

    return given


def test_every_call_is_answered_from_the_recording(store, world, source):
    plan = calling("a", "b", "a")
    recorded = run(plan, store=store, transports={"world": world})
    given, other = source(recorded.run_id)
    again = run(plan, store=other, transports={"world": world}, facts_from=given, config=SHUT)
    assert (again.context, again.run_id != recorded.run_id) == ({"got": [0, 1, 2]}, True)
    assert len(world.asked) == 3, "nothing went outside"
    assert replay(again.run_id, plan=plan, store=other).identical


def test_the_calls_may_come_in_another_order_and_fewer(store, world):
    recorded = run(calling("a", "b", "a", "c"), store=store, transports={"world": world})
    again = run(
        calling("c", "a"), store=store, facts_from=recorded.run_id, config=SHUT, transports={"world": world}
    )
    assert again.context == {"got": [3, 0]}


def test_a_call_without_an_answer_is_refused_and_says_which(store, world):
    recorded = run(calling("a"), store=store, transports={"world": world})
    plan = calling("a", "new")
    again = run(plan, store=store, facts_from=recorded.run_id, config=SHUT, transports={"world": world})
    assert (again.status, again.error.code, again.error.retryable) == ("failed", "missing_fact", False)
    assert "1 other call of world there" in again.error.message
    assert again.error.details["state_id"] == "op.step.only"
    assert len(world.asked) == 1
    assert replay(again.run_id, plan=plan, store=store).identical


def test_a_missing_fact_may_be_tried_again_if_the_configuration_says_so(store, world):
    recorded = run(calling("a"), store=store, transports={"world": world})
    config = RunConfig(io_mode="replay", replay_missing_fact_retryable=True, retry_policy=RetryPolicy(2))
    plan = calling("new")
    again = run(plan, store=store, facts_from=recorded.run_id, config=config, transports={"world": world})
    assert (again.error.retryable, len(events_of(store, again.run_id, "state_entered"))) == (True, 2)


def test_live_what_matches_is_answered_and_the_rest_is_made(store, world):
    recorded = run(calling("a", "b"), store=store, transports={"world": world})
    plan = calling("a", "new", "b", "b")
    again = run(plan, store=store, facts_from=recorded.run_id, transports={"world": world})
    assert again.context == {"got": [0, 2, 1, 3]}
    assert world.asked == ["a", "b", "new", "b"]
    assert replay(again.run_id, plan=plan, store=store).identical


def test_a_state_is_part_of_the_match(store, world):
    recorded = run(calling("a"), store=store, transports={"world": world})
    plan = Plan("op")

    @plan.state("step.other")
    async def other(ctx, io, rec):
        await io.call("world", "a")

    again = run(plan, store=store, facts_from=recorded.run_id, config=SHUT, transports={"world": world})
    assert again.error.code == "missing_fact"


def effect(*requests, **more):
    async def handler(ctx, io, rec):
        ctx["got"] = [(await io.call("outside", request)).response for request in requests]

    return plan_of(handler, side_effects="apply_side_effect", idempotency="k", **more)


def test_live_an_effect_is_made_unless_it_is_said_to_be_recorded(store, scripted):
    outside = scripted(effect=True)
    transports = {"outside": outside}
    plan = effect({"n": 1})
    recorded = run(plan, store=store, transports=transports)
    made = run(plan, store=store, transports=transports, facts_from=recorded.run_id)
    assert (made.status, len(outside.asked)) == ("completed", 2)
    told = run(plan, store=store, transports=transports, facts_from=recorded.run_id, effects="recorded")
    assert (told.context, len(outside.asked)) == (recorded.context, 2)
    assert len(events_of(store, told.run_id, "effect_intended")) == 1
    assert told.digest == recorded.digest
    shut = run(plan, store=store, transports=transports, facts_from=recorded.run_id, config=SHUT)
    assert (shut.context, len(outside.asked)) == (recorded.context, 2)
    for again in (made, told, shut):
        assert replay(again.run_id, plan=plan, store=store, transports=transports).identical


def test_an_effect_that_the_recording_lacks_is_not_sent_where_nothing_may_go_outside(store, scripted):
    outside = scripted(effect=True)
    transports = {"outside": outside}
    recorded = run(effect({"n": 1}), store=store, transports=transports)
    again = run(effect({"n": 2}), store=store, transports=transports, facts_from=recorded.run_id, config=SHUT)
    assert (again.error.code, len(outside.asked)) == ("missing_fact", 1)


def test_errors_retries_and_explicit_keys_are_answered_alike(store, scripted):
    answers = iter([TransportError("down", code="http_connect", retryable=True), 7, 8])
    world = scripted(lambda request: next(answers))

    async def handler(ctx, io, rec):
        ctx["got"] = (await io.call("world", "poll")).response
        ctx["named"] = (await io.call("world", "named", fact_key="price")).response

    plan = plan_of(handler, retry=RetryPolicy(2))
    recorded = run(plan, store=store, transports={"world": world})
    again = run(plan, store=store, transports={"world": world}, facts_from=recorded.run_id, config=SHUT)
    assert again.context == recorded.context == {"got": 7, "named": 8}
    assert len(world.asked) == 3


def test_a_call_that_was_given_up_is_given_up_again(store, scripted):
    world = scripted()

    async def handler(ctx, io, rec):
        with anyio.move_on_after(0.02):
            await io.call("world", {"delay": 5})
        ctx["after"] = (await io.call("world", {"then": 1})).response

    plan = plan_of(handler)
    recorded = run(plan, store=store, transports={"world": world})
    again = run(plan, store=store, transports={"world": world}, facts_from=recorded.run_id, config=SHUT)
    assert (again.context, len(world.asked)) == (recorded.context, 2)
    assert replay(again.run_id, plan=plan, store=store).identical


def test_time_sleep_randomness_values_files_and_steps_are_answered(store, tmp_path):
    file = tmp_path / "prices.txt"
    file.write_text("12")
    calls = tmp_path / "calls.txt"

    def load(name):
        with calls.open("a") as log:
            log.write(name)
        return 41

    async def handler(ctx, io, rec):
        await io.sleep(0.3)
        ctx["now"] = await io.now()
        ctx["id"] = str(await io.uuid())
        ctx["value"] = await io.record_value("host", calls.exists())
        ctx["file"] = (await io.read_file(str(file))).text
        ctx["step"] = await io.step(load, "a", name="load")
        async with io.open_file(str(file)) as opened:
            ctx["pieces"] = [piece.decode() async for piece in opened]

    plan = plan_of(handler, side_effects="read_only_io")
    recorded = run(plan, store=store)
    assert recorded.status == "completed", recorded.error
    file.write_text("99")
    began = time.monotonic()
    again = run(plan, store=store, facts_from=recorded.run_id, config=SHUT)
    assert time.monotonic() - began < 0.3, "a sleep that was answered takes no time"
    assert again.context == recorded.context
    assert calls.read_text() == "a"
    assert replay(again.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("config", [SHUT, RunConfig()], ids=["shut", "live"])
def test_it_is_resumed_from_any_event_without_the_other_run(store, world, config, tmp_path):
    plan = calling("a", "b", "c")
    recorded = run(plan, store=store, transports={"world": world})
    path = tmp_path / "recorded.run"
    machine.export_run(recorded.run_id, path, store=store)
    with MemoryStore() as other:
        again = run(plan, store=other, transports={"world": world}, facts_from=path, config=config)
        for length in range(1, again.head_seq):
            left = left_after(other, again.run_id, length)
            result = machine.resume(left, plan=plan, store=other, transports={"world": world})
            assert (result.status, result.context) == ("completed", recorded.context)
            assert machine.verify(left, store=other).ok
    assert len(world.asked) == 3


def test_where_the_facts_came_from_stands_in_the_run_and_goes_with_a_bundle(store, world, tmp_path):
    plan = calling("a")
    recorded = run(plan, store=store, transports={"world": world})
    again = run(plan, store=store, transports={"world": world}, facts_from=recorded.run_id, config=SHUT)
    assert facts_from(run_reader.first_entry(store, again.run_id)[0]) == recorded.run_id
    path = tmp_path / "again.run"
    machine.export_run(again.run_id, path, store=store)
    with MemoryStore() as other:
        assert machine.import_bundle(path, store=other) == again.run_id
        assert machine.verify(again.run_id, store=other).ok
        assert replay(again.run_id, plan=plan, store=other).identical
    readable = machine.export_run(again.run_id, store=store, readable=True)
    assert recorded.run_id.encode() not in readable
    transports = {"world": world}
    forked = machine.fork(again.run_id, plan=plan, store=store, at=again.head_seq - 1, transports=transports)
    assert forked.result.context == again.context
    assert machine.diff_runs(recorded.run_id, again.run_id, store=store) is not None


def test_what_cannot_be_is_refused_before_anything_is_written(store, world, tmp_path):
    recorded = run(calling("a"), store=store, transports={"world": world})
    begin = functools.partial(run, calling("a"), store=store, transports={"world": world})
    refused = [
        ({"facts_from": "01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3c"}, "run_not_found"),
        ({"facts_from": tmp_path / "none.run"}, "bundle_not_found"),
        ({"facts_from": recorded.run_id, "effects": "all"}, "usage"),
        ({"config": SHUT}, "invalid_config"),
        (
            {"config": RunConfig(replay_missing_fact_retryable=True), "facts_from": recorded.run_id},
            "invalid_config",
        ),
    ]
    for options, code in refused:
        with pytest.raises(MachineError) as caught:
            begin(**options)
        assert caught.value.code == code
    assert len(store.list_runs().rows) == 1


# -- secrets and streams --------------------------------------------------------------------------------------


TRUE = "tok-9fK2pQ7xWm41ZrT8"


def sending_a_token():
    seen = []

    async def handler(ctx, io, rec):
        token = await io.secret("API_TOKEN")
        seen.append(str(token))
        answer = await io.http("GET", "http://127.0.0.1:9", headers={"authorization": f"Bearer {token}"})
        ctx["status"] = answer.status

    return plan_of(handler), seen


def test_a_request_with_a_secret_matches_after_a_rotation_and_the_handler_gets_the_recorded_value(
    store, scripted, monkeypatch
):
    monkeypatch.setenv("API_TOKEN", TRUE)
    plan, seen = sending_a_token()
    transports = {
        "http": scripted(
            lambda request: {"status": 200, "url": "http://h/", "headers": [], "body": {"text": ""}}
        )
    }
    recorded = run(plan, store=store, transports=transports)
    assert recorded.status == "completed", recorded.error
    monkeypatch.setenv("API_TOKEN", "tok-AnotherOne7Qw8Er9")
    again = run(plan, store=store, transports=transports, facts_from=recorded.run_id, config=SHUT)
    assert (again.status, len(transports["http"].asked)) == ("completed", 1)
    assert seen == [TRUE, TRUE]
    assert TRUE.encode() not in b"".join(data for _, data in store._contents.artifacts.values())
    assert replay(again.run_id, plan=plan, store=store, transports=transports).identical


@pytest.mark.parametrize("readable", [False, True], ids=["version 1", "version 2"])
def test_a_bundle_without_secrets_gives_placeholders_and_is_never_sent_live(
    store, scripted, monkeypatch, tmp_path, readable
):
    monkeypatch.setenv("API_TOKEN", TRUE)
    plan, seen = sending_a_token()
    transports = {
        "http": scripted(
            lambda request: {"status": 200, "url": "http://h/", "headers": [], "body": {"text": ""}}
        )
    }
    recorded = run(plan, store=store, transports=transports)
    path = tmp_path / "recorded.run"
    machine.export_run(recorded.run_id, path, store=store, readable=readable)
    with MemoryStore() as other:
        shut = run(plan, store=other, transports=transports, facts_from=path, config=SHUT)
        assert (shut.status, shut.context, len(transports["http"].asked)) == ("completed", {"status": 200}, 1)
        assert TRUE not in seen[1]
        assert "API_TOKEN" in seen[1]
        assert replay(shut.run_id, plan=plan, store=other, transports=transports).identical
    with MemoryStore() as other:
        live = run(plan, store=other, transports=transports, facts_from=path)
        assert (live.status, seen[-1]) == ("completed", TRUE), "it was read again"
        assert len(transports["http"].asked) == 1, "the request has the same identity"


def test_calls_that_differ_in_what_is_ignored_are_answered_in_their_order(store, scripted):
    numbers = iter(range(9))
    http = scripted(
        lambda request: {
            "status": 200,
            "url": "http://h/",
            "headers": [],
            "body": {"text": str(next(numbers))},
        }
    )

    def plan_with(first, second):
        async def handler(ctx, io, rec):
            ctx["got"] = [
                (await io.http("GET", "http://127.0.0.1:9", headers={"x-request-id": each})).text
                for each in (first, second)
            ]

        return plan_of(handler)

    recorded = run(plan_with("a", "b"), store=store, transports={"http": http})
    again = run(
        plan_with("c", "d"), store=store, transports={"http": http}, facts_from=recorded.run_id, config=SHUT
    )
    assert again.context == recorded.context == {"got": ["0", "1"]}


@pytest.mark.parametrize("read", [1, 3], ids=["closed early", "whole"])
def test_a_stream_is_answered_piece_by_piece(store, read, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(b"a" * 40_000 + b"b" * 40_000 + b"c" * 40_000)

    async def handler(ctx, io, rec):
        sizes = []
        async with io.open_file(str(big), piece_bytes=40_000) as file:
            async for piece in file:
                sizes.append(len(piece))
                if len(sizes) == read:
                    break
        ctx["sizes"] = sizes

    plan = plan_of(handler)
    recorded = run(plan, store=store)
    assert recorded.status == "completed", recorded.error
    big.unlink()
    again = run(plan, store=store, facts_from=recorded.run_id, config=SHUT)
    assert (again.context, again.digest) == (recorded.context, replay_digest(again, plan, store))


def replay_digest(result, plan, store):
    found = replay(result.run_id, plan=plan, store=store)
    assert found.identical, found.divergence
    return found.digest


def test_concurrent_states_and_paranoid_runs(store, world):
    plan = Plan("op")
    for name in ("one", "two", "three"):

        @plan.state(f"step.{name}")
        async def state(ctx, io, rec, name=name):
            ctx[name] = (await io.call("world", name)).response

    recorded = run(
        plan,
        store=store,
        transports={"world": world},
        config=RunConfig(execution_mode=machine.config.FanOutJoin(3)),
    )
    config = RunConfig(io_mode="replay", paranoid=True, execution_mode=machine.config.FanOutJoin(2))
    again = run(plan, store=store, transports={"world": world}, facts_from=recorded.run_id, config=config)
    assert (again.status, again.context) == ("completed", recorded.context)


def test_a_fork_of_a_bundle_without_seals_hands_out_no_placeholder(store, scripted, monkeypatch, tmp_path):
    monkeypatch.setenv("API_TOKEN", TRUE)
    plan, seen = sending_a_token()
    transports = {
        "http": scripted(lambda request: {"status": 200, "url": "http://h/", "headers": [], "body": {}})
    }
    recorded = run(plan, store=store, transports=transports)
    path = tmp_path / "recorded.run"
    machine.export_run(recorded.run_id, path, store=store, readable=True)
    with machine.open_bundle(path) as bundle, MemoryStore() as other:
        forked = machine.fork(
            recorded.run_id, plan=plan, source=bundle.store, store=other, at=3, transports=transports
        )
    assert (forked.result.status, forked.result.error.code) == ("failed", "secret_unavailable")
    assert (seen, len(transports["http"].asked)) == ([TRUE], 1)
