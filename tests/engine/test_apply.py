"""A dry run is applied as it was shown: the same requests, once, and nothing else without an approval."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest

import machine
from machine import Plan, RunConfig, aio, apply, canonical, dry_run, replay, resume, run
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import Code, ConcurrencyError, NotFoundError, PlanError, RunError, UsageError
from machine.events import EffectIntended
from machine.policy import Policy, Rule
from machine.stores.lease import wall_clock
from machine.stores.memory import MemoryStore

SIX = range(6)


@pytest.fixture
def shop(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    """Give a server that answers a POST with a token of its path, and keeps what it was asked in `.asked`.

    `.other` maps paths to other tokens.
    """
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    class Answer(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            self.server.asked.append((self.command, self.path, body, self.headers.get("idempotency-key")))
            said = canonical.encode({"token": self.server.other.get(self.path, f"t{self.path}")})
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = answer  # noqa: N815 - the base class's names

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as http:
        http.asked, http.other = [], {}
        http.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def as_previewed(ctx, request):
    """Return what the server answers to a request."""
    path = request["url"].rpartition("/")[2]
    return {"json": {"token": f"t/{path}"}}


def chain(url, *, preview=as_previewed):
    """Return a plan of six effects, each of which needs what the one before it returned."""
    plan = Plan("chain")

    @plan.state("a.read")
    async def before(ctx, io):
        ctx["token"] = (await io.http("GET", f"{url}/start")).json()["token"]
        ctx["at"], ctx["id"] = await io.now(), str(await io.uuid())

    for number in SIX:

        async def send(ctx, io, number=number):
            asked = {"token": ctx["token"], "at": ctx["at"], "id": ctx["id"]}
            answer = await io.http("POST", f"{url}/{number}", json=asked)
            ctx["token"] = answer.raise_for_status().json()["token"]

        before = plan.state(
            f"b.send{number}",
            after=[before],
            side_effects="apply_side_effect",
            idempotency=f"k{number}",
            preview=preview,
        )(send)
    return plan


def intents(store, run_id):
    """Return the digests of the effects of a run."""
    entries = (entry.event for entry, _ in run_reader.entries(store, run_id))
    return [event.request_digest for event in entries if isinstance(event, EffectIntended)]


def posts(shop):
    """Return the POSTs that arrived."""
    return [asked for asked in shop.asked if asked[0] == "POST"]


def test_all_six_requests_are_shown_none_is_sent_and_apply_sends_exactly_those(store, shop):
    plan = chain(shop.url)
    dry = dry_run(plan, store=store)
    assert (dry.result.status, dry.needs, [asked[:2] for asked in shop.asked]) == (
        "completed",
        (),
        [("GET", "/start")],
    )
    assert [effect.request["json"]["token"] for effect in dry.effects] == [
        "t/start",
        *(f"t/{n}" for n in range(5)),
    ]
    assert {effect.source for effect in dry.effects} == {"preview"}
    assert replay(dry.result.run_id, plan=plan, store=store).identical

    shop.asked.clear()
    real = apply(dry.result.run_id, plan=plan, store=store)
    assert real.status == "completed"
    assert [(path, key) for _, path, _, key in shop.asked] == [(f"/{n}", f"k{n}") for n in SIX]
    assert intents(store, real.run_id) == intents(store, dry.result.run_id)
    assert [canonical.decode(body) for _, _, body, _ in shop.asked] == [
        e.request["json"] for e in dry.effects
    ]
    assert replay(real.run_id, plan=plan, store=store).identical


def test_one_answer_that_differs_suspends_before_the_first_effect_that_does(store, shop):
    plan = chain(shop.url)
    dry = dry_run(plan, store=store)
    shop.asked.clear()
    shop.other["/2"] = "other"
    real = apply(dry.result.run_id, plan=plan, store=store)
    assert (real.status, [asked[1] for asked in shop.asked]) == ("suspended", ["/0", "/1", "/2"])
    (wait,) = machine.waiting(store=store)
    data = wait.data
    assert data["effect"]["request"]["json"]["token"] == "other"
    assert data["shown"]["request"]["json"]["token"] == "t/2"
    assert replay(real.run_id, plan=plan, store=store).identical

    machine.approve(real.run_id, store=store, by="Ada")
    ended = resume(real.run_id, plan=plan, store=store)
    assert (ended.status, [asked[1] for asked in shop.asked]) == ("completed", [f"/{n}" for n in SIX])
    assert replay(real.run_id, plan=plan, store=store).identical


def test_a_rejected_effect_is_never_sent_and_fails_with_a_typed_error(store, shop):
    plan = chain(shop.url)
    dry = dry_run(plan, store=store)
    shop.asked.clear()
    shop.other["/2"] = "other"
    real = apply(dry.result.run_id, plan=plan, store=store)
    machine.reject(real.run_id, store=store, by="Ada", comment="no")
    ended = resume(real.run_id, plan=plan, store=store)
    assert (ended.status, ended.error.code) == ("failed", Code.EFFECT_REJECTED)
    assert "Ada: no" in ended.error.message
    assert len(posts(shop)) == 3
    assert replay(real.run_id, plan=plan, store=store).identical


class Mail(machine.BaseTransport):
    """A transport whose every call is an effect, with an answer for each request."""

    def __init__(self, answers=None):
        self.asked, self.answers = [], answers or {}

    def is_effect(self, namespace, request):
        return True

    async def perform(self, namespace, request):
        self.asked.append(request["to"])
        return self.answers.get(request["to"], "sent")


def mailing(*handlers, **meta):
    """Return a plan of one state with effects for each handler."""
    plan, before = Plan("mail"), []
    for number, handler in enumerate(handlers):
        options = {
            "side_effects": "apply_side_effect",
            "idempotency": f"k{number}",
            "preview": "sent",
            **meta,
        }
        before = [plan.state(f"a.s{number}", after=before, **options)(handler)]
    return plan


async def ask(io, *names):
    """Send a message to each of some names."""
    return [(await io.call("mail", {"to": name})).response for name in names]


async def both(ctx, io):
    """Send two messages."""
    ctx["said"] = await ask(io, *ctx.get("names", ["a", "b"]))


def approvals(store):
    """Return what the approvals that are waited for ask."""
    return [wait.data for wait in machine.waiting(store=store)]


@pytest.mark.parametrize("mode", [None, FanOutJoin(3)])
def test_effects_of_several_states_and_of_one_are_applied_in_both_modes(store, mode):
    plan, mail = mailing(both, both), Mail()
    config = RunConfig() if mode is None else RunConfig(execution_mode=mode)
    dry = dry_run(plan, store=store, config=config, transports={"mail": mail})
    assert (len(dry.effects), mail.asked) == (4, [])
    real = apply(dry.result.run_id, plan=plan, store=store, transports={"mail": mail})
    assert (real.status, mail.asked) == ("completed", ["a", "b", "a", "b"])
    assert replay(real.run_id, plan=plan, store=store).identical


def test_what_the_dry_run_could_not_show_asks_for_an_approval(store):
    async def handler(ctx, io):
        if (await io.call("mail", {"to": "a"})).response == "sent":
            await ask(io, "b")

    plan, mail = mailing(handler, preview=None), Mail()
    dry = dry_run(plan, store=store, transports={"mail": mail})
    assert [need.state_id for need in dry.needs] == ["mail.a.s0"]
    real = apply(dry.result.run_id, plan=plan, store=store, transports={"mail": mail})
    assert (real.status, mail.asked) == ("suspended", ["a"])
    (data,) = approvals(store)
    assert (data["shown"], data["effect"]["request"], data["dry_run"]) == (
        None,
        {"to": "b"},
        dry.result.run_id,
    )
    machine.approve(real.run_id, store=store)
    ended = resume(real.run_id, plan=plan, store=store, transports={"mail": mail})
    assert (ended.status, mail.asked) == ("completed", ["a", "b"])
    assert replay(real.run_id, plan=plan, store=store).identical


def test_an_effect_in_another_order_is_not_the_one_shown(store):
    async def handler(ctx, io):
        first = (await io.call("mail", {"to": "first"})).response
        await ask(io, *(["a", "b"] if first == "sent" else ["b", "a"]))

    plan, mail = mailing(handler), Mail({"first": "otherwise"})
    dry = dry_run(plan, store=store, transports={"mail": mail})
    apply(dry.result.run_id, plan=plan, store=store, transports={"mail": mail})
    assert mail.asked == ["first"]
    assert [(data["effect"]["request"], data["shown"]["request"]) for data in approvals(store)] == [
        ({"to": "b"}, {"to": "a"})
    ]


def test_an_effect_that_is_shown_once_is_sent_once(store):
    async def handler(ctx, io):
        if (await io.call("mail", {"to": "first"})).response != "sent":
            await ask(io, "a")
        await ask(io, "a")

    plan, mail = mailing(handler), Mail({"first": "otherwise"})
    dry = dry_run(plan, store=store, transports={"mail": mail})
    apply(dry.result.run_id, plan=plan, store=store, transports={"mail": mail})
    assert mail.asked == ["first", "a"]
    assert len(approvals(store)) == 1


def test_concurrent_tasks_may_send_in_any_order(store):
    async def handler(ctx, io):
        async def chain(name):
            await ask(io, name)
            await ask(io, f"{name}2")

        async with anyio.create_task_group() as group:
            for name in ctx["names"]:
                group.start_soon(chain, name)

    plan, mail = mailing(handler), Mail()
    dry = dry_run(plan, store=store, input={"names": ["a", "b"]}, transports={"mail": mail})
    real = apply(dry.result.run_id, plan=plan, store=store, transports={"mail": mail})
    assert (real.status, sorted(mail.asked)) == ("completed", ["a", "a2", "b", "b2"])
    assert replay(real.run_id, plan=plan, store=store).identical


def test_a_failed_effect_may_be_sent_again_by_a_retry(store):
    class Fails(Mail):
        async def perform(self, namespace, request):
            answer = await super().perform(namespace, request)
            if len(self.asked) == 1:
                raise machine.errors.TransportError("down", retryable=True)
            return answer

    plan, mail = mailing(both, retry=machine.RetryPolicy(2)), Fails()
    dry = dry_run(plan, store=store, transports={"mail": mail})
    real = apply(dry.result.run_id, plan=plan, store=store, transports={"mail": mail})
    assert (real.status, mail.asked) == ("completed", ["a", "a", "b"])


def test_a_plain_function_waits_for_the_approval_too(store):
    def handler(ctx, io):
        if io.call("mail", {"to": "a"}).response == "sent":
            io.call("mail", {"to": "b"})

    plan, mail = mailing(handler, preview=None), Mail()
    dry = dry_run(plan, store=store, transports={"mail": mail})
    real = apply(dry.result.run_id, plan=plan, store=store, transports={"mail": mail})
    assert (real.status, mail.asked) == ("suspended", ["a"])
    machine.approve(real.run_id, store=store)
    assert resume(real.run_id, plan=plan, store=store, transports={"mail": mail}).status == "completed"
    assert mail.asked == ["a", "b"]
    assert replay(real.run_id, plan=plan, store=store).identical


def test_an_approval_of_the_handler_is_asked_again(store):
    async def handler(ctx, io):
        ctx["go"] = (await io.approval("Go on?")).approved
        await ask(io, "a")

    plan, mail = mailing(handler), Mail()
    dry = dry_run(plan, store=store, transports={"mail": mail}, answers={"mail.a.s0": True})
    assert len(dry.effects) == 1
    real = apply(dry.result.run_id, plan=plan, store=store, transports={"mail": mail})
    assert (real.status, mail.asked) == ("suspended", [])
    machine.approve(real.run_id, store=store)
    assert resume(real.run_id, plan=plan, store=store, transports={"mail": mail}).status == "completed"
    assert mail.asked == ["a"]


def test_a_policy_that_asks_does_so_when_it_is_applied(store):
    plan, mail = mailing(both), Mail()
    config = RunConfig(policy=Policy([Rule(name="ask-mail", verdict="ask", namespace="mail")]))
    dry = dry_run(plan, store=store, config=config, transports={"mail": mail})
    assert (dry.result.status, len(dry.effects)) == ("completed", 2)
    real = apply(dry.result.run_id, plan=plan, store=store, transports={"mail": mail})
    for sent in ([], ["a"]):
        assert (real.status, mail.asked) == ("suspended", sent)
        machine.approve(real.run_id, store=store)
        real = resume(real.run_id, plan=plan, store=store, transports={"mail": mail})
    assert (real.status, mail.asked) == ("completed", ["a", "b"])
    assert replay(real.run_id, plan=plan, store=store).identical


def parent_of(child):
    """Return a plan that has a child run."""
    plan = Plan("parent")

    @plan.state("a.part")
    async def part(ctx, io):
        found = await io.run_child(child, {"names": ctx["names"]})
        ctx["part"] = [found.status, found.context["said"]]

    return plan


def test_the_effects_of_a_child_are_shown_and_applied(store):
    mail = Mail()
    child, made = mailing(both), {"store": store, "transports": {"mail": mail}}
    plan = parent_of(child)
    dry = dry_run(plan, input={"names": ["a", "b"]}, **made)
    assert [(effect.state_id, effect.request) for effect in dry.effects] == [
        ("mail.a.s0", {"to": "a"}),
        ("mail.a.s0", {"to": "b"}),
    ]
    assert {effect.run_id for effect in dry.effects} != {dry.result.run_id}
    assert mail.asked == []
    real = apply(dry.result.run_id, plan=plan, **made)
    assert (real.context["part"], mail.asked) == (["completed", ["sent", "sent"]], ["a", "b"])
    assert replay(real.run_id, plan=plan, store=store, deep=True).identical
    earlier = dry_run(plan, input={"names": ["a", "b"]}, answers_from=real.run_id, **made)
    assert earlier.result.context == dry.result.context


def test_an_effect_of_a_child_that_was_not_shown_does_not_leave(store):
    mail = Mail({"a": "otherwise"})
    made = {"store": store, "transports": {"mail": mail}}

    async def handler(ctx, io):
        said = await ask(io, "a")
        ctx["said"] = said + await ask(io, "b" if said == ["sent"] else "c")

    plan = parent_of(mailing(handler))
    dry = dry_run(plan, input={"names": []}, **made)
    real = apply(dry.result.run_id, plan=plan, **made)
    assert (real.status, mail.asked) == ("suspended", ["a"])
    assert any(data and data["effect"]["request"] == {"to": "c"} for data in approvals(store))


# -- what is refused -------------------------------------------------------------------------------------------


def refused(store, kind, code, dry_run_id, **options):
    """Apply a dry run, which must be refused without a trace."""
    before = [row.run_id for row in store.list_runs().rows]
    with pytest.raises(kind) as caught:
        apply(dry_run_id, store=store, **options)
    assert caught.value.code == code
    assert [row.run_id for row in store.list_runs().rows] == before
    return caught.value


def test_a_run_that_is_no_dry_run_or_not_over_is_refused(store):
    plan, mail = mailing(both), Mail()
    real = run(plan, store=store, transports={"mail": mail})
    refused(store, UsageError, Code.NOT_A_DRY_RUN, real.run_id, plan=plan)
    with pytest.raises(NotFoundError):
        apply(str(machine.new_run_id()), plan=plan, store=store)

    async def breaks(ctx, io):
        raise ValueError

    plan = mailing(breaks)
    dry = dry_run(plan, store=store)
    refused(store, UsageError, Code.DRY_RUN_UNFINISHED, dry.result.run_id, plan=plan)


def test_another_plan_or_other_code_is_refused(store):
    async def other(ctx, io):
        await ask(io, "c")

    dry = dry_run(mailing(both), store=store, transports={"mail": Mail()}).result.run_id
    error = refused(store, PlanError, Code.DRY_RUN_CHANGED, dry, plan=mailing(other))
    assert error.info.details["changes"] == ["the code of mail.a.s0 has changed"]
    error = refused(store, PlanError, Code.DRY_RUN_CHANGED, dry, plan=mailing(both, both))
    assert error.info.details["changes"] == ["+ state mail.a.s1", "+ edge mail.a.s0 -> mail.a.s1"]
    refused(store, PlanError, Code.DRY_RUN_CHANGED, dry, plan=mailing(both, timeout=5))
    refused(store, PlanError, Code.OP_ID_MISMATCH, dry, plan=chain(""))


def test_a_dry_run_that_is_too_old_is_refused():
    ahead = 0
    with MemoryStore(clock=lambda: wall_clock() + ahead) as store:
        plan, mail = mailing(both), Mail()
        dry = dry_run(plan, store=store, transports={"mail": mail}).result.run_id
        ahead = 25 * 3600 * 1000
        refused(store, UsageError, Code.DRY_RUN_TOO_OLD, dry, plan=plan)
        for wrong in (0, -1, float("nan"), "1"):
            refused(store, UsageError, Code.USAGE, dry, plan=plan, max_age=wrong)
        made = {"plan": plan, "store": store, "transports": {"mail": mail}}
        assert apply(dry, max_age=26 * 3600, **made).status == "completed"


def test_a_dry_run_is_applied_once_whoever_does_it(store):
    plan, mail = mailing(both), Mail()
    dry = dry_run(plan, store=store, transports={"mail": mail}).result.run_id

    async def twice():
        outcomes = []

        async def one():
            try:
                outcomes.append(
                    (await aio.apply(dry, plan=plan, store=store, transports={"mail": mail})).status
                )
            except (RunError, ConcurrencyError) as exc:
                outcomes.append(exc.code)

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)
        return outcomes

    assert sorted(anyio.run(twice)) == ["completed", Code.DRY_RUN_APPLIED]
    assert mail.asked == ["a", "b"]
    error = refused(store, RunError, Code.DRY_RUN_APPLIED, dry, plan=plan, transports={"mail": mail})
    assert error.info.details["run_id"] in {row.run_id for row in store.list_runs().rows}


def test_a_crashed_run_is_resumed_and_still_sends_only_what_was_shown(store):
    class Dies(Mail):
        async def perform(self, namespace, request):
            if self.asked == ["a"]:
                raise KeyboardInterrupt
            return await super().perform(namespace, request)

    plan, mail = mailing(both), Dies()
    dry = dry_run(plan, store=store, transports={"mail": mail}).result.run_id
    run_id = str(machine.new_run_id())
    with pytest.raises(KeyboardInterrupt):
        apply(dry, plan=plan, store=store, transports={"mail": mail}, run_id=run_id)
    other = Mail({"a": "otherwise"})
    ended = resume(run_id, plan=plan, store=store, transports={"mail": other})
    assert (ended.status, mail.asked, other.asked) == ("completed", ["a"], ["b"])
    assert replay(run_id, plan=plan, store=store).identical


class Sent(machine.BaseTransport):
    """A service that makes each effect once for its idempotency key, and answers with what it was asked."""

    one_effect_per_key = True

    def __init__(self, other=None):
        self.made, self.other = {}, other

    def is_effect(self, namespace, request):
        return True

    def with_idempotency_key(self, namespace, request, key):
        return {**request, "key": key}

    async def perform(self, namespace, request):
        answer = "other" if request["key"] == self.other else request["of"]
        return self.made.setdefault(request["key"], answer)


def passing_on():
    """Return a plan of three effects, each of which needs what the one before returned."""
    plan = Plan("passing")

    @plan.state("a.read")
    async def before(ctx, io):
        ctx["last"] = str(await io.uuid())

    for number in range(3):

        async def send(ctx, io, number=number):
            ctx["last"] = (await io.call("mail", {"of": f"{number} {ctx['last']}"})).response

        before = plan.state(
            f"b.send{number}",
            after=[before],
            side_effects="apply_side_effect",
            idempotency=f"k{number}",
            preview=lambda ctx, request: request["of"],
        )(send)
    return plan


@pytest.mark.parametrize("other", [None, "k1"], ids=["as previewed", "one differs"])
def test_killed_after_each_event_it_sends_the_same_and_each_effect_once(store, other):
    plan, sent = passing_on(), Sent(other)
    dry = dry_run(plan, store=store, transports={"mail": sent}).result.run_id
    whole = apply(dry, plan=plan, store=store, transports={"mail": sent})
    if other is not None:
        assert (whole.status, [*sent.made]) == ("suspended", ["k0", "k1"])
        machine.approve(whole.run_id, store=store)
        whole = resume(whole.run_id, plan=plan, store=store, transports={"mail": sent})
    assert (whole.status, [*sent.made]) == ("completed", ["k0", "k1", "k2"])
    log = list(store.read_range(whole.run_id, 1))
    for length in range(1, len(log)):
        left = MemoryStore()
        for kind, data in store._contents.artifacts.values():
            left.put(kind, data)
        left.append(whole.run_id, 0, log[:length])
        again = Sent(other)
        again.made = {key: sent.made[key] for key in [*sent.made][: number_of_effects(log[:length])]}
        ended = resume(whole.run_id, plan=plan, store=left, transports={"mail": again})
        if ended.status == "suspended":
            assert "k2" not in again.made
            machine.approve(whole.run_id, store=left)
            ended = resume(whole.run_id, plan=plan, store=left, transports={"mail": again})
        assert (ended.context, again.made) == (whole.context, sent.made)
        assert replay(whole.run_id, plan=plan, store=left).identical


def number_of_effects(log):
    """Return how many effects were intended, each of which may have been made."""
    return sum(b'"effect_intended"' in event.data for event in log)
