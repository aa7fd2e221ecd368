"""Stand-ins in runs: what arrives is what would have arrived with the true value, and what handlers get is not."""

import base64
import json
import re
from urllib.parse import quote, urlencode

import httpx
import pytest

from machine import Plan, SecretPolicy, canonical, fork, open_store, resume, run
from machine.config import RunConfig
from machine.errors import UsageError
from machine.io.redirect_secrets import Sensitive, parts
from machine.secrets.stand_ins import StandIns
from machine.secrets.store_key import open_keys
from machine.secrets.text_swap import Swap
from tests.crashes import left_after
from tests.secrets.engine_world import Outside, seqs, stored, told_alike

TRUE = 'tr"ue\\ é& key=+%/?#😀-9f8e7d6c5b4a'
STAND_IN = "an-invented-key"
NAMED = RunConfig(secrets=SecretPolicy(stand_ins={"APP_KEY": STAND_IN}))
TOKENS = RunConfig(secrets=SecretPolicy(stand_ins={"access_token": "an-invented-token"}))


def basic(text):
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def calls(url, key):
    """Yield requests with a key in every encoding in which programs write one."""
    for user in ("u", "us", "use"):  # at each of the places that a key may have in base64
        yield "GET", f"{url}/basic", {"headers": {"authorization": basic(f"{user}:{key}")}}
    yield "GET", f"{url}/jwt", {"headers": {"x-part": f"eyJh.{basic(f'?>?>{key}x')[6:].rstrip('=')}.sig"}}
    yield "GET", f"{url}/query", {"params": {"q": "a b", "t": f"<{key}>"}}
    yield "GET", f"{url}/path/{quote(key, safe='')}/x?a=1:2", {}
    yield "GET", f"{url}/hex", {"headers": {"x-part": key.encode().hex()}}
    yield "POST", f"{url}/json", {"json": {"deep": [key, {"text": json.dumps({"key": key, "n": 1})}]}}
    yield "POST", f"{url}/text", {"data": json.dumps({"key": f"a {key}", "n": 1})}
    yield "POST", f"{url}/form", {"data": {"grant": "x y", "key": key}}
    yield "POST", f"{url}/packed", {"data": base64.b64encode(f'{{"auth": "{basic(key)}"}}'.encode())}
    yield "POST", f"{url}/raw", {"data": b"\xff\x00" + key.encode()}
    yield (
        "POST",
        f"{url}/multipart",
        {
            "data": f'--b7\r\ncontent-disposition: form-data; name="k"\r\n\r\n{key}\r\n--b7--\r\n',
            "headers": {"content-type": "multipart/form-data; boundary=b7"},
        },
    )


def sending(url):
    plan = Plan("sends")

    @plan.state("a.send", side_effects="read_only_io")
    async def send(ctx, io, rec):
        key = await io.secret("APP_KEY")
        ctx["statuses"] = [
            (await io.http(method, to, **options)).status for method, to, options in calls(url, key)
        ]

    return plan


def test_what_arrives_is_what_would_have_with_the_true_value(server, monkeypatch, tmp_path):
    monkeypatch.setenv("APP_KEY", TRUE)
    server.answer = lambda seen: (200, [], {})
    plan = sending(server.url)
    assert run(plan, store=open_store("memory://")).status == "completed"
    wanted, server.seen[:] = list(server.seen), []
    store = open_store("memory://")
    result = run(plan, store=store, config=NAMED)
    assert (result.status, server.seen) == ("completed", wanted)
    told_alike(result.run_id, plan, store, tmp_path)
    facts = seqs(store, result.run_id, "fact_recorded")
    for length in (facts[0], facts[4], facts[-1]):
        server.seen.clear()
        left = left_after(store, result.run_id, length)
        open_keys(store).share(result.run_id, left)
        resumed = resume(left, plan=plan, store=store)
        assert resumed.context == result.context
        assert server.seen == wanted[len(wanted) - len(server.seen) :], length
        told_alike(left, plan, store, tmp_path)
    assert TRUE.encode() not in stored(store, result.run_id)


def for_users(url, users):
    plan = Plan("users")

    @plan.state("a.ask", side_effects="read_only_io")
    async def ask(ctx, io, rec):
        for user in users:
            token = (await io.http("GET", f"{url}/token", params={"user": user})).json()["access_token"]
            ctx[user] = (await io.http("GET", f"{url}/me", headers={"x-part": token})).json()["name"]

    return plan


def users_answer(seen):
    if "user=" in seen["path"]:
        return 200, [], {"access_token": f"tok-of-{seen['path'].partition('=')[2]}-9f8e7d6c5b4a"}
    return 200, [], {"name": seen["headers"]["x-part"].split("-")[2]}


def test_a_request_with_a_stand_in_for_two_is_refused_and_nothing_is_sent(server, tmp_path):
    server.answer = users_answer
    plan = for_users(server.url, ["ann", "bob"])
    store = open_store("memory://")
    result = run(plan, store=store, config=TOKENS)
    assert (result.status, result.error.code) == ("failed", "ambiguous_secret")
    assert [seen["path"] for seen in server.seen] == ["/token?user=ann", "/me", "/token?user=bob"]
    told_alike(result.run_id, plan, store, tmp_path)
    facts = seqs(store, result.run_id, "fact_recorded")
    for length in range(1, facts[-1]):
        server.seen.clear()
        left = left_after(store, result.run_id, length)
        open_keys(store).share(result.run_id, left)
        resumed = resume(left, plan=plan, store=store)
        assert (resumed.status, resumed.error.code) == ("failed", "ambiguous_secret"), length
        assert sum(seen["path"] == "/me" for seen in server.seen) <= 1
        told_alike(left, plan, store, tmp_path)


def test_two_in_one_answer_are_two_for_their_stand_in(tmp_path):
    plan = Plan("users")

    @plan.state("a.ask", side_effects="read_only_io")
    async def ask(ctx, io, rec):
        users = (await io.call("api", {"list": "users"})).response
        await io.call("api", {"with": users[0]["access_token"]})

    outside = Outside(lambda request: [{"access_token": f"tok-{n}-9f8e7d6c5b4a"} for n in range(2)])
    store = open_store("memory://")
    result = run(plan, store=store, config=TOKENS, transports={"api": outside})
    assert (result.error.code, outside.asked) == ("ambiguous_secret", [{"list": "users"}])
    told_alike(result.run_id, plan, store, tmp_path)


@pytest.mark.parametrize(
    "stand_in", ["an-invented-token", "invented-4711"]
)  # one that says what it is, and not
def test_users_behind_one_stand_in_are_told_apart_after_a_cut_at_every_event(server, tmp_path, stand_in):
    server.answer = users_answer
    config = RunConfig(secrets=SecretPolicy(stand_ins={"access_token": stand_in}))
    users = ["ann"]
    plan = for_users(server.url, users)
    store = open_store("memory://")
    result = run(plan, store=store, config=config)
    assert dict(result.context) == {"ann": "ann"}
    for length in range(1, result.head_seq):
        left = left_after(store, result.run_id, length)
        open_keys(store).share(result.run_id, left)
        users[:] = ["bob"]  # a handler that asks for another one after the crash
        resumed = resume(left, plan=plan, store=store)
        if dict(resumed.context) != {"ann": "ann"}:  # it was not at its end
            assert dict(resumed.context) == {"bob": "bob"}, length
            told_alike(left, plan, store, tmp_path)


def test_a_call_that_is_the_same_is_reused_after_a_cut(server, tmp_path):
    server.answer = users_answer
    plan = for_users(server.url, ["ann"])
    store = open_store("memory://")
    result = run(plan, store=store, config=TOKENS)
    left = left_after(store, result.run_id, seqs(store, result.run_id, "fact_recorded")[-1])
    open_keys(store).share(result.run_id, left)
    server.seen.clear()
    assert dict(resume(left, plan=plan, store=store).context) == {"ann": "ann"}
    assert server.seen == []
    told_alike(left, plan, store, tmp_path)
    forked = fork(result.run_id, at=seqs(store, result.run_id, "fact_recorded")[-1], plan=plan, store=store)
    assert (dict(forked.result.context), server.seen) == ({"ann": "ann"}, [])


def test_a_stand_in_that_another_state_was_given_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("APP_KEY", TRUE)
    plan = Plan("passes")

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        ctx["key"] = str(await io.secret("APP_KEY"))

    @plan.state("b.send", after=[read], side_effects="read_only_io")
    async def send(ctx, io, rec):
        await io.call("api", {"text": f"key={ctx['key']}"})

    outside, store = Outside(lambda request: {}), open_store("memory://")
    result = run(plan, store=store, config=NAMED, transports={"api": outside})
    assert (result.error.code, outside.asked) == ("secret_not_read", [])
    told_alike(result.run_id, plan, store, tmp_path)
    left = left_after(store, result.run_id, seqs(store, result.run_id, "state_entered")[1])
    open_keys(store).share(result.run_id, left)
    resumed = resume(left, plan=plan, store=store, transports={"api": outside})
    assert (resumed.error.code, outside.asked) == ("secret_not_read", [])


@pytest.mark.parametrize("true", ["tok-9f8e7d6c5b4a", TRUE])
def test_an_answer_that_repeats_the_true_value_has_the_stand_in_in_its_form(monkeypatch, tmp_path, true):
    monkeypatch.setenv("APP_KEY", true)
    got = []

    def forms(key):
        return {
            "whole": key,
            "in text": f"Bearer {key}!",
            "basic": basic(f"user:{key}"),
            "url": f"https://h.example/?{urlencode({'t': key})}",
            "json": json.dumps({"key": key, "n": 1}),
            "form": urlencode({"a": "b c", "key": key}),
            "hex": key.encode().hex(),
            f"key {key}": 1,
        }

    plan = Plan("echoes")

    @plan.state("a.ask", side_effects="read_only_io")
    async def ask(ctx, io, rec):
        key = await io.secret("APP_KEY")
        for again in range(2):
            answer = (await io.call("api", {"n": again, "with": key})).response
            got.append(answer)
            ctx[f"answer-{again}"] = answer
        await io.now()

    outside, store = Outside(lambda request: forms(true)), open_store("memory://")
    result = run(plan, store=store, config=NAMED, transports={"api": outside})
    assert (result.error, got) == (None, [forms(STAND_IN)] * 2)
    told_alike(result.run_id, plan, store, tmp_path)
    for length in seqs(store, result.run_id, "fact_recorded"):
        got.clear()
        left = left_after(store, result.run_id, length)
        open_keys(store).share(result.run_id, left)
        resume(left, plan=plan, store=store, transports={"api": outside})
        assert got == [forms(STAND_IN)] * 2
        told_alike(left, plan, store, tmp_path)
    assert true.encode() not in stored(store, result.run_id)


def test_what_repeats_the_true_value_in_the_same_answer_has_the_stand_in(tmp_path):
    plan = Plan("echoes")

    @plan.state("a.ask", side_effects="read_only_io")
    async def ask(ctx, io, rec):
        ctx["answer"] = (await io.call("api", {})).response

    def answer(token):
        return {"access_token": token, "header": f"Bearer {token}", "basic": basic(f"u:{token}")}

    outside, store = Outside(lambda request: answer("tok-9f8e7d6c5b4a")), open_store("memory://")
    result = run(plan, store=store, config=TOKENS, transports={"api": outside})
    assert (result.error, dict(result.context)) == (None, {"answer": answer("an-invented-token")})
    told_alike(result.run_id, plan, store, tmp_path)


def test_an_error_after_a_crash_does_not_tell_what_a_stand_in_stands_for(server, tmp_path):
    server.answer = users_answer
    plan = Plan("fails")

    @plan.state("a.ask", side_effects="read_only_io")
    async def ask(ctx, io, rec):
        token = (await io.http("GET", f"{server.url}/token", params={"user": "ann"})).json()["access_token"]
        await io.call("api", {"with": token})

    def fail(request):
        raise ValueError(f"{request['with']} is not right")

    outside, store = Outside(fail), open_store("memory://")
    result = run(plan, store=store, config=TOKENS, transports={"api": outside})
    left = left_after(store, result.run_id, seqs(store, result.run_id, "fact_recorded")[0])
    open_keys(store).share(result.run_id, left)
    resumed = resume(left, plan=plan, store=store, transports={"api": outside})
    assert (resumed.status, len(outside.asked)) == ("failed", 2)
    assert b"tok-of-ann" not in stored(store, result.run_id) + stored(store, left)


@pytest.mark.parametrize(
    ("policy", "environment"),
    [
        ({"stand_ins": {"APP_KEY": "k-4f9a8e7d6c5b4a39"}}, {"APP_KEY": "k-4f9a8e7d6c5b4a39"}),
        ({"stand_ins": {"APP_KEY": "k-4f9a8e"}}, {"APP_KEY": "k-4f9a8e7d6c5b4a39"}),
        ({"stand_ins": {"APP_KEY": "test-4711-key"}}, {"APP_KEY": "4711"}),
        ({"stand_ins": {"app-key": "not k-4f9a8e7d6c5b4a39"}}, {"APP_KEY": "k-4f9a8e7d6c5b4a39"}),
        ({"stand_ins": {"APP_KEY": basic("x:k-4f9a8e7d6c5b4a39")}}, {"APP_KEY": "k-4f9a8e7d6c5b4a39"}),
        (
            {"stand_ins": {"APP_KEY": "b-4f9a8e7d6c5b4a39", "OTHER": "invented-key"}},
            {"OTHER": "b-4f9a8e7d6c5b4a39"},
        ),
        ({"stand_ins": {"APP_KEY": "b-4f9a8e7d6c"}, "names": ["PIN"]}, {"PIN": "b-4f9a8e7d6c5b4a39"}),
        ({"stand_ins": {"APP_KEY": "b-4f9a8e7d6c5b4a39"}}, {"DB_PASSWORD": "b-4f9a8e7d6c5b4a39"}),
    ],
)
def test_a_stand_in_that_tells_a_secret_is_refused_before_anything_is_written(
    monkeypatch, policy, environment
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    plan, store = Plan("standing"), open_store("memory://")

    @plan.state("a.nothing")
    async def nothing(ctx, io, rec):
        pass

    with pytest.raises(UsageError) as refused:
        run(plan, store=store, config=RunConfig(secrets=SecretPolicy(**policy)))
    assert refused.value.code == "secret_stand_in"
    assert not store.list_runs().rows
    assert not any(value in str(refused.value) for value in environment.values())


@pytest.mark.parametrize("name", ["APP_KEY", "OTHER"])
@pytest.mark.parametrize("value", [STAND_IN, f"the-{STAND_IN}-1"])
def test_a_secret_from_elsewhere_that_a_stand_in_tells_is_refused_where_it_is_read(name, value, tmp_path):
    plan = Plan("standing")

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        await io.secret(name)

    store = open_store("memory://")
    vaults = Outside(lambda request: {"value": value})
    result = run(plan, store=store, config=NAMED, transports={"secret": vaults})
    assert (result.status, result.error.code) == ("failed", "secret_stand_in")
    told_alike(result.run_id, plan, store, tmp_path)


def test_innocent_variables_and_short_values_refuse_no_stand_in(monkeypatch):
    monkeypatch.setenv("APP_KEY", "e")
    monkeypatch.setenv("DB_PASSWORD", "invented")
    monkeypatch.setenv("GREETING", STAND_IN)
    plan = Plan("standing")

    @plan.state("a.nothing")
    async def nothing(ctx, io, rec):
        pass

    assert run(plan, store=open_store("memory://"), config=NAMED).status == "completed"


def test_what_a_client_sends_is_what_it_would_have_with_the_true_value(server, monkeypatch, tmp_path):
    monkeypatch.setenv("APP_KEY", TRUE)
    server.answer = lambda seen: (200, [], {})
    plan = Plan("client")

    @plan.state("a.send", side_effects="read_only_io")
    async def send(ctx, io, rec):
        key = await io.secret("APP_KEY")
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.get(f"{server.url}/basic", auth=("user", key), params={"t": key, "q": "a b"})
            await client.post(f"{server.url}/json", json={"key": key, "n": [1, "é"]})
            await client.post(f"{server.url}/form", data={"key": key, "n": "a b"})
            files = {"file": ("a.bin", b"\xff\x00"), "note": (None, key)}
            await client.post(f"{server.url}/parts", files=files)

    seen = []
    for config in (RunConfig(), NAMED):
        store = open_store("memory://")
        result = run(plan, store=store, config=config)
        assert result.error is None
        told_alike(result.run_id, plan, store, tmp_path)
        # the boundary is a hash of the parts, and none that a server could tell from another
        seen.append(re.sub(r"[0-9a-f]{32}", "boundary", json.dumps(server.seen)))
        server.seen.clear()
    assert seen[1] == seen[0]


def test_effects_behind_one_stand_in_are_never_taken_for_each_other(server, tmp_path):
    users = ["ann"]

    def answer(seen):
        return users_answer(seen) if "user=" in seen["path"] else (200, [], {"paid": True})

    server.answer = answer
    plan = Plan("pays")

    @plan.state("a.pay", side_effects="apply_side_effect", idempotency="pay")
    async def pay(ctx, io, rec):
        token = (await io.http("GET", f"{server.url}/token", params={"user": users[0]})).json()[
            "access_token"
        ]
        await io.http("POST", f"{server.url}/pay", json={"from": token})
        await io.now()

    store = open_store("memory://")
    result = run(plan, store=store, config=TOKENS)
    assert result.error is None
    left = left_after(store, result.run_id, seqs(store, result.run_id, "fact_recorded")[1])
    for user, code in (("ann", None), ("bob", "ambiguous_secret")):
        users[:] = [user]
        again = left_after(store, left, store.head_seq(left)) if user == "ann" else left
        open_keys(store).share(result.run_id, again)
        resumed = resume(again, plan=plan, store=store)
        assert (resumed.error and resumed.error.code) == code
        told_alike(again, plan, store, tmp_path)
    assert sum(seen["path"] == "/pay" for seen in server.seen) == 1


def test_seals_of_one_text_for_a_stand_in_are_opened_as_those_of_a_list():
    for stood_in in ({STAND_IN: TRUE}, {STAND_IN: [TRUE]}):
        known = StandIns()
        known.learn(stood_in)
        sent = known.sent([STAND_IN], {STAND_IN}, "api", canonical.encode([STAND_IN]))
        assert sent == (canonical.encode([TRUE]), True, None)


def test_what_holds_a_stand_in_in_another_encoding_is_left_behind_at_a_redirect():
    stored = {
        "headers": {"X-Part": basic(f"u:{STAND_IN}"), "x-other": "a"},
        "json": [STAND_IN.encode().hex()],
    }
    assert parts(stored, [STAND_IN]) == Sensitive(frozenset({"x-part"}), body=True)
    assert parts(stored, ["another-one-9"]) == Sensitive()


def test_without_stand_ins_no_encoding_of_a_request_is_undone(monkeypatch):
    def decoded(self, value):
        raise AssertionError(value)

    monkeypatch.setattr(Swap, "document", decoded)
    stored = {"headers": {"x-part": "__secret_a__", "x-plain": "1"}, "body": {"text": '{"a": 1}'}}
    assert parts(stored) == Sensitive(frozenset({"x-part"}))
