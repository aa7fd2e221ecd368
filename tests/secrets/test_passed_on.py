"""A handler that only passes values on is replayed alike with the key, without it and after a resume."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from strategies import FAST

from machine import Plan, open_store, resume, run
from machine.secrets.credential_looks import looks_like_credential
from machine.secrets.encodings import is_plain
from machine.secrets.store_key import open_keys
from tests.crashes import left_after
from tests.secrets.engine_world import KEY, Outside, stored, told_alike

PLACES = {
    "set-cookie": lambda value: {"headers": {"set-cookie": f"theme={value}; Path=/"}},
    "a header": lambda value: {"headers": {"x-api-key": value}},
    "a scheme": lambda value: {"headers": {"authorization": f"Bearer {value}"}},
    "authorization": lambda value: {"headers": {"authorization": value}},
    "a field": lambda value: {"api_key": value},
    "JSON": lambda value: {"body": {"text": json.dumps({"password": value})}},
    "a form": lambda value: {"body": {"text": f"password={value}&a=b"}},
    "user-info": lambda value: {"url": f"https://bob:{value}@h/"},
    "a query": lambda value: {"url": f"https://h/?api_key={value}"},
    "nowhere": lambda value: {"note": value},
}
PLAIN = st.sampled_from(["dark", "none", "", "true", "0", "1234", "ab", "xxxxxxxx", "plain"])
RANDOM = st.text("abcdefXYZ0123456789-", min_size=4, max_size=20).filter(lambda text: not is_plain(text))


def passing(place, value):
    """Return a plan whose handler sends on what it was given, and keeps what may be kept."""
    plan = Plan("passing")

    @plan.state("a.pass", side_effects="read_only_io")
    async def pass_on(ctx, io, rec):
        await io.call("shop", {"n": 0})
        before, rest = json.dumps(PLACES[place]("@@")).split("@@")
        got = json.dumps((await io.call("shop", {"n": 1})).response)
        shown = got.removeprefix(before).removesuffix(rest)
        secret = await io.secret("PASSED_ON")
        for each in (shown, secret):
            await io.call("shop", {"note": each, "json": {"password": each}, "text": f"say {each}!"})
            await io.call("shop", {"headers": {"cookie": f"a={each}", "authorization": f"Bearer {each}"}})
        if is_plain(value):
            ctx["shown"] = shown

    return plan


@pytest.fixture(autouse=True, scope="module")
def _environment():
    yield
    os.environ.pop("PASSED_ON", None)


@settings(FAST, max_examples=8)
@given(st.sampled_from(list(PLACES)), PLAIN | RANDOM, RANDOM | st.none(), st.integers(1, 9))
@example("set-cookie", "dark", "other-9f8e7d6c", 6)
@example("authorization", "none", "other-9f8e7d6c", 7)
@example("a field", "", "other-9f8e7d6c", 8)
@example("a header", "tok-9f8e7d6c5b4a", None, 5)
@example("a header", "tok-9f8e7d6c5b4a", None, 9)
def test_what_is_passed_on_is_stored_alike_by_who_has_the_key_and_who_has_not(
    tmp_path_factory, place, value, secret, length
):
    secret = value if secret is None else secret  # what an answer has shown already
    shown = looks_like_credential(value) and place != "nowhere"
    assume(secret != value or shown)  # else it stands there in clear
    os.environ["PASSED_ON"] = secret
    plan = passing(place, value)
    outside = Outside(lambda request: PLACES[place](value) if request.get("n") == 1 else {})
    store = open_store("memory://")
    done = run(plan, store=store, transports={"shop": outside})
    assert done.error is None
    told_alike(done.run_id, plan, store, tmp_path_factory.mktemp("a"))
    left = left_after(store, done.run_id, min(length, done.head_seq - 1))
    open_keys(store).share(done.run_id, left)
    again = resume(left, plan=plan, store=store, transports={"shop": outside})
    assert (again.error, dict(again.context)) == (None, dict(done.context))
    told_alike(left, plan, store, tmp_path_factory.mktemp("b"))


@pytest.mark.parametrize("around", ["{}-9f8e7d6c", "pre-{}", "a1b2c3.{}.9f8e7d6c", "{}{}", "{}%20x1y2"])
@pytest.mark.parametrize("place", PLACES)
def test_a_secret_that_holds_another_one_is_passed_on_as_a_whole(tmp_path, monkeypatch, place, around):
    monkeypatch.setenv("PASSED_ON", KEY)
    plan = Plan("holds")

    @plan.state("a.pass", side_effects="read_only_io")
    async def pass_on(ctx, io, rec):
        await io.secret("PASSED_ON")
        before, rest = json.dumps(PLACES[place]("@@")).split("@@")
        got = json.dumps((await io.call("shop", {"n": 1})).response)
        shown = got.removeprefix(before).removesuffix(rest)
        await io.call("shop", {"note": shown, "json": {"password": shown}, "text": f"say {shown}!"})

    value = around.format(KEY, KEY)
    outside = Outside(lambda request: PLACES[place](value) if "n" in request else {})
    store = open_store("memory://")
    done = run(plan, store=store, transports={"shop": outside})
    assert (done.error, outside.asked[1]["note"]) == (None, value)
    assert KEY.encode() not in stored(store, done.run_id)
    told_alike(done.run_id, plan, store, tmp_path)


def test_a_value_that_a_state_before_was_given_has_the_name_that_its_own_state_reads_it_under(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PASSED_ON", KEY)
    plan = Plan("twice")

    @plan.state("a.given", side_effects="read_only_io")
    async def given(ctx, io, rec):
        await io.call("shop", {"n": 1})

    @plan.state("b.read", after=[given], side_effects="read_only_io")
    async def read(ctx, io, rec):
        secret = await io.secret("PASSED_ON")
        shown = (await io.call("shop", {"n": 2})).response["api_key"]
        await io.call("shop", {"same": secret == shown, "json": {"password": shown}})

    store = open_store("memory://")
    outside = Outside(lambda request: {"api_key": KEY} if "n" in request else {})
    done = run(plan, store=store, transports={"shop": outside})
    assert outside.asked[-1] == {"same": True, "json": {"password": KEY}}
    told_alike(done.run_id, plan, store, tmp_path)
