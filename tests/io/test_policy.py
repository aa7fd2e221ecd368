"""A policy on the calls of a run: a denied call never leaves, an asked one only after it is approved."""

from __future__ import annotations

import http.server
import threading

import attrs
import httpx
import pytest

from machine import (
    Plan,
    Reporter,
    RetryPolicy,
    RunConfig,
    approve,
    reject,
    replay,
    resume,
    run,
    step,
    verify,
    waiting,
)
from machine.codec import decode_entry
from machine.config import FanOutJoin, Policy, Rule
from machine.errors import ConfigError, IoError, TransportError
from machine.events import FactError, FactRecorded, StateCompleted, WaitBegun
from machine.io.transport import BaseTransport
from machine.stores import MemoryStore

MODES = {"sequential": RunConfig(), "concurrent": RunConfig(execution_mode=FanOutJoin(1))}
DENY = Policy([Rule(name="no-pay", verdict="deny", namespace="pay.*")])
ASK = Policy([Rule(name="ask-pay", verdict="ask", namespace="pay.*")])


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


def under(policy, mode="sequential"):
    return attrs.evolve(MODES[mode], policy=policy)


class Outside(BaseTransport):
    """A transport that counts its calls, each of which is an effect if the state says so."""

    def __init__(self, answer=lambda request: "done"):
        self.asked = []
        self.answer = answer

    def is_effect(self, namespace, request):
        return True

    async def perform(self, namespace, request):
        self.asked.append(request)
        answer = self.answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer


def entries(store, run_id):
    return [decode_entry(event.seq, event.data) for event in store.read_range(run_id)]


def events(store, run_id, kind):
    return [entry.event for entry in entries(store, run_id) if isinstance(entry.event, kind)]


def pays(**options):
    """Return a plan whose one state makes two calls, and notes what became of each."""
    plan = Plan("op")

    @plan.state("step.pays", **options)
    async def handler(ctx, io):
        found = []
        for amount in (1, 2):
            try:
                found.append((await io.call("pay.card", {"amount": amount})).response)
            except IoError as exc:
                found.append(
                    [exc.code, exc.info.retryable, exc.info.details["rule"], exc.info.details["verdict"]]
                )
        ctx["found"] = found

    return plan


EFFECTS = {"side_effects": "apply_side_effect", "idempotency": "k"}


@pytest.mark.parametrize("options", [{}, EFFECTS], ids=["reads", "effects"])
def test_a_denied_call_never_leaves_and_is_an_error_that_a_replay_reads(store, mode, options):
    outside, plan = Outside(), pays(**options)
    result = run(plan, store=store, config=under(DENY, mode), transports={"pay": outside})
    assert outside.asked == []
    assert result.context["found"] == [["policy_denied", False, "no-pay", "deny"]] * 2
    assert all(isinstance(fact.outcome, FactError) for fact in events(store, result.run_id, FactRecorded))
    assert replay(result.run_id, plan=plan, store=store).identical
    assert verify(result.run_id, store=store).ok


def test_a_denied_call_is_not_tried_again(store, mode):
    plan, outside = Plan("op"), Outside()

    @plan.state("step.pays", retry=RetryPolicy(5))
    async def handler(ctx, io):
        await io.call("pay.card", 1)

    result = run(plan, store=store, config=under(DENY, mode), transports={"pay": outside})
    assert (result.status, result.error.code, outside.asked) == ("failed", "policy_denied", [])


def test_the_rule_that_allowed_a_call_is_in_the_log(store):
    policy = Policy([Rule(name="fine", verdict="allow", namespace="pay.card"), *DENY.rules])
    outside, plan = Outside(), pays()
    result = run(plan, store=store, config=under(policy), transports={"pay": outside})
    assert len(outside.asked) == 2
    facts = [entry for entry in entries(store, result.run_id) if isinstance(entry.event, FactRecorded)]
    assert [entry.info["policy"] for entry in facts] == ["allow fine"] * 2


def answered(store, plan, run_id, answer, **options):
    """Answer every approval that a run waits for until it ends, and return its result."""
    result = resume(run_id, plan=plan, store=store, **options)
    while result.status == "suspended":
        answer(run_id, waiting(store=store)[0].key, store=store)
        result = resume(run_id, plan=plan, store=store, **options)
    return result


@pytest.mark.parametrize("options", [{}, EFFECTS], ids=["reads", "effects"])
def test_a_call_that_is_asked_about_leaves_once_it_is_approved(store, mode, options):
    outside, plan = Outside(), pays(**options)
    transports = {"transports": {"pay": outside}}
    result = run(plan, store=store, config=under(ASK, mode), **transports)
    assert (result.status, outside.asked) == ("suspended", [])
    (asked,) = waiting(store=store)
    assert "ask-pay" in asked.prompt
    assert asked.data["request"] == {"amount": 1}
    assert asked.key.startswith("policy/ask-pay/op.step.pays/")
    assert replay(result.run_id, plan=plan, store=store).identical
    result = answered(store, plan, result.run_id, approve, **transports)
    assert outside.asked == [{"amount": 1}, {"amount": 2}]
    assert result.context["found"] == ["done", "done"]
    assert replay(result.run_id, plan=plan, store=store).identical
    assert verify(result.run_id, store=store).ok


def test_a_call_that_is_rejected_never_leaves(store, mode):
    outside, plan = Outside(), pays()
    transports = {"transports": {"pay": outside}}
    result = run(plan, store=store, config=under(ASK, mode), **transports)
    result = answered(store, plan, result.run_id, reject, **transports)
    assert outside.asked == []
    assert result.context["found"] == [["policy_denied", False, "ask-pay", "ask"]] * 2
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_approval_holds_for_the_same_request_again_and_in_a_later_attempt(store, mode):
    plan, outside = Plan("op"), Outside()
    answers = iter([TransportError("down", retryable=True), "up"])

    @plan.state("step.pays", retry=RetryPolicy(3))
    async def handler(ctx, io):
        await io.call("pay.card", 1)
        await io.call("pay.card", 1)
        await io.call("free", 7)

    transports = {"transports": {"pay": outside, "free": Outside(lambda _: next(answers))}}
    result = run(plan, store=store, config=under(ASK, mode), **transports)
    approve(result.run_id, store=store)
    result = resume(result.run_id, plan=plan, store=store, **transports)
    assert (result.status, outside.asked) == ("completed", [1] * 4)
    assert len(events(store, result.run_id, WaitBegun)) == 1
    assert replay(result.run_id, plan=plan, store=store).identical


def test_calls_that_race_are_asked_about_together(store, mode):
    import asyncio

    plan, outside = Plan("op"), Outside()

    @plan.state("step.pays")
    async def handler(ctx, io):
        calls = [io.call("pay.card", number) for number in range(3)] + [io.call("free", 7)]
        ctx["found"] = [answer.response for answer in await asyncio.gather(*calls)]

    transports = {"transports": {"pay": outside, "free": Outside()}}
    result = run(plan, store=store, config=under(ASK, mode), **transports)
    assert (result.status, outside.asked) == ("suspended", [])
    assert len(waiting(store=store)) == 3
    result = answered(store, plan, result.run_id, approve, **transports)
    assert (result.status, sorted(outside.asked)) == ("completed", [0, 1, 2])
    assert replay(result.run_id, plan=plan, store=store).identical


@step
def charged(number):
    return number


def test_where_nobody_can_be_waited_for_a_call_that_is_asked_about_is_refused(store):
    plan = Plan("op")

    @plan.state("step.pays")
    async def handler(ctx, io):
        try:
            charged(1)  # a plain step on the thread of the event loop
        except IoError as exc:
            ctx["code"] = exc.code
        try:
            await io.step(charged, 2)
        except IoError as exc:
            ctx["code 2"] = exc.code

    config = under(Policy([Rule(name="ask", verdict="ask", namespace="step")]))
    result = run(plan, store=store, config=config)
    assert result.status == "suspended"
    result = answered(store, plan, result.run_id, approve)
    assert (result.status, result.context) == ("completed", {"code": "policy_denied"})
    assert replay(result.run_id, plan=plan, store=store).identical


STRICTER = {
    "nobody": (Policy(), Policy(), "allow"),
    "the worker": (Policy(), DENY, "deny"),
    "the run": (DENY, Policy(), "deny"),
    "the worker denies what the run asks about": (ASK, DENY, "deny"),
    "the run denies what the worker asks about": (DENY, ASK, "deny"),
    "both ask": (ASK, Policy([attrs.evolve(ASK.rules[0], name="other")]), "ask"),
    "allowed by one": (Policy([Rule(name="fine", verdict="allow")]), ASK, "ask"),
}


@pytest.mark.parametrize("name", STRICTER)
def test_of_two_policies_the_stricter_counts(store, name):
    own, workers, verdict = STRICTER[name]
    plan, outside = pays(), Outside()
    options = {"transports": {"pay": outside}, "policy": workers}
    result = run(plan, store=store, config=under(own), **options)
    assert len(outside.asked) == (2 if verdict == "allow" else 0)
    assert result.status == ("suspended" if verdict == "ask" else "completed")
    result = answered(store, plan, result.run_id, approve, **options)
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.fixture
def server():
    """Return the URL of a server, and the paths that it was asked for; /there redirects to another name of it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            port = self.server.server_address[1]
            found = {"/there": f"http://localhost:{port}/secret", "/here": "/next"}.get(self.path)
            self.send_response(302 if found else 200)
            if found:
                self.send_header("location", found)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}", asked
        serving.shutdown()
        thread.join()


def by_io(ctx, io, url):
    return io.http("GET", url)


async def by_httpx(ctx, io, url):
    async with httpx.AsyncClient(follow_redirects=True) as client:
        return await client.get(url)


@pytest.mark.parametrize("client", [by_io, by_httpx])
@pytest.mark.parametrize("verdict", ["deny", "ask"])
def test_a_redirect_is_judged_at_every_hop(store, server, client, verdict):
    url, asked = server
    plan = Plan("op", clients=["httpx"])

    @plan.state("step.asks")
    async def handler(ctx, io):
        await client(ctx, io, f"{url}/here")
        try:
            await client(ctx, io, f"{url}/there")
        except Exception as exc:  # noqa: BLE001 - of whatever class the client has
            ctx["refused"] = "policy rule" in str(exc)

    config = under(Policy([Rule(name="inside", verdict=verdict, host="localhost")]))
    result = run(plan, store=store, config=config)
    assert "/secret" not in asked
    if client is by_httpx and verdict == "ask":  # a hop is a call of its own, which can wait
        assert result.status == "suspended"
    else:
        assert (result.status, result.context) == ("completed", {"refused": True}), result.error
    assert asked == ["/here", "/next", "/there"]
    assert replay(result.run_id, plan=plan, store=store).identical


def test_tags_and_effects_choose_calls(store):
    plan, outside = Plan("op"), Outside()

    @plan.state("step.reads", tags=["careful"])
    async def reads(ctx, io):
        await io.call("pay.card", "read")

    @plan.state("step.writes", after=[reads], **EFFECTS)
    async def writes(ctx, io):
        await io.call("pay.card", "write")

    transports = {"transports": {"pay": outside}}
    chosen = Policy([Rule(name="a", verdict="deny", tag="care*")])
    assert run(plan, store=store, config=under(chosen), **transports).error.code == "policy_denied"
    assert outside.asked == []
    chosen = Policy([Rule(name="b", verdict="deny", effect=True)])
    assert run(plan, store=store, config=under(chosen), **transports).error.code == "policy_denied"
    assert outside.asked == ["read"]


def test_a_run_that_is_killed_anywhere_sends_nothing_before_it_is_approved(store, tmp_path, mode):
    """Cut the run after every event, answer, cut again: what is asked about leaves only after its approval."""
    outside, plan = Outside(), pays(**EFFECTS)
    options = {"plan": plan, "transports": {"pay": outside}}
    first = run(store=store, config=under(ASK, mode), **options)
    whole = answered(store, plan, first.run_id, approve, transports=options["transports"])
    assert whole.status == "completed"
    for length in range(1, whole.head_seq):
        with prefix_of(store, whole.run_id, length) as cut:
            facts = events(cut, whole.run_id, FactRecorded)
            approved = sum(fact.namespace == "wait.approval" for fact in facts)
            outside.asked.clear()
            result = resume(whole.run_id, store=cut, **options)
            assert len(outside.asked) <= approved
            result = answered(cut, plan, whole.run_id, reject, transports=options["transports"])
            assert len(outside.asked) <= approved
            assert result.status == "completed"
            assert replay(whole.run_id, plan=plan, store=cut).identical


def prefix_of(store, run_id, length):
    cut = MemoryStore()
    for kind, data in store._contents.artifacts.values():
        cut.put(kind, data)
    cut.append(run_id, 0, list(store.read_range(run_id, 1, length)))
    return cut


def test_another_policy_changes_no_replay(store, monkeypatch):
    plan, outside = pays(), Outside()
    result = run(plan, store=store, config=under(ASK), transports={"pay": outside})
    answered(store, plan, result.run_id, approve, transports={"pay": outside})

    def refuse(*args, **kwargs):
        raise AssertionError("a replay judged a call")

    monkeypatch.setattr("machine.io.run_controls.judge", refuse)
    assert replay(result.run_id, plan=plan, store=store).identical


BREAKS = Policy([Rule(name="down", verdict="break", host="a.test", failures=3, seconds=30)])


class Host(BaseTransport):
    """Hosts that fail as long as they are said to."""

    def __init__(self):
        self.asked = []
        self.down = True

    def is_final(self, namespace, response):
        return response["status"] < 500

    async def perform(self, namespace, request):
        self.asked.append(request["url"])
        if "b.test" in request["url"]:
            return {"status": 200, "url": request["url"], "headers": [], "body": {"text": ""}}
        if self.down == "unreachable":
            raise TransportError("no route", retryable=True)
        return {
            "status": 503 if self.down else 200,
            "url": request["url"],
            "headers": [],
            "body": {"text": ""},
        }


def asks(times):
    plan = Plan("op")
    before = None
    for number in range(times):

        @plan.state(f"step.s{number}", after=[before] if before else [])
        async def handler(ctx, io, number=number):
            try:
                ctx[str(number)] = (await io.http("GET", f"https://a.test/{number}")).status
            except IoError as exc:
                ctx[str(number)] = exc.code
            ctx["other"] = (await io.http("GET", f"https://b.test/{number}")).status if number == 5 else 0

        before = handler
    return plan


@pytest.mark.parametrize("down", [True, "unreachable"])
def test_a_circuit_breaker_opens_tries_and_closes_as_recorded(mode, down):
    host, now = Host(), [1_000_000]
    with MemoryStore(clock=lambda: now[0]) as store:
        plan = asks(12)
        host.down = down

        class Watch(Reporter):
            """Lets time pass, and the host come up, as the run gets along."""

            def entry(self, entry):
                if isinstance(entry.event, StateCompleted):
                    number = int(entry.event.state_id[-1]) if entry.event.state_id[-2] == "s" else 10
                    now[0] += {4: 31_000, 6: 31_000}.get(number, 0)
                    if number == 6:
                        host.down = False

        config = under(BREAKS, mode)
        transports = {"transports": {"http": host}}
        result = run(plan, store=store, config=config, reporter=Watch(), **transports)
        failed = 503 if down is True else "io_transport_failed"
        assert [result.context[str(number)] for number in range(12)] == [
            *[failed] * 3,
            *["circuit_open"] * 2,
            failed,  # the one that is tried after 30 seconds
            "circuit_open",
            *[200] * 5,
        ]
        said = [entry.info.get("breaker") for entry in entries(store, result.run_id)]
        assert [text.split(" ")[:3] for text in said if text] == [
            ["down", "a.test", number] for number in ["1", "2", "3", "4", "0"]
        ]
        assert replay(result.run_id, plan=plan, store=store).identical


def test_a_circuit_breaker_stays_open_over_a_crash():
    host = Host()
    with MemoryStore() as store:
        plan = asks(5)
        result = run(plan, store=store, config=under(BREAKS), transports={"http": host})
        seq = [
            entry.seq for entry in entries(store, result.run_id) if isinstance(entry.event, StateCompleted)
        ][2]
        host.asked.clear()
        with prefix_of(store, result.run_id, seq) as cut:
            again = resume(result.run_id, plan=plan, store=cut, transports={"http": host})
            assert (again.status, host.asked) == ("completed", [])
            assert again.digest == result.digest


WRONG = {
    "no name": [{"name": "", "verdict": "deny"}],
    "a name with a blank": [{"name": "a b", "verdict": "deny"}],
    "an unknown verdict": [{"name": "a", "verdict": "forbid"}],
    "an open bracket": [{"name": "a", "verdict": "deny", "namespace": "pay.[ab"}],
    "an empty set": [{"name": "a", "verdict": "deny", "host": "[].test"}],
    "an empty glob": [{"name": "a", "verdict": "deny", "tag": ""}],
    "a host in capitals": [{"name": "a", "verdict": "deny", "host": "A.test"}],
    "a host with a path": [{"name": "a", "verdict": "deny", "host": "a.test/b"}],
    "a glob that is a number": [{"name": "a", "verdict": "deny", "namespace": 7}],
    "an effect that is a text": [{"name": "a", "verdict": "deny", "effect": "yes"}],
    "the host of a file": [{"name": "a", "verdict": "deny", "namespace": "file.*", "host": "a.test"}],
    "the effect of a clock": [{"name": "a", "verdict": "deny", "namespace": "clock.now", "effect": True}],
    "two of one name": [{"name": "a", "verdict": "deny", "host": "a"}, {"name": "a", "verdict": "ask"}],
    "after one for all": [{"name": "a", "verdict": "deny"}, {"name": "b", "verdict": "ask", "host": "x"}],
    "after a wider one": [
        {"name": "a", "verdict": "allow", "namespace": "http*"},
        {"name": "b", "verdict": "deny", "namespace": "http.*", "host": "x"},
    ],
    "after a wider host": [
        {"name": "a", "verdict": "allow", "host": "*.test"},
        {"name": "b", "verdict": "deny", "host": "a.test"},
    ],
    "a breaker without a number": [{"name": "a", "verdict": "break", "host": "x"}],
    "a breaker of no failures": [{"name": "a", "verdict": "break", "failures": 0, "seconds": 1}],
    "a breaker of no time": [{"name": "a", "verdict": "break", "failures": 1, "seconds": 0}],
    "failures of no breaker": [{"name": "a", "verdict": "deny", "failures": 1, "seconds": 1}],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_policy_that_cannot_be_meant_is_refused(name):
    with pytest.raises(ConfigError) as caught:
        Policy([Rule(**rule) for rule in WRONG[name]])
    assert caught.value.code == "invalid_policy"


def test_rules_that_can_all_match_are_taken():
    Policy(
        [
            Rule(name="a", verdict="allow", namespace="http", host="*.test"),
            Rule(name="b", verdict="deny", namespace="http", host="*.tes?"),
            Rule(name="c", verdict="ask", namespace="http", effect=True),
            Rule(name="d", verdict="deny", namespace="http", effect=False),
            Rule(name="e", verdict="break", namespace="http", failures=1, seconds=0.5),
            Rule(name="f", verdict="deny", namespace="[!h]*"),
        ]
    )
