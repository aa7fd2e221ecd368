"""Where more than a secret is sealed, the keyed hash of a request tells another one, to who has the key."""

from __future__ import annotations

import base64

import pytest

from machine import Plan, open_store, replay, run
from machine.recordings.divergence import DivergenceKind
from tests.secrets.engine_world import KEY, Outside, elsewhere, stored, told_alike

SEALED = {
    "a text with more than a thousand findings": lambda key, more: {
        "text": f"{more}\n" + f"{key}\n" * 1001,
    },
    "a text with more than a thousand passwords": lambda key, more: {
        "text": more + "".join(f"&password=aB3dE5fG{number}" for number in range(1001)),
    },
    "bytes": lambda key, more: {
        "base64": base64.b64encode(f"{key} {more}".encode() + b"\xff").decode(),
    },
    "base64": lambda key, more: {"json": {"content": base64.b64encode(f"{key} {more}".encode()).decode()}},
    "packed JSON": lambda key, more: {
        "text": base64.b64encode(f'{{"more":"{more}","password":"aB3dE5fG7h"}}'.encode()).decode(),
    },
}


def sending(body, more):
    plan = Plan("sealed")

    @plan.state("a.send", side_effects="read_only_io")
    async def send(ctx, io, rec):
        key = await io.secret("UP_KEY")
        await io.call("shop", {"body": body(key, more)})

    return plan


@pytest.mark.parametrize("body", SEALED.values(), ids=SEALED)
def test_another_body_diverges_with_the_key(monkeypatch, tmp_path, body):
    monkeypatch.setenv("UP_KEY", KEY)
    store = open_store("memory://")
    plan = sending(body, "one")
    done = run(plan, store=store, transports={"shop": Outside(lambda request: {})})
    assert done.error is None
    assert KEY.encode() not in stored(store, done.run_id)
    told_alike(done.run_id, plan, store, tmp_path)
    other = replay(done.run_id, plan=sending(body, "two"), store=store)
    assert other.divergence.kind is DivergenceKind.REQUEST_CHANGED
    assert "request_mac" in str(other.divergence.changes)
    without = replay(done.run_id, plan=sending(body, "two"), store=elsewhere(store, done.run_id, tmp_path))
    assert without.identical, "what is stored does not tell"


def test_a_value_in_a_credential_place_may_be_another(monkeypatch):
    """What is a secret by its place alone is not compared: it may have been changed since."""
    plan = Plan("place")
    header = ["one-9f8e7d6c"]

    @plan.state("a.send", side_effects="read_only_io")
    async def send(ctx, io, rec):
        await io.call("shop", {"headers": {"authorization": f"Bearer {header[0]}"}})

    store = open_store("memory://")
    done = run(plan, store=store, transports={"shop": Outside(lambda request: {})})
    header[0] = "two-9f8e7d6c"
    assert replay(done.run_id, plan=plan, store=store).identical
