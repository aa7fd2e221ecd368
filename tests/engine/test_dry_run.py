"""A dry run applies nothing, says what it left out and why, and writes nothing but an ordinary run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import attrs
import pytest

from machine import Plan, RunConfig, aio, canonical, dry_run, new_run_id, replay, run
from machine.engine import run_reader
from machine.errors import Code, UsageError
from machine.events import EffectIntended, StateSkipped

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


def effect_of(handler, store, *, input=None, **options):  # noqa: A002 - as in `run`
    """Dry-run a plan of one state with effects, and return what is reported of it."""
    plan = Plan("op")
    plan.state("a.send", **{**EFFECT, **options.pop("meta", {})})(handler)
    (effect,) = dry_run(plan, store=store, input=input, **options).effects
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
    assert effect.unknown is None

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


def test_every_state_is_reported_with_run_or_skip_and_the_reason(store, counting):
    dry = dry_run(orders(counting.url), store=store)
    assert [attrs.astuple(state) for state in dry.states] == [
        ("orders.a.read", "run", "completed"),
        ("orders.b.send", "skip", "skip_tag:apply_side_effect"),
        ("orders.c.tell", "run", "completed"),
    ]
    assert dry.result.context == {"n": 7, "told": False}
    assert dry.missed == ()


def test_skips_are_events_and_the_run_replays(store, counting):
    plan = orders(counting.url)
    dry = dry_run(plan, store=store)
    skips = [
        entry.event
        for entry, _ in run_reader.entries(store, dry.result.run_id)
        if isinstance(entry.event, StateSkipped)
    ]
    assert skips == [StateSkipped("orders.b.send", "skip_tag:apply_side_effect")]
    assert replay(dry.result.run_id, plan=plan, store=store).identical


def test_a_preview_writes_nothing_to_the_store(store, counting):
    plan = orders(counting.url)
    skipping = RunConfig(skip_tags=("apply_side_effect",))
    run(plan, store=store, config=skipping)
    before = set(store._contents.artifacts)
    dry = dry_run(plan, store=store, config=skipping)
    assert len(dry.effects) == 1
    assert dry.result.head_seq == len(list(store.read_range(dry.result.run_id, 1)))
    new = set(store._contents.artifacts) - before
    assert not any(b"/price" in store.get(artifact) or b"/order" in store.get(artifact) for artifact in new)
    assert not any(b"/price" in store.get(artifact) for artifact in before)


def test_files_programs_and_transports_of_ones_own_are_not_reached(store, scripted, tmp_path):
    path, own = tmp_path / "out", scripted(effect=True)

    async def write(ctx, io, rec):
        await io.write_file(path, "text")

    async def program(ctx, io, rec):
        await io.exec(["touch", str(path)])

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

    assert "asks stock" in effect_of(ask, store, transports={"stock": own}).unknown
    assert own.asked == []


def test_safe_reads_are_made_for_the_request(store, tmp_path, monkeypatch):
    (tmp_path / "in").write_text("from a file")
    monkeypatch.setenv("DRY_RUN_TEST", "from outside")

    async def handler(ctx, io, rec):
        text = (await io.read_file(tmp_path / "in")).text
        now, drawn = await io.now(), await io.random_bytes(4)
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


@pytest.mark.parametrize("broad", [Exception, BaseException])
def test_a_broad_except_does_not_reach_the_next_effect(store, scripted, broad):
    own = scripted(effect=True)

    async def handler(ctx, io, rec):
        for number in range(3):
            try:
                await io.call("mail", {"number": number})
            except broad:
                continue

    assert effect_of(handler, store, transports={"mail": own}).request == {"number": 0}
    assert own.asked == []


def test_a_broad_except_does_not_even_see_the_end_of_a_preview(store, scripted):
    seen = []

    async def handler(ctx, io, rec):
        try:
            await io.call("mail", {"to": "a"})
        except Exception:  # noqa: BLE001 - what is tested
            seen.append("the end")

    effect_of(handler, store, transports={"mail": scripted(effect=True)})
    assert seen == []


def test_a_handler_that_catches_even_the_end_of_a_preview_reads_nothing_more(store, scripted):
    clock = scripted(lambda request: 1)

    async def handler(ctx, io, rec):
        try:
            await io.call("mail", {"to": "a"})
        except BaseException:  # noqa: BLE001 - what is tested
            await io.now()

    own = {"mail": scripted(effect=True), "clock": clock}
    assert effect_of(handler, store, transports=own).request == {"to": "a"}
    assert clock.asked == []


def test_a_plain_function_is_previewed_as_well(store, scripted):
    def handler(ctx, io, rec):
        try:
            io.call("mail", {"now": io.now() > 0})
        except Exception:  # noqa: BLE001 - what is tested
            io.call("mail", {"now": "swallowed"})

    assert effect_of(handler, store, transports={"mail": scripted(effect=True)}).request == {"now": True}


def test_effects_that_race_are_reported_by_their_first(store, scripted):
    async def handler(ctx, io, rec):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(io.call, "mail", {"number": number})

    own = scripted(effect=True)
    assert effect_of(handler, store, transports={"mail": own}).request == {"number": 0}
    assert own.asked == []


def test_a_secret_in_the_request_is_veiled(store, monkeypatch):
    monkeypatch.setenv("DRY_TOKEN", "the-real-token-1")

    async def handler(ctx, io, rec):
        token = await io.secret("DRY_TOKEN")
        await io.http("POST", "http://127.0.0.1:9/", headers={"authorization": f"Bearer {token}"})

    request = effect_of(handler, store).request
    assert "the-real-token-1" not in repr(request)
    assert "DRY_TOKEN" in request["headers"]["authorization"]


def test_what_cannot_be_known_says_why(store):
    async def needs(ctx, io, rec):
        await io.exec(["echo", ctx["receipt"]])

    async def breaks(ctx, io, rec):
        raise ValueError("no luck")

    async def nothing(ctx, io, rec):
        ctx["x"] = 1

    async def waits(ctx, io, rec):
        await anyio.sleep_forever()

    assert effect_of(needs, store).unknown == "it cannot be known: needs key 'receipt'"
    keyed = effect_of(nothing, store, meta={"idempotency": lambda ctx: ctx["absent"]})
    assert (keyed.unknown, keyed.idempotency_key) == ("it cannot be known: needs key 'absent'", None)
    assert effect_of(breaks, store).unknown == "it cannot be known: ValueError: no luck"
    assert effect_of(nothing, store).unknown == "the handler came to its end without an effect"
    assert "timeout" in effect_of(waits, store, meta={"timeout": 0.01}).unknown


def test_a_preview_sees_the_context_of_its_turn(store):
    plan = Plan("op")

    @plan.state("a.send", **EFFECT)
    async def send(ctx, io, rec):
        await io.exec(["echo", ctx["word"]])

    @plan.state("b.later", after=[send])
    async def later(ctx, io, rec):
        ctx["word"] = "later"

    (effect,) = dry_run(plan, store=store, input={"word": "first"}).effects
    assert effect.request["argv"] == ["echo", "first"]


def test_a_key_that_a_later_state_missed_is_reported_with_who_may_write_it(store):
    plan = Plan("op")

    @plan.state("a.pay", **EFFECT)
    async def pay(ctx, io, rec):
        ctx["receipt"] = (await io.exec(["true"])).returncode

    @plan.state("b.file", after=[pay])
    async def file(ctx, io, rec):
        ctx["filed"] = ctx["receipt"]

    @plan.state("c.end", after=[file])
    async def end(ctx, io, rec):
        ctx["end"] = True

    dry = dry_run(plan, store=store)
    assert [attrs.astuple(missed) for missed in dry.missed] == [("receipt", "op.b.file", ("op.a.pay",))]
    assert [(state.action, state.reason) for state in dry.states][1:] == [
        ("run", f"failed: {Code.CONTEXT_KEY_MISSING}"),
        ("not reached", "the run ended before it: failed"),
    ]
    assert dry.result.status == "failed"


def test_a_missing_key_is_no_consequence_when_nothing_was_skipped(store):
    plan = Plan("op")

    @plan.state("a.read")
    async def read(ctx, io, rec):
        ctx["x"] = ctx["absent"]

    dry = dry_run(plan, store=store)
    assert (dry.missed, dry.effects) == ((), ())


def test_other_tags_are_skipped_too_and_only_states_with_effects_are_previewed(store):
    plan, called = Plan("op"), []

    @plan.state("a.read", tags=["slow"])
    async def read(ctx, io, rec):
        called.append("read")

    dry = dry_run(plan, store=store, config=RunConfig(skip_tags=("slow",)))
    assert (dry.states[0].reason, dry.effects, called) == ("skip_tag:slow", (), [])


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


def test_an_effect_after_an_answer_cannot_be_known(store):
    async def handler(ctx, io, rec):
        await io.approval("Go on?")
        await io.exec(["true"])

    assert "it waits for an approval" in effect_of(handler, store).unknown
