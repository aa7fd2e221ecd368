"""Streams that a run publishes: each value once, with an offset, whatever happens to the run."""

from __future__ import annotations

import pytest
from crashes import left_after

import machine
from machine import Plan, RetryPolicy, RunConfig, export_run, open_bundle, open_store
from machine.config import FanOutJoin
from machine.engine.run_reader import entries
from machine.errors import CanonicalError, Code, IdError, NotFoundError, UsageError
from machine.events import FactRecorded
from machine.recordings.stream_reader import StreamReader
from machine.results import StreamItem

SECRET = "sk-live-4f9a8b7c6d5e4f3a2b1c"


@pytest.fixture
def store():
    with open_store("memory://") as store:
        yield store


def only(handler, name="pub", **options):
    plan = Plan(name)
    plan.state("say.it", **options)(handler)
    return plan


def values(run_id, name, store, **options):
    return [(item.offset, item.value) for item in machine.read_stream(run_id, name, store=store, **options)]


async def counts(ctx, io):
    ctx["offsets"] = [await io.publish("log", n) for n in (7, 7, {"n": 8})] + [
        await io.publish("other", None)
    ]


def test_each_stream_counts_from_one_and_a_replay_publishes_nothing(store):
    plan = only(counts)
    result = machine.run(plan, store=store)
    assert result.context["offsets"] == [1, 2, 3, 1]
    assert values(result.run_id, "log", store) == [(1, 7), (2, 7), (3, {"n": 8})]
    (item,) = machine.read_stream(result.run_id, "other", store=store)
    assert item == StreamItem(1, None, "pub.say.it", item.ts_millis)
    assert item.ts_millis >= store.run_row(result.run_id).created_ms
    head = store.head(result.run_id)
    assert machine.replay(result.run_id, plan=plan, store=store).identical
    assert store.head(result.run_id) == head
    assert machine.verify(result.run_id, store=store).ok


def test_a_reader_goes_on_where_it_was(store):
    result = machine.run(only(counts), store=store)
    assert values(result.run_id, "log", store, after=1) == [(2, 7), (3, {"n": 8})]
    assert values(result.run_id, "log", store, after=3) == []
    assert values(result.run_id, "log", store, after=10**9) == []


@pytest.mark.parametrize("after", [-1, True, 1.0, "1", None])
def test_an_offset_that_is_no_number_from_zero_is_refused(store, after):
    run_id = machine.run(only(counts), store=store).run_id
    with pytest.raises(UsageError, match="the offset to read after is"):
        machine.read_stream(run_id, "log", after=after, store=store)


def test_a_stream_that_is_not_there_is_named_with_those_that_are(store):
    run_id = machine.run(only(counts), store=store).run_id
    with pytest.raises(NotFoundError, match="has no stream 'lag'") as caught:
        machine.read_stream(run_id, "lag", store=store)
    assert (caught.value.code, caught.value.hint) == (Code.STREAM_NOT_FOUND, "did you mean 'log'?")
    assert caught.value.info.details["streams"] == ["log", "other"]
    with pytest.raises(NotFoundError) as caught:
        machine.read_stream("01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3c", "log", store=store)
    assert caught.value.code == Code.RUN_NOT_FOUND


def test_whatever_a_crash_takes_each_value_is_published_once(store):
    plan = Plan("pub")

    @plan.state("say.first")
    async def first(ctx, io):
        ctx["first"] = [await io.publish("log", n) for n in range(3)]

    @plan.state("say.second", after=[first])
    async def second(ctx, io):
        ctx["second"] = [await io.publish("log", n) for n in range(3)]

    whole = machine.run(plan, store=store)
    expected = values(whole.run_id, "log", store)
    assert expected == [(1, 0), (2, 1), (3, 2), (4, 0), (5, 1), (6, 2)]
    for length in range(1, whole.head_seq):
        left = left_after(store, whole.run_id, length)
        before = values(left, "log", store)
        assert expected[: len(before)] == before
        result = machine.resume(left, plan=plan, store=store)
        assert (result.status, result.context) == (whole.status, whole.context)
        assert values(left, "log", store) == expected


def test_a_retry_after_a_failure_does_not_publish_again(store):
    tries = []

    async def fails_once(ctx, io):
        tries.append([await io.publish("log", "begun"), await io.publish("log", f"try {len(tries)}")])
        if len(tries) == 1:
            raise machine.Failure("again", retryable=True)
        await io.publish("log", "done")

    result = machine.run(only(fails_once, retry=RetryPolicy(2)), store=store)
    assert result.status == "completed"
    assert tries == [[1, 2], [1, 3]]
    assert [value for _, value in values(result.run_id, "log", store)] == ["begun", "try 0", "try 1", "done"]


def test_concurrent_states_share_the_offsets_of_a_stream(store):
    plan = Plan("pub")

    def say(name):
        @plan.state(f"say.{name}")
        async def handler(ctx, io):
            ctx[name] = []
            for n in range(5):
                ctx[name] = [*ctx[name], await io.publish("log", [name, n])]
                await io.sleep(0)

    for name in ("a", "b", "c"):
        say(name)
    config = RunConfig(execution_mode=FanOutJoin(3))
    result = machine.run(plan, store=store, config=config)
    found = values(result.run_id, "log", store)
    assert [offset for offset, _ in found] == list(range(1, 16))
    for name in ("a", "b", "c"):
        assert [offset for offset, value in found if value[0] == name] == result.context[name]
        assert [value[1] for _, value in found if value[0] == name] == list(range(5))
    assert found != sorted(found, key=lambda item: item[1]), "they were concurrent"
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def test_a_plain_handler_publishes_too(store):
    def plain(ctx, io):
        ctx["offset"] = io.publish("log", "x")

    result = machine.run(only(plain), store=store)
    assert result.context == {"offset": 1}
    assert values(result.run_id, "log", store) == [(1, "x")]


def failed_with(store, handler, **options):
    result = machine.run(only(handler, **options), store=store)
    assert result.status == "failed"
    names = [
        entry.event.namespace
        for entry in log_of(result.run_id, store)
        if isinstance(entry.event, FactRecorded)
    ]
    assert "publish" not in names
    return result.error


def log_of(run_id, store):
    return [entry for entry, _ in entries(store, run_id)]


@pytest.mark.parametrize("value", [float("nan"), 2**70, object(), {1: 2}, b"bytes", "\ud800"])
def test_a_value_that_is_no_json_is_refused_and_nothing_is_published(store, value):
    async def handler(ctx, io):
        with pytest.raises(CanonicalError):
            await io.publish("log", value)
        await io.publish("log", value)

    assert failed_with(store, handler).code == Code.NOT_JSON


@pytest.mark.parametrize("name", ["", "a" * 129, "two\nlines", None, 3])
def test_a_name_that_is_no_name_is_refused(store, name):
    async def handler(ctx, io):
        with pytest.raises(IdError, match="StreamName"):
            await io.publish(name, 1)
        await io.publish(name, 1)

    assert failed_with(store, handler).code == Code.INVALID_ID


def test_a_state_that_is_declared_pure_cannot_publish(store):
    async def handler(ctx, io):
        await io.publish("log", 1)

    assert failed_with(store, handler, side_effects="pure").code == Code.SIDE_EFFECT_NOT_DECLARED


def test_a_published_value_is_its_own_whatever_becomes_of_the_object(store):
    async def handler(ctx, io):
        value = {"list": [1]}
        await io.publish("log", value)
        value["list"].append(2)

    run_id = machine.run(only(handler), store=store).run_id
    assert values(run_id, "log", store) == [(1, {"list": [1]})]


async def tells_a_secret(ctx, io):
    key = await io.secret("MY_KEY")
    ctx["offset"] = await io.publish(
        "log", {"url": f"https://example.com/?q={key}", "password": "Tr0ub4dor&3-x"}
    )


def test_a_secret_in_a_value_is_published_as_its_placeholder(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    plan = only(tells_a_secret)
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        result = machine.run(plan, store=store)
        ((offset, value),) = values(result.run_id, "log", store)
        assert (offset, value["url"]) == (1, "https://example.com/?q=__secret_MY_KEY__")
        assert "Tr0ub4dor" not in str(value)
        replayed = machine.replay(result.run_id, plan=plan, store=store)
        assert (replayed.identical, replayed.secrets) == (True, "opened")
        export_run(result.run_id, tmp_path / "it.run", store=store)
    assert SECRET.encode() not in (tmp_path / "it.run").read_bytes() + (tmp_path / "runs.db").read_bytes()
    with open_bundle(tmp_path / "it.run") as bundle:  # without the key of the store
        replayed = machine.replay(bundle.run_id, plan=plan, store=bundle.store)
        assert (replayed.identical, replayed.secrets) == (True, "placeholders")


def test_a_secret_in_the_name_of_a_stream_is_refused(store, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)

    async def handler(ctx, io):
        key = await io.secret("MY_KEY")
        await io.publish(f"log of {key}", 1)

    plan = only(handler)
    error = failed_with(store, handler)
    assert (error.code, SECRET in str(error)) == (Code.SECRET_IN_EVENT, False)
    run_id = machine.run(plan, store=store).run_id
    assert machine.replay(run_id, plan=plan, store=store).identical


def test_a_replay_finds_another_value_and_one_too_many(store):
    async def recorded(ctx, io):
        await io.publish("log", 1)

    async def another(ctx, io):
        await io.publish("log", 2)

    async def twice(ctx, io):
        await io.publish("log", 1)
        await io.publish("log", 1)

    async def silent(ctx, io):
        ctx["n"] = 1

    run_id = machine.run(only(recorded), store=store).run_id
    for handler in (another, twice, silent):
        found = machine.replay(run_id, plan=only(handler), store=store)
        assert not found.identical, handler.__name__


def test_a_fork_begins_with_what_it_shares_and_counts_on(store):
    plan = Plan("pub")

    @plan.state("say.first")
    async def first(ctx, io):
        await io.publish("log", "shared")

    @plan.state("say.second", after=[first])
    async def second(ctx, io):
        ctx["offsets"] = [await io.publish("log", said) for said in say]

    say = ["two", "three"]
    parent = machine.run(plan, store=store)
    seq = next(e.seq for e in log_of(parent.run_id, store) if e.event.type == "state_completed")
    say = ["new", "two", "three"]
    fork = machine.fork(parent.run_id, plan=plan, at=seq + 2, store=store)  # in the second, after "two"
    assert fork.result.context == {"offsets": [3, 2, 4]}
    assert values(fork.run_id, "log", store) == [(1, "shared"), (2, "two"), (3, "new"), (4, "three")]
    assert values(parent.run_id, "log", store) == [(1, "shared"), (2, "two"), (3, "three")]
    assert machine.replay(fork.run_id, plan=plan, store=store).identical


def test_a_state_that_a_fork_makes_again_publishes_with_offsets_of_its_own(store):
    async def handler(ctx, io):
        early = await io.now() < 10
        ctx["offsets"] = [await io.publish("log", said) for said in ["early", "a", "b"][1 - early :]]

    plan = only(handler)
    parent = machine.run(plan, store=store)
    log = log_of(parent.run_id, store)
    (fact,) = [e.event for e in log if getattr(e.event, "namespace", "") == "clock.now"]
    fork = machine.fork(parent.run_id, plan=plan, at=len(log), set_facts={fact.key: 5}, store=store)
    assert fork.result.context == {"offsets": [1, 2, 3]}
    assert values(fork.run_id, "log", store) == [(1, "early"), (2, "a"), (3, "b")]
    assert values(parent.run_id, "log", store) == [(1, "a"), (2, "b")]
    assert machine.replay(fork.run_id, plan=plan, store=store).identical


def test_a_run_on_the_facts_of_another_publishes_its_own(store):
    plan = only(counts)
    first = machine.run(plan, store=store)
    config = RunConfig(io_mode="replay")
    second = machine.run(plan, store=store, facts_from=first.run_id, config=config)
    assert (second.status, second.context) == ("completed", first.context)
    assert values(second.run_id, "log", store) == values(first.run_id, "log", store)


def test_a_dry_run_publishes_as_a_run_does_to_its_own_log(store):
    seen = []

    async def handler(ctx, io):
        seen.append([await io.publish("log", 1), await io.publish("log", 2)])

    found = machine.dry_run(only(handler), store=store)
    assert (found.result.status, found.effects) == ("completed", ())
    assert seen == [[1, 2]]
    assert values(found.result.run_id, "log", store) == [(1, 1), (2, 2)]


def test_a_dry_run_of_a_state_with_effects_publishes_too(store):
    seen = []

    async def handler(ctx, io):
        seen.append([await io.publish("log", 1), await io.publish("log", 2)])
        await io.write_file("/nowhere/at/all", "x")

    plan = only(handler, side_effects="apply_side_effect", idempotency=lambda ctx: "key")
    found = machine.dry_run(plan, store=store)
    assert [effect.namespace for effect in found.effects] == ["file.write"]
    assert seen == [[1, 2]]
    assert values(found.result.run_id, "log", store) == [(1, 1), (2, 2)]


def test_a_run_that_goes_on_is_read_piece_by_piece(store):
    run_id = str(machine.new_run_id())
    seen = []

    def more():
        seen.append([item.value for item in reader[0].read()])

    reader = []

    async def first(ctx, io):
        await io.publish("log", 1)
        await io.publish("log", 2)

    def second(ctx):
        reader.append(StreamReader(store, run_id, "log"))
        assert machine_read(run_id, store, "nothing yet") == []
        more()
        assert not reader[0].ended

    async def third(ctx, io):
        await io.publish("log", 3)

    plan = Plan("pub")
    one = plan.state("say.first")(first)
    two = plan.state("say.second", after=[one])(second)
    plan.state("say.third", after=[two])(third)
    result = machine.run(plan, store=store, run_id=run_id)
    assert result.status == "completed", result.error
    more()
    more()
    assert seen == [[1, 2], [3], []]
    assert reader[0].ended


def machine_read(run_id, store, name):
    return StreamReader(store, run_id, name).read()


def test_a_transport_of_that_name_is_no_stream(store):
    class Queue(machine.BaseTransport):
        async def perform(self, namespace, request):
            return {"offset": 99}

    async def handler(ctx, io):
        ctx["sent"] = (await io.call("publish", {"stream": "log", "value": 0})).response
        ctx["offset"] = await io.publish("log", 0)

    plan = Plan("pub", transports={"publish": Queue()})
    plan.state("say.it")(handler)
    result = machine.run(plan, store=store)
    assert result.context == {"sent": {"offset": 99}, "offset": 1}
    assert values(result.run_id, "log", store) == [(1, 0)]
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def test_an_older_call_of_a_transport_of_that_name_is_refused_in_a_replay_as_it_was(store):
    async def handler(ctx, io):
        await io.call("publish", {})

    run_id = machine.run(only(handler), store=store).run_id
    assert machine.replay(run_id, plan=only(handler), store=store).identical


def test_a_bundle_that_people_review_keeps_the_streams(store, tmp_path):
    plan = only(counts)
    run_id = machine.run(plan, store=store).run_id
    export_run(run_id, tmp_path / "it.run", store=store, readable=True)
    with open_bundle(tmp_path / "it.run") as bundle:
        assert values(bundle.run_id, "log", bundle.store) == [(1, 7), (2, 7), (3, {"n": 8})]
