"""Secrets that only a request has shown: who goes on with a run elsewhere knows them, and so does every replay."""

from __future__ import annotations

import pytest

from machine import DomainEvent, Plan, RunConfig, SecretPolicy, fork, open_store, replay, resume, run
from machine.recordings.bundle import export_run, import_bundle
from machine.secrets.bundle_key import BundleKey
from machine.secrets.store_key import open_keys
from tests.crashes import left_after
from tests.secrets.engine_world import KEY, Outside, elsewhere, stored

WORD = BundleKey(passphrase="correct horse")
POLICY = SecretPolicy(names=["pin_code"], stand_ins={"SERVICE": "an-invented-key"})
OWN = "own-5f6e7d8c9b0a1f2e"


@pytest.fixture
def outside(monkeypatch):
    monkeypatch.setenv("SERVICE", KEY)
    return Outside(lambda request: {"n": len(request)})


def showing():
    """Return a plan whose first state shows a secret of its own in a request, beside a stand-in for another."""
    plan = Plan("shows")

    @plan.state("a.show", side_effects="read_only_io")
    async def show(ctx, io, rec):
        key = await io.secret("SERVICE")
        ctx["n"] = (await io.call("api", {"pin_code": OWN, "headers": {"x-api-key": key}})).response["n"]

    @plan.state("b.say", after=[show], side_effects="read_only_io")
    async def say(ctx, io, rec):
        await rec.emit(DomainEvent("said", {"text": f"it is {OWN}"}))
        ctx["m"] = (await io.call("api", {"q": 1})).response["n"]

    @plan.state("c.fail", after=[say])
    def fail(ctx):
        raise RuntimeError(f"not {OWN}")

    return plan


def held(store, run_id, plan, *, key):
    """Hold a run to it that the secret is nowhere in it, and that it is replayed as who has the key can do it."""
    data = stored(store, run_id)
    assert OWN.encode() not in data
    assert KEY.encode() not in data
    again = replay(run_id, plan=plan, store=store)
    assert again.identical, again.divergence
    assert again.secrets == key


@pytest.mark.long
def test_a_run_that_is_cut_anywhere_goes_on_where_its_bundle_brings_it(tmp_path, outside):
    plan, transports = showing(), {"api": outside}
    with open_store(tmp_path / "runs.db") as store:
        whole = run(plan, store=store, transports=transports, config=RunConfig(secrets=POLICY))
        assert (whole.error.code, outside.asked[0]["headers"]) == ("handler_error", {"x-api-key": KEY})
        held(store, whole.run_id, plan, key="opened")
        for length in range(2, whole.head_seq):
            left = left_after(store, whole.run_id, length)
            open_keys(store).share(whole.run_id, left)
            export_run(left, tmp_path / "cut.run", store=store, secrets=WORD)
            with open_store(tmp_path / f"other{length}.db") as other:
                import_bundle(tmp_path / "cut.run", store=other, secrets=WORD)
                gone_on = resume(left, plan=plan, store=other, transports=transports)
                assert (gone_on.error, gone_on.context) == (whole.error, whole.context), length
                held(other, left, plan, key="opened")


def test_a_fork_anywhere_knows_what_the_shared_past_has_shown(tmp_path, outside):
    plan, transports = showing(), {"api": outside}
    with open_store(tmp_path / "runs.db") as store:
        whole = run(plan, store=store, transports=transports, config=RunConfig(secrets=POLICY))
        for at in range(1, whole.head_seq):
            forked = fork(whole.run_id, plan=plan, store=store, at=at, transports=transports)
            assert forked.result.context == whole.context
            held(store, forked.run_id, plan, key="opened")


def test_a_replay_without_the_key_learns_it_from_the_handler(tmp_path, outside):
    plan = showing()
    with open_store(tmp_path / "runs.db") as store:
        whole = run(plan, store=store, transports={"api": outside}, config=RunConfig(secrets=POLICY))
        held(elsewhere(store, whole.run_id, tmp_path), whole.run_id, plan, key="placeholders")
