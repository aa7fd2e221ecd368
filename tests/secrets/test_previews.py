"""Previews of a dry run: secrets that the run has read are opened for them, as for a resumed run."""

import pytest

from machine import Plan, dry_run, open_store
from machine.secrets.store_key import StoreKeys
from tests.secrets.engine_world import TOKEN, Outside


@pytest.mark.parametrize("opens", [True, False])
def test_a_preview_is_given_the_true_values_of_what_the_run_has_read(monkeypatch, opens):
    plan, seen = Plan("previewed"), []

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        await io.call("api", {"q": 1}, fact_key="token")

    @plan.state("b.send", after=[read], side_effects="apply_side_effect", idempotency="b")
    async def send(ctx, io, rec):
        token = io.get_recorded_fact("token")["access_token"]
        seen.append(token)
        await io.call("out", {"headers": {"authorization": f"Bearer {token}"}, "length": len(token)})

    transports = {
        "api": Outside(lambda _: {"access_token": TOKEN}),
        "out": Outside(lambda _: {}, effect=True),
    }
    if not opens:  # the key is forgotten when the run has ended
        monkeypatch.setattr("machine.engine.dry_run.open_keys", lambda _: StoreKeys(open_store("memory://")))
    (effect,) = dry_run(plan, store=open_store("memory://"), transports=transports).effects
    if opens:
        assert (seen, effect.request["length"]) == ([TOKEN], len(TOKEN))
    else:
        assert "cannot be opened" in effect.unknown
    assert TOKEN not in repr(effect)
