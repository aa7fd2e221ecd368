"""Two users' tokens that stand in the same place: no answer of one is ever given to the other."""

import asyncio
import random

import pytest

from machine import Plan, RunConfig, fork, open_store, resume, run
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.events import FactRecorded
from machine.secrets.store_key import open_keys
from tests.crashes import left_after
from tests.secrets.engine_world import Outside, elsewhere, seqs, told_alike


def facts_of(store, run_id):
    entries = [entry for entry, _ in run_reader.entries(store, run_id)]
    return [entry.event for entry in entries if isinstance(entry.event, FactRecorded)]


NAMES = {"tok-ann-9f8e7d6c5b4a": "ann", "tok-bob-1a2b3c4d5e6f": "bob"}
RIGHT = {"ann": ["ann", "ann"], "bob": ["bob", "bob"]}
MODES = [RunConfig(), RunConfig(execution_mode=FanOutJoin(4))]


def racing(order, pace):
    """Return a plan whose handler races the tokens in an order that may change, and its outside."""
    plan = Plan("users")

    @plan.state("a.both", side_effects="read_only_io")
    async def both(ctx, io, rec):
        async def one(token):
            found = []
            for n in range(2):
                request = {"n": n, "headers": {"authorization": f"Bearer {token}"}}
                found.append((await io.call("api", request)).response["name"])
            ctx[NAMES[token]] = found

        await asyncio.gather(*(one(token) for token in order))

    async def answer(request):
        await asyncio.sleep(pace.random() * 0.002)
        return {"name": NAMES[request["headers"]["authorization"].removeprefix("Bearer ")]}

    return plan, Outside(answer)


@pytest.mark.parametrize("config", MODES, ids=["one after the other", "concurrent"])
def test_racing_users_are_told_apart_after_a_cut_at_every_event(tmp_path, config):
    order = list(NAMES)
    plan, api = racing(order, random.Random(1))
    store = open_store("memory://")
    result = run(plan, store=store, transports={"api": api}, config=config)
    assert dict(result.context) == RIGHT
    for length in range(1, seqs(store, result.run_id, "state_completed")[0]):
        for keeps_key in (True, False):
            left = left_after(store, result.run_id, length)
            if keeps_key:
                open_keys(store).share(result.run_id, left)
            order.reverse()
            resumed = resume(left, plan=plan, store=store, transports={"api": api})
            assert (resumed.error, dict(resumed.context)) == (None, RIGHT), length
            told_alike(left, plan, store, tmp_path)


@pytest.mark.parametrize("config", MODES, ids=["one after the other", "concurrent"])
def test_racing_users_are_told_apart_in_forks(tmp_path, config):
    order = list(NAMES)
    plan, api = racing(order, random.Random(2))
    store = open_store("memory://")
    result = run(plan, store=store, transports={"api": api}, config=config)
    other = open_store("memory://")
    there = elsewhere(store, result.run_id, tmp_path)
    for length in range(2, seqs(store, result.run_id, "state_completed")[0]):
        for source, target in ((store, store), (store, other), (there, there)):
            order.reverse()
            forked = fork(
                result.run_id,
                at=length,
                plan=plan,
                store=target,
                source=source,
                transports={"api": api},
            )
            assert (forked.result.error, dict(forked.result.context)) == (None, RIGHT), length
            told_alike(forked.run_id, plan, target, tmp_path)


def test_racing_users_are_told_apart_where_a_fact_is_replaced(tmp_path):
    order = list(NAMES)
    plan, api = racing(order, random.Random(3))
    store = open_store("memory://")
    result = run(plan, store=store, transports={"api": api})
    for fact in seqs(store, result.run_id, "fact_recorded"):
        for _ in range(2):
            order.reverse()
            asked = len(api.asked)
            forked = fork(
                result.run_id,
                at=result.head_seq,
                set_facts={str(fact): {"name": "zoe"}},
                plan=plan,
                store=store,
                transports={"api": api},
            )
            context = dict(forked.result.context)
            assert sorted(name for names in context.values() for name in names).count("zoe") == 1
            assert all(set(names) <= {user, "zoe"} for user, names in context.items())
            assert len(api.asked) == asked
            told_alike(forked.run_id, plan, store, tmp_path)


@pytest.mark.parametrize("opens", [True, False], ids=["with the key", "without the key"])
def test_a_fork_never_sends_an_effect_again_that_held_a_secret(tmp_path, opens):
    plan = Plan("paying")

    @plan.state("a.look", side_effects="read_only_io")
    async def look(ctx, io, rec):
        ctx["n"] = (await io.call("api", {"of": "n"})).response

    @plan.state("b.pay", after=[look], side_effects="apply_side_effect", idempotency="pay")
    async def pay(ctx, io, rec):
        headers = {"authorization": "Bearer tok-ann-9f8e7d6c5b4a"}
        ctx["paid"] = (await io.call("shop", {"headers": headers})).response

    api, shop = Outside(lambda _: 1), Outside(lambda _: "paid", effect=True)
    transports = {"api": api, "shop": shop}
    store = open_store("memory://")
    result = run(plan, store=store, transports=transports)
    if not opens:
        store = elsewhere(store, result.run_id, tmp_path)
    look_at = str(seqs(store, result.run_id, "fact_recorded")[0])
    forked = fork(
        result.run_id,
        at=result.head_seq,
        set_facts={look_at: 2},
        plan=plan,
        store=store,
        transports=transports,
    )
    assert (forked.result.error, dict(forked.result.context)) == (None, {"n": 2, "paid": "paid"})
    assert len(shop.asked) == 1


def test_two_namespaces_that_are_asked_the_same_have_secrets_of_two_names(tmp_path):
    plan = Plan("places")

    @plan.state("a.both", side_effects="read_only_io")
    async def both(ctx, io, rec):
        tokens = [(await io.call(name, {"q": 1})).response["access_token"] for name in ("one.api", "two.api")]
        ctx["names"] = [(await io.call("one.me", {"t": token})).response["name"] for token in tokens]

    given = {"one": "tok-ann-9f8e7d6c5b4a", "two": "tok-bob-1a2b3c4d5e6f"}
    transports = {
        name: Outside(
            lambda asked, name=name: (
                {"name": NAMES[asked["t"]]} if "t" in asked else {"access_token": given[name]}
            )
        )
        for name in given
    }
    store = open_store("memory://")
    result = run(plan, store=store, transports=transports)
    assert dict(result.context) == {"names": ["ann", "bob"]}
    requests = {fact.request_digest for fact in facts_of(store, result.run_id) if fact.namespace == "one.me"}
    assert len(requests) == 2
    told_alike(result.run_id, plan, store, tmp_path)
