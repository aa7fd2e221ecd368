"""Refusals of secrets where a handler meets them: recorded, so that a replay meets them too; caught or not."""

import base64
import json
import re

import pytest

from machine import Plan, RunConfig, SecretPolicy, open_store, replay, run
from machine.errors import UsageError
from machine.secrets.rules import Rules
from machine.stores import MemoryStore
from tests.secrets.engine_world import KEY, Outside, stored, told_alike


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY", KEY)


async def _unread(io, held):
    await io.call("api", {"note": f"x {held['key']}"})


async def _unread_in_base64(io, held):
    packed = base64.b64encode(f"app:{held['key']}".encode()).decode()
    await io.call("api", {"deep": [{"note": packed}]})


async def _placeholder(io, held):
    await io.call("api", {"note": "x __secret_KEY__"})


async def _fact_key(io, held):
    await io.call("api", {"n": 0}, fact_key=f"x/{await io.secret('KEY')}")


async def _value_key(io, held):
    await io.record_value(f"x/{await io.secret('KEY')}", 1)


REFUSED = [
    (_unread, "secret_not_read"),
    (_unread_in_base64, "secret_not_read"),
    (_placeholder, "secret_unavailable"),
    (_fact_key, "secret_in_event"),
    (_value_key, "secret_in_event"),
]


@pytest.mark.parametrize(("ask", "code"), REFUSED, ids=[ask.__name__ for ask, _ in REFUSED])
@pytest.mark.parametrize("catches", [False, True], ids=["fails", "goes on"])
@pytest.mark.parametrize("effect", [False, True], ids=["read", "effect"])
def test_a_refusal_is_replayed_and_nothing_was_sent(tmp_path, ask, code, catches, effect):
    plan, held = Plan("refused"), {}

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        held["key"] = await io.secret("KEY")

    @plan.state("b.use", after=[read], side_effects="apply_side_effect", idempotency="use")
    async def use(ctx, io, rec):
        try:
            await ask(io, held)
        except Exception as exc:
            if not catches:
                raise
            ctx["code"] = str(exc.code)
            ctx["answer"] = (await io.call("api", {"n": 1})).response

    store, api = open_store("memory://"), Outside(lambda request: {"ok": request["n"]}, effect=effect)
    result = run(plan, store=store, transports={"api": api})
    if catches:
        assert (result.error, dict(result.context)) == (None, {"code": code, "answer": {"ok": 1}})
    else:
        assert (result.status, result.error.code) == ("failed", code)
    assert api.asked == [{"n": 1}] * catches
    assert KEY.encode() not in stored(store, result.run_id)
    told_alike(result.run_id, plan, store, tmp_path)


def _like_php(value):
    return json.dumps({"note": value}).replace("/", "\\/")


def _like_go(value):
    text = json.dumps({"note": value}, ensure_ascii=False)
    return re.sub("[&<>]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _like_dot_net(value):
    return re.sub("[&<>'+]", lambda found: f"\\u{ord(found[0]):04X}", json.dumps({"note": value}))


ESCAPED = {
    **{each.__name__: each for each in (_like_php, _like_go, _like_dot_net)},
    "_twice": lambda value: json.dumps({"a": _like_php(value)}),
}

WRITTEN = {
    "a key": lambda value: {value: 1},
    "a key in a list": lambda value: [{f"the {value}": 1}],
    **ESCAPED,
}


@pytest.mark.parametrize("value", ["k-4f9a/8e&7d<6c>5b+4a'39", "abcXYZ12345def", "kéy-😀-1234567&x"])
@pytest.mark.parametrize("make", WRITTEN.values(), ids=WRITTEN)
def test_a_secret_that_is_written_to_the_context_is_refused_alike_without_the_key(
    monkeypatch, tmp_path, value, make
):
    monkeypatch.setenv("KEY", value)
    plan = Plan("written")

    @plan.state("a.write", side_effects="read_only_io")
    async def write(ctx, io, rec):
        ctx["x"] = make(await io.secret("KEY"))

    store = open_store("memory://")
    result = run(plan, store=store)
    assert result.error.code == "secret_in_context"
    assert value[-6:] not in result.error.message
    told_alike(result.run_id, plan, store, tmp_path)


TOKEN_IN_DOCS = "ghp_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3z5A"


@pytest.mark.parametrize("allowed", ["$.docs.example", '$["docs"]["example"]', "/docs/example", "$.docs"])
def test_a_path_that_the_policy_allows_is_not_refused(allowed):
    plan = Plan("allowed")

    @plan.state("a.write")
    def write(ctx):
        ctx["docs"] = {"example": ctx["docs"]["example"], "again": 1}

    exact = allowed != "$.docs"
    config = RunConfig(secrets=SecretPolicy(allow=[allowed]))
    store, docs = open_store("memory://"), {"docs": {"example": TOKEN_IN_DOCS}}
    if exact:
        result = run(plan, input=docs, store=store, config=config)
        assert result.context["docs"] == {"example": TOKEN_IN_DOCS, "again": 1}
    else:
        with pytest.raises(UsageError, match="the input may hold no secret"):
            run(plan, input=docs, store=store, config=config)


@pytest.mark.parametrize("value", ["k-4f9a/8e&7d<6c>5b+4a'39", "kéy-😀-1234567&x"])
@pytest.mark.parametrize("make", ESCAPED.values(), ids=ESCAPED)
@pytest.mark.parametrize("around", ["{}", "said: {} at 9"], ids=["whole", "in a text"])
def test_a_secret_that_another_language_escaped_is_replaced(monkeypatch, tmp_path, value, make, around):
    monkeypatch.setenv("KEY", value)
    plan, got = Plan("echoed"), []

    @plan.state("a.ask", side_effects="read_only_io")
    async def ask(ctx, io, rec):
        text = around.format(make(await io.secret("KEY")))
        got.append((await io.call("api", {"note": text})).response["echo"] == text)

    store, api = open_store("memory://"), Outside(lambda request: {"echo": request["note"]})
    result = run(plan, store=store, transports={"api": api})
    assert (result.error, got) == (None, [True])
    assert api.asked == [{"note": around.format(make(value))}]
    assert value[-8:].encode() not in stored(store, result.run_id)
    assert b"1234567" not in stored(store, result.run_id)
    assert b"k-4f9a" not in stored(store, result.run_id)
    told_alike(result.run_id, plan, store, tmp_path)


def test_a_replay_looks_for_secrets_in_the_context_only_where_its_recording_refused_one(monkeypatch):
    """What was written and not refused then is compared, and need not be searched again."""
    plan, looked = Plan("op"), []

    @plan.state("a.writes")
    async def writes(ctx, io, rec):
        ctx["said"] = "nothing secret"

    @plan.state("b.leaks", after=[writes], side_effects="read_only_io")
    async def leaks(ctx, io, rec):
        ctx["key"] = await io.secret("KEY")

    monkeypatch.setattr(Rules, "look", property(lambda _: looked.append))
    with MemoryStore() as store:
        done = run(plan, store=store)
        assert done.error.code == "secret_in_context"
        assert looked[0] == b'said"nothing secret"'
        looked.clear()
        assert replay(done.run_id, plan=plan, store=store).identical
    assert b'said"nothing secret"' not in looked
