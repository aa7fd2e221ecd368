"""Refusals of secrets where a handler meets them: recorded, so that a replay meets them too; caught or not."""

import base64

import pytest

from machine import Plan, open_store, run
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
