"""A dry run applies nothing, shows every effect in order, and ends a state where it needs what is not known."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import attrs
import pytest

import machine
from machine import (
    HttpResponse,
    Plan,
    RetryPolicy,
    RunConfig,
    aio,
    canonical,
    dry_run,
    new_run_id,
    replay,
    resume,
    run,
)
from machine.config import FanOutJoin, IoMode
from machine.engine import run_reader
from machine.errors import Code, ConfigError, PlanError, UsageError
from machine.events import EffectIntended, StateSkipped
from machine.policy import Policy, Rule

EFFECT = {"side_effects": "apply_side_effect", "idempotency": "k-1"}


@pytest.fixture
def counting(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    """Give a server on the loopback that answers `7` and keeps in `.asked` what it was asked."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    class Answer(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            self.server.asked.append((self.command, self.path, body))
            self.send_response(200)
            self.send_header("content-length", "1")
            self.end_headers()
            self.wfile.write(b"7")

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the base class's names

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as http:
        http.asked = []
        http.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


class Mail(machine.BaseTransport):
    """A transport whose every call is an effect, which keeps what it was asked in `.asked`."""

    def __init__(self, answer="sent"):
        self.asked, self.answer = [], answer

    def is_effect(self, namespace, request):
        return True

    async def perform(self, namespace, request):
        self.asked.append(request)
        return self.answer


def plan_of(handler, **meta):
    """Return a plan of one state with effects."""
    plan = Plan("op")
    plan.state("a.send", **{**EFFECT, **meta})(handler)
    return plan


def dry_of(handler, store, *, meta=None, **options):
    """Dry-run a plan of one state with effects; it must be what its replay is."""
    plan = plan_of(handler, **(meta or {}))
    dry = dry_run(plan, store=store, **options)
    assert replay(dry.result.run_id, plan=plan, store=store, transports=options.get("transports")).identical
    return dry


def effect_of(handler, store, **options):
    """Dry-run a plan of one state with effects, and return the one that is shown."""
    (effect,) = dry_of(handler, store, **options).effects
    return effect


def orders(url):
    """Return a plan that reads, sends and goes on."""
    plan = Plan("orders")

    @plan.state("a.read")
    async def read(ctx, io, rec):
        ctx["n"] = (await io.http("GET", f"{url}/count")).json()

    @plan.state(
        "b.send", after=[read], side_effects="apply_side_effect", idempotency=lambda ctx: f"n-{ctx['n']}"
    )
    async def send(ctx, io, rec):
        price = (await io.http("GET", f"{url}/price")).json()
        await io.http("POST", f"{url}/order", json={"n": ctx["n"], "price": price})
        ctx["sent"] = True

    @plan.state("c.tell", after=[send])
    async def tell(ctx, io, rec):
        ctx["told"] = ctx.get("sent", False)

    return plan


def test_no_effect_arrives_and_each_is_reported_with_its_canonical_request(store, counting):
    dry = dry_run(orders(counting.url), store=store)
    assert [asked[:2] for asked in counting.asked] == [("GET", "/count"), ("GET", "/price")]
    (effect,) = dry.effects
    assert (effect.state_id, effect.idempotency_key, effect.namespace) == ("orders.b.send", "n-7", "http")
    assert (effect.source, effect.outcome) == ("known after apply", None)

    counting.asked.clear()
    real = run(orders(counting.url), store=store)
    (intent,) = [
        entry.event
        for entry, _ in run_reader.entries(store, real.run_id)
        if isinstance(entry.event, EffectIntended)
    ]
    assert canonical.artifact_id(canonical.encode(effect.request)) == intent.request_digest
    assert ("POST", "/order") in [asked[:2] for asked in counting.asked]


def test_a_dry_run_and_its_real_run_have_one_plan_id(store, counting):
    dry, real = dry_run(orders(counting.url), store=store), run(orders(counting.url), store=store)
    plans = {run_reader.first_entry(store, run_id)[1].plan_id for run_id in (dry.result.run_id, real.run_id)}
    assert len(plans) == 1


def test_every_state_is_reported_with_what_became_of_it_and_what_it_follows(store, counting):
    dry = dry_run(orders(counting.url), store=store)
    assert [(state.id, state.action, state.reason, state.after) for state in dry.states] == [
        ("orders.a.read", "run", "completed", ()),
        ("orders.b.send", "preview", "completed, 1 effect not applied", ("orders.a.read",)),
        ("orders.c.tell", "run", "completed", ("orders.b.send",)),
    ]
    assert dry.result.context == {"n": 7, "sent": True, "told": True}
    assert (dry.result.status, dry.needs) == ("completed", ())
    assert dry.report.counts == {"run": 2, "preview": 1, "effects": 1}


def test_the_run_replays(store, counting):
    plan = orders(counting.url)
    dry = dry_run(plan, store=store)
    asked = len(counting.asked)
    assert replay(dry.result.run_id, plan=plan, store=store).identical
    assert len(counting.asked) == asked


def test_the_times_are_those_of_the_last_completed_run(store, counting):
    plan = orders(counting.url)
    assert {state.took_ms for state in dry_run(plan, store=store).states} == {None}
    run(plan, store=store)
    dry = dry_run(plan, store=store)
    assert all(type(state.took_ms) is int for state in dry.states)


def test_files_programs_and_transports_of_ones_own_are_not_reached(store, scripted, tmp_path):
    path, own = tmp_path / "out", scripted(effect=True)

    async def write(ctx, io, rec):
        ctx["written"] = await io.write_file(path, "text")

    async def program(ctx, io, rec):
        (await io.exec(["touch", str(path)])).check()

    async def mail(ctx, io, rec):
        await io.call("mail", {"to": "a"})

    assert effect_of(write, store).namespace == "file.write"
    assert effect_of(program, store).request["argv"] == ["touch", str(path)]
    assert effect_of(mail, store, transports={"mail": own}).request == {"to": "a"}
    assert not path.exists()
    assert own.asked == []


def test_a_transport_of_ones_own_that_says_it_reads_is_not_asked_either(store, scripted):
    own = scripted()

    async def ask(ctx, io, rec):
        await io.call("stock", {"of": "a"})

    effect = effect_of(ask, store, transports={"stock": own})
    assert (effect.namespace, effect.idempotency_key) == ("stock", None)
    assert own.asked == []


def test_safe_reads_are_made_for_the_request(store, tmp_path, monkeypatch):
    (tmp_path / "in").write_text("from a file")
    monkeypatch.setenv("DRY_RUN_TEST", "from outside")

    async def handler(ctx, io, rec):
        text = (await io.read_file(tmp_path / "in")).text
        now, drawn = await io.now(), await io.random_bytes(4)
        await io.sleep(30)
        await io.sleep(3600)
        same = [await io.record_value("mine", 1), await io.record_value("mine", 2)]
        await io.exec(
            ["true", text, str(await io.env("DRY_RUN_TEST")), str(now > 0), str(len(drawn)), str(same)]
        )

    assert effect_of(handler, store).request["argv"] == [
        "true",
        "from a file",
        "from outside",
        "True",
        "4",
        "[1, 1]",
    ]


def test_all_effects_of_a_state_are_shown_in_order(store):
    own = Mail()

    async def handler(ctx, io, rec):
        for number in range(3):
            await io.call("mail", {"number": number})

    dry = dry_of(handler, store, transports={"mail": own})
    assert [effect.request for effect in dry.effects] == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert (dry.states[0].reason, own.asked) == ("completed, 3 effects not applied", [])


def test_a_plain_function_is_previewed_as_well(store):
    def handler(ctx, io, rec):
        ctx["first"] = io.call("mail", {"now": io.now() > 0}).response
        if io.call("mail", {"now": 2}).response["ok"]:
            io.call("mail", {"now": 3})

    dry = dry_of(handler, store, transports={"mail": Mail()})
    assert [effect.request for effect in dry.effects] == [{"now": True}, {"now": 2}]
    assert dry.needs[0].key is None


def test_effects_that_race_are_all_shown(store):
    async def handler(ctx, io, rec):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(io.call, "mail", {"number": number})

    own = Mail()
    dry = dry_of(handler, store, transports={"mail": own})
    assert [effect.request["number"] for effect in dry.effects] == [0, 1, 2]
    assert own.asked == []


def test_a_secret_in_the_request_is_redacted(store, monkeypatch):
    monkeypatch.setenv("DRY_TOKEN", "the-real-token-1")

    async def handler(ctx, io, rec):
        token = await io.secret("DRY_TOKEN")
        await io.http("POST", "http://127.0.0.1:9/", headers={"authorization": f"Bearer {token}"})

    request = effect_of(handler, store).request
    assert "the-real-token-1" not in repr(request)
    assert "DRY_TOKEN" in request["headers"]["authorization"]


# -- previewed outcomes ----------------------------------------------------------------------------------------


async def post(ctx, io):
    """Send a message, and keep what the answer says."""
    answer = await io.http("POST", "http://127.0.0.1:9/", json={"n": ctx["n"]})
    ctx["seen"] = [answer.status_code, answer.json()]


@pytest.mark.parametrize(
    ("preview", "seen"),
    [
        ({"json": {"id": 5}}, [200, {"id": 5}]),
        (lambda ctx, request: {"status": 201, "json": [ctx["n"], request["json"]["n"]]}, [201, [3, 3]]),
        (HttpResponse(202, "http://127.0.0.1:9/", (), b"true"), [202, True]),
    ],
)
def test_the_preview_of_a_state_is_the_outcome_of_its_effects(store, preview, seen):
    dry = dry_of(post, store, meta={"preview": preview}, input={"n": 3})
    assert (dry.result.context["seen"], dry.effects[0].source) == (seen, "preview")
    assert dry.effects[0].outcome["status"] == seen[0]


def test_a_preview_that_does_not_know_leaves_it_to_the_earlier_run(store):
    async def handler(ctx, io):
        ctx["a"] = (await io.call("mail", {"to": "a"})).response
        ctx["b"] = (await io.call("mail", {"to": "b"})).response

    def preview(ctx, request):
        return "of the state" if request["to"] == "a" else NotImplemented

    plan, transports = plan_of(handler, preview=preview), {"mail": Mail()}
    earlier = run(plan, store=store, transports=transports)
    dry = dry_run(plan, store=store, transports=transports, answers_from=earlier.run_id)
    assert dry.result.context == {"a": "of the state", "b": "sent"}
    assert [effect.source for effect in dry.effects] == ["preview", f"run {earlier.run_id}"]
    assert replay(dry.result.run_id, plan=plan, store=store).identical


def test_an_earlier_run_answers_the_same_effect_alone(store, scripted):
    async def handler(ctx, io):
        ctx["said"] = (await io.call("mail", {"to": ctx["to"]})).response

    plan, transports = plan_of(handler), {"mail": scripted(lambda asked: asked["to"], effect=True)}
    earlier = run(plan, store=store, input={"to": "a"}, transports=transports)
    made = {"store": store, "transports": transports, "answers_from": earlier.run_id}
    assert dry_run(plan, input={"to": "a"}, **made).result.context["said"] == "a"
    other = dry_run(plan, input={"to": "b"}, **made)
    assert (other.effects[0].source, other.result.status) == ("known after apply", "completed")


def test_a_dry_run_gives_no_answers_to_another(store, scripted):
    async def handler(ctx, io):
        await io.call("mail", {})

    plan, transports = plan_of(handler), {"mail": scripted(effect=True)}
    dry = dry_run(plan, store=store, transports=transports)
    with pytest.raises(UsageError, match="is a dry run itself"):
        dry_run(plan, store=store, transports=transports, answers_from=dry.result.run_id)
    assert len(store.list_runs().rows) == 1


@pytest.mark.parametrize("preview", [{"status": "x"}, lambda ctx, request: 1 / 0, lambda ctx, request: {1}])
def test_a_preview_that_gives_no_outcome_fails_the_state(store, preview):
    dry = dry_of(post, store, meta={"preview": preview}, input={"n": 3})
    assert (dry.result.status, dry.result.error.code) == ("failed", Code.INVALID_PREVIEW)


def test_a_preview_may_not_write_and_needs_an_effect(store):
    def writes(ctx, request):
        ctx["x"] = 1

    dry = dry_of(post, store, meta={"preview": writes}, input={"n": 3})
    assert dry.result.error.code == Code.INVALID_PREVIEW
    with pytest.raises(PlanError, match="preview is the outcome of effects"):
        Plan("op").state("a.read", preview=1)(post)


def test_a_preview_that_reads_the_clock_itself_is_refused(store):
    def preview(ctx, request):
        return {"json": os.urandom(2).hex()}

    dry = dry_of(post, store, meta={"preview": preview}, input={"n": 3})
    assert (dry.result.error.code, "without io" in dry.result.error.message) == (Code.INVALID_PREVIEW, True)


def test_a_preview_is_part_of_the_plan_only_where_there_is_one():
    without, of_one = plan_of(post).graph, plan_of(post, preview=1).graph
    assert "preview" not in without.shape()["states"][0]["meta"]
    assert of_one.shape()["states"][0]["meta"]["preview"] == "value"
    assert without.plan_id != of_one.plan_id == plan_of(post, preview=2).graph.plan_id


# -- known after apply -----------------------------------------------------------------------------------------


def three(effect, *, last=None):
    """Return a plan in which a state has an effect, one writes on, and one reads what the first wrote."""
    plan = Plan("op")
    first = plan.state("a.pay", **EFFECT)(effect)

    @plan.state("b.other", after=[first])
    async def other(ctx, io, rec):
        ctx["other"] = True

    @plan.state("c.file", after=[other])
    async def file(ctx, io, rec):
        ctx["filed"] = (last or (lambda ctx: ctx["receipt"]))(ctx)

    return plan


async def pay(ctx, io):
    """Make an effect, and pass its answer on."""
    ctx["receipt"] = {"of": 1, "number": (await io.http("POST", "http://127.0.0.1:9/")).json()["number"]}


async def pay_if(ctx, io):
    """Make an effect, and ask for its answer before anything is written."""
    if (await io.http("POST", "http://127.0.0.1:9/")).is_success:
        ctx["receipt"] = 1


@pytest.mark.parametrize(
    ("effect", "writer"), [(pay, "the state that wrote it"), (pay_if, "the state that could not")]
)
@pytest.mark.parametrize("read", [lambda ctx: ctx["receipt"], lambda ctx: ctx.get("receipt"), dict])
@pytest.mark.parametrize("mode", [None, FanOutJoin(2)])
def test_a_state_that_reads_what_is_not_known_is_reported_and_is_no_failure(
    store, effect, writer, read, mode
):
    plan = three(effect, last=read)
    config = RunConfig() if mode is None else RunConfig(execution_mode=mode)
    dry = dry_run(plan, store=store, config=config)
    assert (dry.result.status, dry.result.error) == ("completed", None)
    need = dry.needs[-1]
    assert (need.state_id, need.writer) == ("op.c.file", "op.a.pay"), writer
    assert need.key in {"receipt", None}
    assert dry.states[1].action == "run"
    assert dry.states[2].action == "known after apply"
    assert replay(dry.result.run_id, plan=plan, store=store).identical
    assert machine.verify(dry.result.run_id, store=store).ok


@pytest.mark.parametrize(
    "use",
    [
        bool,
        str,
        len,
        list,
        "{}".format,
        lambda answer: answer == 200,
        lambda answer: answer + 1,
        lambda answer: {answer: 1},
        lambda answer: canonical.encode([answer]),
        lambda answer: setattr(answer, "x", 1),
    ],
)
def test_each_use_of_an_answer_needs_it(store, use):
    async def handler(ctx, io, rec):
        answer = (await io.exec(["true"])).check()
        ctx["lost"] = 1
        use(answer.stdout)

    dry = dry_of(handler, store)
    assert [attrs.astuple(need) for need in dry.needs] == [("op.a.send", None, "op.a.send")]
    assert (dry.result.context, len(dry.effects)) == ({}, 1)


@pytest.mark.parametrize("broad", [Exception, BaseException])
def test_a_broad_except_changes_nothing(store, scripted, broad):
    clock = scripted(lambda request: 1)

    async def handler(ctx, io, rec):
        try:
            await io.http("POST", "http://127.0.0.1:9/", json=(await io.call("mail", {})).response)
        except broad:
            await io.now()

    dry = dry_of(handler, store, transports={"mail": scripted(effect=True), "clock": clock})
    assert ([effect.namespace for effect in dry.effects], clock.asked) == (["mail"], [])
    assert dry.states[0].action == "known after apply"


def test_an_idempotency_key_may_need_it_too(store):
    plan = three(pay)
    plan.state("d.send", after=["c.file"], **{**EFFECT, "idempotency": lambda ctx: ctx["receipt"]})(pay)
    dry = dry_run(plan, store=store)
    assert [need.state_id for need in dry.needs] == ["op.c.file", "op.d.send"]


def test_it_is_not_retried(store):
    dry = dry_of(pay_if, store, config=RunConfig(retry_policy=RetryPolicy(3)))
    assert (dry.states[0].action, len(dry.effects)) == ("known after apply", 1)


def test_a_state_that_fails_of_itself_fails_the_run(store):
    async def breaks(ctx, io, rec):
        await io.exec(["true"])
        raise ValueError("no luck")

    async def waits(ctx, io, rec):
        await anyio.sleep_forever()

    assert dry_of(breaks, store).result.status == "failed"
    plan = plan_of(waits, timeout=0.01)
    assert dry_run(plan, store=store).result.error.code == Code.STATE_TIMEOUT
    plan = Plan("op")

    @plan.state("a.read")
    async def read(ctx, io, rec):
        ctx["x"] = ctx["absent"]

    dry = dry_run(plan, store=store)
    assert (dry.needs, dry.effects, dry.result.error.code) == ((), (), Code.CONTEXT_KEY_MISSING)


def test_a_second_effect_with_the_same_key_is_refused_as_in_a_run(store):
    async def handler(ctx, io, rec):
        await io.http("POST", "http://127.0.0.1:9/", json=1)
        await io.http("POST", "http://127.0.0.1:9/", json=2)

    dry = dry_of(handler, store)
    assert (dry.result.status, len(dry.effects)) == ("failed", 1)


def test_a_policy_refuses_in_a_dry_run_what_it_refuses_in_the_run_of_it(store):
    async def handler(ctx, io):
        ctx["asked"] = (await io.call("mail", {"to": "a"})).response
        await io.exec(["true"])

    rules = [
        Rule(name="ask-mail", verdict="ask", namespace="mail"),
        Rule(name="no-programs", verdict="deny", namespace="exec"),
    ]
    mail, config = Mail(), RunConfig(policy=Policy(rules))
    plan = plan_of(handler, preview=lambda ctx, request: "sent" if "to" in request else {"returncode": 0})
    dry = dry_run(plan, store=store, config=config, transports={"mail": mail})
    assert (dry.result.status, [effect.namespace for effect in dry.effects]) == ("failed", ["mail"])
    assert "no-programs" in dry.result.error.message
    assert replay(dry.result.run_id, plan=plan, store=store).identical
    assert mail.asked == []


# -- waits, tags, other faces ----------------------------------------------------------------------------------


def test_a_wait_is_known_after_apply_unless_it_is_answered(store):
    async def handler(ctx, io, rec):
        await io.sleep(86400)
        decision = await io.approval("Go on?", timeout=3600)
        await io.exec(["true"])
        ctx["by"] = decision.by
        if decision.approved:
            await io.exec(["false"])

    dry = dry_of(handler, store)
    assert (dry.result.status, dry.needs[0].state_id, len(dry.effects)) == ("completed", "op.a.send", 1)
    dry = dry_of(handler, store, answers={"op.a.send": {"approved": True, "by": "Ada"}})
    assert (dry.result.context, len(dry.effects)) == ({"by": "Ada"}, 2)


def test_other_tags_are_skipped_too(store):
    plan, called = Plan("op"), []

    @plan.state("a.read", tags=["slow"])
    async def read(ctx, io, rec):
        called.append("read")

    plan.state("b.send", **EFFECT)(pay)
    dry = dry_run(plan, store=store, config=RunConfig(skip_tags=("slow", "apply_side_effect")))
    assert [(state.action, state.reason) for state in dry.states] == [
        ("skip", "skip_tag:slow"),
        ("skip", "skip_tag:apply_side_effect"),
    ]
    assert (dry.effects, called) == ((), [])
    skips = [entry.event for entry, _ in run_reader.entries(store, dry.result.run_id)]
    assert sum(isinstance(event, StateSkipped) for event in skips) == 2


def test_a_paranoid_dry_run_makes_no_effect_either(store):
    dry = dry_run(three(pay), store=store, config=RunConfig(paranoid=True))
    assert (dry.result.status, [need.state_id for need in dry.needs]) == ("completed", ["op.c.file"])


def test_only_dry_run_makes_one_and_it_has_no_fork(store):
    plan = three(pay)
    with pytest.raises(ConfigError, match="for dry runs"):
        run(plan, store=store, config=RunConfig(io_mode=IoMode.DRY_RUN))
    dry = dry_run(plan, store=store)
    with pytest.raises(UsageError, match="has no fork"):
        machine.fork(dry.result.run_id, plan=plan, store=store, at=3)
    assert resume(dry.result.run_id, plan=plan, store=store) == dry.result


def test_the_coroutine_face_gives_the_same(store):
    plan = Plan("op")

    @plan.state("a.send", **EFFECT)
    async def send(ctx, io, rec):
        await io.exec(["echo", os.sep])

    run_id = str(new_run_id())

    async def program():
        dry = await aio.dry_run(plan, store=store, run_id=run_id)
        with pytest.raises(UsageError, match=r"machine.dry_run was called from a running event loop"):
            dry_run(plan, store=store)
        return dry

    dry = anyio.run(program)
    assert dry.result.run_id == run_id
    assert dry.effects[0].request["argv"] == ["echo", os.sep]
