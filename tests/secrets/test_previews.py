"""Dry runs and secrets: a handler has true values, and what is shown, stored and previewed has placeholders."""

import machine
from machine import Plan, dry_run, open_store
from tests.secrets.engine_world import TOKEN, Outside


def previewed(**meta):
    """Return a plan that reads a secret and sends it, and what its handlers saw."""
    plan, seen = Plan("previewed"), []

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        await io.call("api", {"q": 1}, fact_key="token")

    @plan.state("b.send", after=[read], side_effects="apply_side_effect", idempotency="b", **meta)
    async def send(ctx, io, rec):
        token = io.get_recorded_fact("token")["access_token"]
        seen.append(token)
        asked = {"headers": {"authorization": f"Bearer {token}"}, "length": len(token)}
        seen.append((await io.call("out", asked)).response["access_token"])
        seen.append(str(seen[-1]))

    transports = {
        "api": Outside(lambda _: {"access_token": TOKEN}),
        "out": Outside(lambda _: {"access_token": TOKEN[::-1]}, effect=True),
    }
    return plan, seen, transports


def test_a_handler_is_given_the_true_values_of_what_the_run_has_read():
    plan, seen, transports = previewed()
    store = open_store("memory://")
    dry = dry_run(plan, store=store, transports=transports)
    (effect,) = dry.effects
    assert (seen[0], effect.request["length"]) == (TOKEN, len(TOKEN))
    assert TOKEN not in repr(effect)


def test_a_secret_in_an_outcome_is_redacted_whoever_gives_it():
    preview = lambda ctx, request: {"access_token": TOKEN[::-1]}  # noqa: E731 - one of two previews
    for meta in ({"preview": preview}, {}):
        plan, seen, transports = previewed(**meta)
        store = open_store("memory://")
        earlier = machine.run(plan, store=store, transports=transports)
        dry = dry_run(plan, store=store, transports=transports, answers_from=earlier.run_id)
        assert seen[-1] == TOKEN[::-1]
        assert TOKEN[::-1] not in repr(dry.effects)
        assert dry.effects[0].source == ("preview" if meta else f"run {earlier.run_id}")
        real = machine.apply(dry.result.run_id, plan=plan, store=store, transports=transports)
        assert real.status == "completed"
