"""Refusals of secrets where a handler meets them: recorded, so that a replay meets them too; caught or not."""

import base64
import json
import re

import pytest

from machine import Plan, RunConfig, SecretPolicy, open_store, run
from machine.errors import UsageError
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


def _escaped(value):
    """Return JSON as other languages escape it: all that may matter in HTML, and slashes."""
    text = json.dumps({"password": value})
    return re.sub(r"[&<>'+-]", lambda found: f"\\u{ord(found[0]):04x}", text).replace("/", "\\/")


WRITTEN = {
    "a key": lambda value: {value: 1},
    "a key in a list": lambda value: [{f"the {value}": 1}],
    "escaped": _escaped,
    "escaped twice": lambda value: json.dumps({"a": _escaped(value)}),
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
