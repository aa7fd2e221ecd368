"""Secrets in runs of format 1: what a handler holds, what is sent, what a replay and a resumed run need."""

from __future__ import annotations

import json
import os
import pickle

import pytest

from machine import (
    Plan,
    RunConfig,
    Secret,
    SecretPolicy,
    canonical,
    replay,
    resume,
    run,
)
from machine.engine import run_reader
from machine.errors import Code, StateError
from machine.events import FactRecorded
from machine.io.transport import BaseTransport
from machine.stores import MemoryStore

pytestmark = pytest.mark.usefixtures("format_1")

VALUE = "s3cret-value-of-the-token"


class Outside(BaseTransport):
    """Answers with what a function makes of a request, and keeps what it was asked."""

    def __init__(self, answer=lambda request: {"ok": True}, *, effect=False):
        self.answer, self.effect, self.asked = answer, effect, []

    def is_effect(self, namespace, request):
        return self.effect

    async def perform(self, namespace, request):
        self.asked.append(request)
        return self.answer(request)


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("API_TOKEN", VALUE)


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


def plan_of(handler, **meta):
    plan = Plan("keeps")
    plan.state("a.only", **{"side_effects": "read_only_io", **meta})(handler)
    return plan


def requests_of(store, run_id, namespace):
    return [
        canonical.decode(store.get(entry.event.request_digest))
        for entry, _ in run_reader.entries(store, run_id)
        if isinstance(entry.event, FactRecorded) and entry.event.namespace == namespace
    ]


def cut_after(store, run_id, fits):
    """Return a store that holds a run as a crash right after its first event that fits leaves it."""
    cut = MemoryStore()
    cut._contents.secret_key = store._contents.secret_key
    for kind, data in store._contents.artifacts.values():
        cut.put(kind, data)
    log = list(store.read_range(run_id, 1))
    end = next(entry.seq for entry, _ in run_reader.entries(store, run_id) if fits(entry.event))
    cut.append(run_id, 0, log[:end])
    return cut


def test_a_handler_never_holds_the_value(store):
    held = []

    async def handler(ctx, io, rec):
        secret = await io.secret("API_TOKEN")
        held.extend(
            (
                secret,
                str(secret),
                repr(secret),
                f"{secret!s:>5}",
                json.dumps(secret),
                pickle.loads(pickle.dumps(secret)),
            )
        )
        assert isinstance(secret, Secret)
        assert secret.name == "API_TOKEN"

    assert run(plan_of(handler), store=store).status == "completed"
    assert len(held) == 6
    assert not [item for item in held if VALUE in item]


def test_a_value_is_put_back_where_the_handle_stands(store):
    outside = Outside()

    async def handler(ctx, io, rec):
        secret = await io.secret("API_TOKEN")
        await io.call("outside", {"a": secret, "b": [f"x{secret}y"], "c": json.dumps({"d": f"{secret}"})})

    assert run(plan_of(handler), store=store, transports={"outside": outside}).status == "completed"
    assert outside.asked == [{"a": VALUE, "b": [f"x{VALUE}y"], "c": json.dumps({"d": VALUE})}]


def test_a_whole_secret_is_recorded_as_an_object(store):
    async def handler(ctx, io, rec):
        await io.call("outside", {"password": "hunter-2-hunter", "t": await io.secret("API_TOKEN")})

    result = run(plan_of(handler), store=store, transports={"outside": Outside()})
    (request,) = requests_of(store, result.run_id, "outside")
    assert {key: (value["$secret"], len(value["mac"])) for key, value in request.items()} == {
        "password": ("password", 32),
        "t": ("API_TOKEN", 32),
    }


def test_a_replay_needs_no_secret(store, monkeypatch):
    async def handler(ctx, io, rec):
        answer = await io.call(
            "outside", {"password": os.environ.get("API_TOKEN", "gone"), "h": await io.secret("API_TOKEN")}
        )
        await io.call(
            "outside",
            {
                "sent": answer.response["access_token"],
                "authorization": f"Bearer {os.environ.get('API_TOKEN')}",
            },
        )

    outside = Outside(lambda request: {"access_token": "tok-captured-1", "echo": request})
    result = run(plan_of(handler), store=store, transports={"outside": outside})
    assert result.status == "completed"
    assert outside.asked[1]["sent"] == "tok-captured-1"
    monkeypatch.delenv("API_TOKEN")
    again = replay(result.run_id, plan=plan_of(handler), store=store, transports={"outside": Outside()})
    assert (again.divergence, again.digest) == (None, result.digest)


def test_a_replay_finds_a_request_that_changed_beside_its_secret(store):
    def handler_for(page):
        async def handler(ctx, io, rec):
            await io.call(
                "outside", {"page": page, "password": "pw-of-the-run", "h": await io.secret("API_TOKEN")}
            )

        return handler

    result = run(plan_of(handler_for(1)), store=store, transports={"outside": Outside()})
    again = replay(
        result.run_id, plan=plan_of(handler_for(2)), store=store, transports={"outside": Outside()}
    )
    assert again.divergence is not None
    assert [change.pointer for change in again.divergence.changes] == ["/request/page"]


def test_two_secrets_that_change_places_are_found(store):
    def handler_for(first, second):
        async def handler(ctx, io, rec):
            for name in (first, second, first):
                await io.call("outside", {"password": name})

        return handler

    outside = {"outside": Outside()}
    result = run(plan_of(handler_for("pw-number-one", "pw-number-two")), store=store, transports=outside)
    same = replay(
        result.run_id,
        plan=plan_of(handler_for("pw-rotated-a", "pw-rotated-b")),
        store=store,
        transports=outside,
    )
    assert same.identical
    other = replay(
        result.run_id, plan=plan_of(handler_for("pw-same", "pw-same")), store=store, transports=outside
    )
    assert not other.identical


@pytest.mark.parametrize(("stable", "moves"), [((), True), (("api-token",), False)])
def test_the_digest_moves_when_a_secret_rotates_unless_it_is_stable(store, monkeypatch, stable, moves):
    async def handler(ctx, io, rec):
        await io.call("outside", {"h": f"Bearer {await io.secret('API_TOKEN')}"})

    digests = []
    for value in ("first-value-of-it", "first-value-of-it", "rotated-value-of-it"):
        monkeypatch.setenv("API_TOKEN", value)
        outside = Outside()
        config = RunConfig(secrets=SecretPolicy(stable=stable))
        digests.append(
            run(plan_of(handler), store=store, config=config, transports={"outside": outside}).digest
        )
        assert outside.asked == [{"h": f"Bearer {value}"}]
    assert digests[0] == digests[1]
    assert (digests[1] != digests[2]) is moves


def test_a_secret_that_is_not_set_is_named(store, monkeypatch):
    monkeypatch.delenv("API_TOKEN")

    async def handler(ctx, io, rec):
        await io.secret("API_TOKEN")

    result = run(plan_of(handler), store=store)
    assert result.error.code == Code.SECRET_NOT_SET
    assert "API_TOKEN" in result.error.message
    assert replay(result.run_id, plan=plan_of(handler), store=store).identical


def test_a_secret_may_come_from_a_source_of_ones_own(store):
    outside = Outside()

    async def handler(ctx, io, rec):
        await io.call("outside", {"k": await io.secret("FROM.VAULT")})

    source = Outside(lambda request: {"value": f"value-of-{request['name']}"})
    run(plan_of(handler), store=store, transports={"outside": outside, "secret": source})
    assert outside.asked == [{"k": "value-of-FROM.VAULT"}]


@pytest.mark.parametrize(
    ("write", "path"),
    [
        (lambda secret: {"k": secret}, "$.k"),
        (lambda secret: {"k": {"deep": [f"x {secret}"]}}, "$.k.deep[0]"),
        (lambda secret: {"k": [VALUE]}, "$.k[0]"),
        (lambda secret: {"k": {"password": "hunter-2"}}, "$.k.password"),
        (lambda secret: {"api_key": "abcdefgh"}, "$.api_key"),
        (lambda secret: {"k": "https://u:hunter-2@h/"}, "$.k"),
    ],
)
def test_a_secret_in_the_context_is_refused_with_its_path(store, write, path):
    async def handler(ctx, io, rec):
        for key, value in write(await io.secret("API_TOKEN")).items():
            ctx[key] = value

    result = run(plan_of(handler), store=store)
    assert (result.error.code, result.error.details) == (Code.SECRET_IN_CONTEXT, {"path": path})
    assert "hunter-2" not in result.error.message
    if path != "$.k[0]":  # there the handler holds the value itself, which a replay does not know
        assert replay(result.run_id, plan=plan_of(handler), store=store).identical


def test_what_is_allowed_by_name_or_path_is_no_secret(store):
    async def handler(ctx, io, rec):
        ctx["k"] = {"csrf_token": "abcdefgh"}
        ctx["password"] = "the word"

    config = RunConfig(secrets=SecretPolicy(allow=["csrf-token", "$.password"]))
    assert run(plan_of(handler), store=store, config=config).status == "completed"
    assert run(plan_of(handler), store=store).error.code == Code.SECRET_IN_CONTEXT


def test_names_and_patterns_can_be_added(store):
    async def handler(ctx, io, rec):
        await io.call("outside", {"Pin_Code": "4711", "text": "order ACME-12345 now"})

    config = RunConfig(secrets=SecretPolicy(names=["pin-code"], patterns=[r"ACME-\d+"]))
    outside = Outside()
    result = run(plan_of(handler), store=store, config=config, transports={"outside": outside})
    (request,) = requests_of(store, result.run_id, "outside")
    assert request["Pin_Code"]["$secret"] == "Pin_Code"
    assert "ACME" not in request["text"]
    assert outside.asked == [{"Pin_Code": "4711", "text": "order ACME-12345 now"}]


def test_a_secret_in_a_fact_key_stops_the_run_before_it_is_written(store):
    async def handler(ctx, io, rec):
        await io.secret("API_TOKEN")
        await io.call("outside", {}, fact_key=f"key-{VALUE}")

    with pytest.raises(StateError) as refused:
        run(plan_of(handler), store=store, transports={"outside": Outside()})
    assert (refused.value.code, refused.value.info.details["path"]) == (Code.SECRET_IN_EVENT, "$.key")
    assert VALUE not in str(refused.value)
    (row,) = store.list_runs().rows
    assert not [stored for stored in store.read_range(row.run_id, 1) if VALUE.encode() in stored.data]


def test_a_handle_from_outside_fetches_nothing(store):
    outside = Outside()
    known = []

    async def handler(ctx, io, rec):
        known.append(await io.secret("API_TOKEN"))
        answer = await io.call("evil", {})
        await io.call("outside", {"back": answer.response["say"]})

    evil = Outside(lambda request: {"say": str(known[0])})
    result = run(plan_of(handler), store=store, transports={"outside": outside, "evil": evil})
    assert not outside.asked
    assert result.error.code == Code.SECRET_UNAVAILABLE


def test_a_resumed_run_reads_its_secrets_again_and_repeats_no_effect(store, monkeypatch):
    effects = Outside(effect=True)
    outside = Outside()

    async def handler(ctx, io, rec):
        secret = await io.secret("API_TOKEN")
        await io.call("effect", {"authorization": f"Bearer {secret}", "password": "literal-pw-1"})
        await io.call("outside", {"k": secret})

    meta = {"side_effects": "apply_side_effect", "idempotency": "once"}
    plan = plan_of(handler, **meta)
    doors = {"outside": outside, "effect": effects}
    result = run(plan, store=store, transports=doors)
    cut = cut_after(
        store, result.run_id, lambda event: isinstance(event, FactRecorded) and event.namespace == "effect"
    )
    effects.asked.clear()
    outside.asked.clear()
    resumed = resume(result.run_id, plan=plan, store=cut, transports=doors)
    assert (resumed.status, effects.asked, outside.asked) == ("completed", [], [{"k": VALUE}])
    monkeypatch.delenv("API_TOKEN")
    assert replay(result.run_id, plan=plan, store=cut, transports=doors).identical


def test_a_resumed_run_asks_again_for_what_was_captured(store):
    login = Outside(lambda request: {"access_token": f"captured-{len(login.asked)}"})
    outside = Outside()

    async def handler(ctx, io, rec):
        token = (await io.call("login", {})).response["access_token"]
        await io.call("outside", {"h": f"Bearer {token}"})

    doors = {"login": login, "outside": outside}
    result = run(plan_of(handler), store=store, transports=doors)
    cut = cut_after(store, result.run_id, lambda event: isinstance(event, FactRecorded))
    resumed = resume(result.run_id, plan=plan_of(handler), store=cut, transports=doors)
    assert resumed.status == "completed"
    assert [request["h"] for request in outside.asked] == ["Bearer captured-1", "Bearer captured-2"]
    assert replay(result.run_id, plan=plan_of(handler), store=cut, transports=doors).identical


def test_what_an_effect_captured_is_gone_with_its_process(store):
    login = Outside(lambda request: {"access_token": "captured-by-an-effect"}, effect=True)
    outside = Outside()

    async def handler(ctx, io, rec):
        token = (await io.call("login", {})).response["access_token"]
        await io.call("outside", {"h": f"Bearer {token}"})

    plan = plan_of(handler, side_effects="apply_side_effect", idempotency="once")
    doors = {"login": login, "outside": outside}
    result = run(plan, store=store, transports=doors)
    assert result.status == "completed"
    cut = cut_after(store, result.run_id, lambda event: isinstance(event, FactRecorded))
    resumed = resume(result.run_id, plan=plan, store=cut, transports=doors)
    assert (resumed.error.code, len(login.asked)) == (Code.SECRET_UNAVAILABLE, 1)
    assert replay(result.run_id, plan=plan, store=cut, transports=doors).identical


def test_an_error_of_a_transport_is_told_without_the_value(store):
    class Failing(Outside):
        async def perform(self, namespace, request):
            raise ValueError(f"cannot send {request['k']}")

    async def handler(ctx, io, rec):
        await io.call("outside", {"k": await io.secret("API_TOKEN")})

    result = run(plan_of(handler), store=store, transports={"outside": Failing()})
    assert VALUE not in result.error.message
    assert '"$secret":"API_TOKEN"' in result.error.message


def test_no_part_of_a_value_is_left_where_a_long_message_is_cut(store):
    async def handler(ctx, io, rec):
        await io.secret("API_TOKEN")
        raise ValueError("x" * (8192 - len("ValueError: ") - 10) + VALUE)

    result = run(plan_of(handler), store=store)
    assert VALUE[:8] not in result.error.message


def test_a_whole_url_may_be_secret(store, server, monkeypatch):
    monkeypatch.setenv("HOOK_URL", f"{server.url}/hook/T0/B1/x9y8z7w6")

    async def handler(ctx, io, rec):
        await io.http("GET", await io.secret("HOOK_URL"), params={"a": 1})

    result = run(plan_of(handler), store=store)
    assert [seen["path"] for seen in server.seen] == ["/hook/T0/B1/x9y8z7w6?a=1"]
    (request,) = requests_of(store, result.run_id, "http")
    assert "x9y8z7w6" not in json.dumps(request)
    assert result.status == "completed"
