"""Paranoid mode: a state that would not do the same again on its own facts fails where it does not."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

import anyio
import pytest

import machine
from machine import (
    DomainEvent,
    FixedBackoff,
    Plan,
    RetryPolicy,
    RunConfig,
    StateOutcome,
    canonical,
    codec,
    resume,
    verify,
)
from machine import replay as replayed
from machine.engine import run_reader, start_and_resume
from machine.events import EffectIntended, FactRecorded, StateFailed
from machine.io.transport import BaseTransport
from machine.recordings import replay_log
from machine.stores import MemoryStore

PARANOID = RunConfig(paranoid=True)


class World(BaseTransport):
    """Answers each request with the number of requests so far, and keeps them."""

    one_effect_per_key = True

    def __init__(self, *, effect=False, fails=0):
        self.asked, self.effect, self.fails = [], effect, fails

    def is_effect(self, namespace, request):
        return self.effect

    async def perform(self, namespace, request):
        self.asked.append(request)
        if len(self.asked) <= self.fails:
            raise machine.errors.TransportError("not yet", retryable=True)
        return {"n": len(self.asked)}


def plan_of(handler, **meta):
    plan = Plan("op")
    plan.state("a.only", **{"side_effects": "read_only_io", **meta})(handler)
    return plan


def run(plan, store, **options):
    return machine.run(plan, store=store, **{"config": PARANOID, **options})


def events_of(store, run_id, *kinds):
    return [entry.event for entry, _ in run_reader.entries(store, run_id) if isinstance(entry.event, kinds)]


def plainly(handler):
    """Return a handler that needs no `io` as a plain function and as a coroutine function."""

    async def coroutine(ctx, io, rec):
        handler(ctx, rec)

    def plain(ctx, io, rec):
        handler(ctx, rec)

    return {"async": coroutine, "plain": plain}


# ---- what is found


KEPT = []
CACHE = {}
COUNT = itertools.count()


def counts(ctx, rec):
    ctx["n"] = next(COUNT)


def takes_the_time(ctx, rec):
    ctx["at"] = time.time()


def takes_an_identity(ctx, rec):
    KEPT.append(object())
    ctx["id"] = id(KEPT[-1])


def draws(ctx, rec):
    ctx["drawn"] = random.random()


def fails_with_the_time(ctx, rec):
    raise ValueError(time.time())


def fails_once(ctx, rec):
    if not CACHE.setdefault("failed", []):
        CACHE["failed"].append(1)
        raise ValueError("the first time")


def ends_with_another_code(ctx, rec):
    raise machine.Failure("no", code=f"no_{next(COUNT)}")


FOUND = {
    counts: "the context differs in n",
    takes_the_time: "the context differs in at",
    takes_an_identity: "the context differs in id",
    draws: "the context differs in drawn",
    fails_with_the_time: "state_failed differs",
    fails_once: "the recording has state_failed where there is now state_completed",
    ends_with_another_code: "state_failed differs",
}


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("handler", FOUND, ids=lambda handler: handler.__name__)
def test_a_state_that_is_not_deterministic_fails_where_it_differs(store, handler, kind):
    CACHE.clear()
    plan = plan_of(plainly(handler)[kind], retry=RetryPolicy(3))
    result = run(plan, store)
    error = result.error
    assert (result.status, error.code, error.retryable) == ("failed", "not_deterministic", False)
    assert FOUND[handler] in error.message
    assert error.details["divergence"]["state_id"] == "op.a.only"
    assert error.details["text"][0].endswith("at event 3 of op.a.only, attempt 0")
    assert len(events_of(store, result.run_id, StateFailed)) == 1
    assert verify(result.run_id, store=store).problems == ()


@pytest.mark.parametrize("handler", FOUND, ids=lambda handler: handler.__name__)
def test_without_it_nobody_sees_that(store, handler):
    CACHE.clear()
    result = machine.run(plan_of(plainly(handler)["async"]), store=store)
    assert result.error is None or result.error.code != "not_deterministic"


def asks_through_a_cache(cache):
    async def handler(ctx, io, rec):
        if "answer" not in cache:
            cache["answer"] = (await io.call("world", {"q": 1})).response
        ctx["answer"] = cache["answer"]

    return handler


def asks_once_more(asked):
    def handler(ctx, io, rec):
        asked.append(1)
        for number in asked:
            io.call("world", {"q": number, "of": len(asked)})

    return handler


def asks_something_else(numbers):
    async def handler(ctx, io, rec):
        await io.call("world", {"q": next(numbers), "same": True})

    return handler


def says_something_else(numbers):
    async def handler(ctx, io, rec):
        await rec.emit(DomainEvent("said", {"n": 1}))
        await rec.emit(DomainEvent("said", {"n": next(numbers)}))

    return handler


def says_in_another_order(numbers):
    async def handler(ctx, io, rec):
        names = ["one", "two"]
        await rec.emit_many([DomainEvent(name, {}) for name in (names if next(numbers) % 2 else names[::-1])])

    return handler


def says_more(said):
    async def handler(ctx, io, rec):
        said.append(1)
        for _ in said:
            await rec.emit(DomainEvent("said", {}))

    return handler


def writes_more(written):
    async def handler(ctx, io, rec):
        written.append(1)
        for number, _ in enumerate(written):
            ctx[f"key {number}"] = number

    return handler


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (asks_through_a_cache({}), "call_missing"),
        (asks_once_more([]), "request_changed"),
        (asks_something_else(itertools.count()), "request_changed"),
        (says_something_else(itertools.count()), "event_differs"),
        (says_in_another_order(itertools.count()), "event_differs"),
        (says_more([]), "event_differs"),
        (writes_more([]), "snapshot_differs"),
    ],
    ids=["cache", "more calls", "request", "event", "order of events", "more events", "more writes"],
)
def test_the_first_difference_is_the_one_that_is_told(store, handler, kind):
    world = World()
    result = run(plan_of(handler), store, transports={"world": world})
    assert result.error.code == "not_deterministic"
    assert result.error.details["divergence"]["kind"] == kind
    facts = events_of(store, result.run_id, FactRecorded)
    assert len(world.asked) == len(facts)


def test_a_difference_is_told_with_both_sides(store):
    numbers = itertools.count(7)

    async def handler(ctx, io, rec):
        ctx["deep"] = {"n": [next(numbers)]}

    details = run(plan_of(handler), store).error.details
    (change,) = details["divergence"]["changes"]
    assert change == {"pointer": "/deep/n/0", "kind": "changed", "recorded": 7, "now": 8}
    assert details["divergence"]["cause"] == "nothing_changed"
    assert {"    RECORDED  7", "    NOW       8"} <= set(details["text"])


def test_of_a_large_difference_the_text_is_kept(store):
    numbers = itertools.count()

    async def handler(ctx, io, rec):
        ctx["large"] = f"{next(numbers)}" * 20_000

    details = run(plan_of(handler), store).error.details
    assert set(details) == {"text"}
    assert len(canonical.encode(details)) < 2_000


def test_a_second_run_that_waits_for_what_is_no_call_is_a_difference(store, monkeypatch):
    monkeypatch.setattr(replay_log, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(replay_log, "PATIENCE", 0)
    waits = [0, 60]

    async def handler(ctx, io, rec):
        await asyncio.sleep(waits.pop(0))

    error = run(plan_of(handler), store).error
    assert error.code == "not_deterministic"
    assert "the handler waits for something that is no call of io" in error.message


def test_no_handler_can_claim_what_only_the_engine_finds(store):
    async def handler(ctx, io, rec):
        raise machine.Failure("mine", code="not_deterministic")

    assert run(plan_of(handler), store).error.code == "handler_error"


# ---- what is left alone


def everything(numbers):
    """Return a plan that does a bit of everything, deterministically."""
    plan = Plan("op")

    @plan.state("read.all", retry=RetryPolicy(4, FixedBackoff(0.001)))
    async def read(ctx, io, rec):
        ctx["now"] = await io.now()
        ctx["drawn"] = (await io.random()).random()
        await io.sleep(0.001)
        ctx["key"] = (await io.call("world", {"q": 1}, fact_key="first")).response
        await rec.emit(DomainEvent("read", {"n": ctx["key"]["n"]}))
        answer = (await io.call("world", {"q": 2})).response
        if answer["n"] < 4:
            raise ValueError(f"not yet: {answer}")
        ctx["answer"] = answer

    @plan.state("read.plainly", after=[read])
    def plainly(ctx, io, rec):
        ctx["kept"] = io.get_recorded_fact("first")
        ctx["again"] = io.call("world", {"q": 1}, fact_key="first").response
        rec.emit_many([DomainEvent("one", {"x": "y" * 20_000}), DomainEvent("two", {})])
        ctx["env"] = io.env("PARANOID")
        ctx["value"] = io.record_value("mine", next(numbers))

    @plan.state("read.racing", after=[plainly])
    async def racing(ctx, io, rec):
        order = []

        async def ask(number):
            order.append((await io.call("world", {"race": number})).response["n"])

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(ask, number)
        ctx["order"] = order

    @plan.state("write.effect", after=[racing], side_effects="apply_side_effect", idempotency=lambda ctx: "k")
    async def effect(ctx, io, rec):
        ctx["effect"] = (await io.call("outside", {"do": ctx["answer"]})).response

    @plan.state("write.fails", after=[effect], side_effects="pure")
    def fails(ctx, io, rec):
        return StateOutcome(error="sold_out", snapshot="always")

    return plan


def test_a_plan_that_takes_everything_from_io_runs_as_it_does_without(store):
    world, outside = World(), World(effect=True)
    plan = everything(itertools.count())
    result = run(plan, store, transports={"world": world, "outside": outside})
    assert (result.status, result.error.code) == ("failed", "sold_out")
    assert len(outside.asked) == 1
    calls = [fact for fact in events_of(store, result.run_id, FactRecorded) if fact.namespace == "world"]
    assert len(world.asked) == len(calls) == 10
    assert verify(result.run_id, store=store).problems == ()
    again = replayed(result.run_id, plan=plan, store=store, transports={"world": world, "outside": outside})
    assert again.identical, again.divergence
    assert (len(world.asked), len(outside.asked)) == (10, 1)


def test_the_log_is_that_of_the_same_run_without_it(store):
    def bodies(config):
        plan = plan_of(handler)
        result = machine.run(plan, store=store, config=config, transports={"world": World()})
        return [(entry.event.type, entry.body) for entry, _ in run_reader.entries(store, result.run_id)][1:]

    async def handler(ctx, io, rec):
        ctx["answer"] = (await io.call("world", {"q": 1})).response
        await rec.emit(DomainEvent("said", {"n": 1}))

    assert bodies(PARANOID) == bodies(RunConfig())


def test_a_configuration_that_does_not_ask_for_it_has_the_bytes_it_always_had():
    assert "paranoid" not in codec.to_json(RunConfig())
    assert codec.to_json(PARANOID)["paranoid"] is True
    assert codec.from_json(codec.to_json(PARANOID), RunConfig, what="it") == PARANOID
    with pytest.raises(machine.errors.ConfigError):
        RunConfig(paranoid="yes")


def test_every_attempt_that_ends_by_itself_runs_twice_and_a_cut_one_once(store):
    ran = []

    async def handler(ctx, io, rec):
        attempt = io._scope.attempt
        ran.append(attempt)
        if attempt == 0:
            raise ValueError("by itself")
        if attempt == 1:
            await asyncio.sleep(60)

    plan = plan_of(handler, retry=RetryPolicy(3), timeout=1)
    result = run(plan, store)
    assert result.status == "completed", result.error
    assert ran == [0, 0, 1, 2, 2]
    assert replayed(result.run_id, plan=plan, store=store).identical


def test_an_effect_is_sent_once_and_intended_once(store):
    outside = World(effect=True, fails=1)

    async def handler(ctx, io, rec):
        ctx["done"] = (await io.call("outside", {"do": 1})).response

    plan = plan_of(handler, side_effects="apply_side_effect", idempotency="k", retry=RetryPolicy(2))
    result = run(plan, store, transports={"outside": outside})
    assert (result.status, len(outside.asked)) == ("completed", 2)
    assert len(events_of(store, result.run_id, EffectIntended)) == 2
    assert replayed(result.run_id, plan=plan, store=store, transports={"outside": outside}).identical


def test_an_idempotency_key_that_is_drawn_is_found_before_it_does_harm_twice(store):
    outside = World(effect=True)
    numbers = itertools.count()

    async def handler(ctx, io, rec):
        await io.call("outside", {"do": 1})

    plan = plan_of(handler, side_effects="apply_side_effect", idempotency=lambda ctx: f"k{next(numbers)}")
    result = run(plan, store, transports={"outside": outside})
    assert (result.error.code, len(outside.asked)) == ("not_deterministic", 1)


def test_what_asks_about_an_effect_runs_again_too(store):
    outside = World(effect=True)

    async def reconcile(ctx, io, effect):
        found = (await io.call("world", {"find": effect.idempotency_key})).response
        return effect.happened(found)

    async def handler(ctx, io, rec):
        ctx["done"] = (await io.call("outside", {"do": 1})).response

    plan = plan_of(
        handler,
        side_effects="apply_side_effect",
        idempotency="k",
        on_uncertain="reconcile",
        reconcile=reconcile,
    )
    doors = {"outside": outside, "world": World()}
    whole = run(plan, store, transports=doors)
    intended = next(
        entry.seq
        for entry, _ in run_reader.entries(store, whole.run_id)
        if isinstance(entry.event, EffectIntended)
    )
    with cut_after(store, whole.run_id, intended) as cut:
        result = resume(whole.run_id, plan=plan, store=cut, transports=doors)
        assert result.status == "completed", result.error
        assert (len(outside.asked), len(doors["world"].asked)) == (1, 1)
        assert replayed(whole.run_id, plan=plan, store=cut, transports=doors).identical


def cut_after(store, run_id, seq):
    """Return a store that holds a run as a crash right after an event leaves it."""
    cut = MemoryStore()
    cut._contents.secret_key = store._contents.secret_key
    for kind, data in store._contents.artifacts.values():
        cut.put(kind, data)
    cut.append(run_id, 0, list(store.read_range(run_id, 1, seq)))
    return cut


@pytest.mark.slow
def test_a_run_cut_after_any_event_goes_on_paranoid(store):
    doors = {"world": World(), "outside": World(effect=True)}
    plan = everything(itertools.count())
    whole = run(plan, store, transports=doors)
    for seq in range(1, whole.head_seq):
        with cut_after(store, whole.run_id, seq) as cut:
            result = resume(whole.run_id, plan=plan, store=cut, transports=doors)
            assert result.error.code == "sold_out", (seq, result.error)
            assert replayed(whole.run_id, plan=plan, store=cut, transports=doors).identical


def test_a_resumed_run_is_as_paranoid_as_it_was_started(store):
    numbers = itertools.count()

    async def handler(ctx, io, rec):
        await io.call("world", {"q": 1})
        ctx["n"] = next(numbers) if len(world.asked) > 1 else 0

    world = World()
    plan = plan_of(handler)
    whole = run(plan, store, transports={"world": world})
    assert whole.status == "completed"
    world.asked.append("more")
    with cut_after(store, whole.run_id, 3) as cut:
        assert resume(whole.run_id, plan=plan, store=cut, transports={"world": world}).error.code == (
            "not_deterministic"
        )


def test_a_failure_of_determinism_replays_like_any_other(store):
    plan = plan_of(asks_through_a_cache({}))
    doors = {"world": World()}
    result = run(plan, store, transports=doors)
    assert result.error.code == "not_deterministic"
    again = replayed(result.run_id, plan=plan, store=store, transports=doors)
    assert (again.identical, again.status, again.digest) == (True, "failed", result.digest)


def test_a_dry_run_can_be_paranoid(store):
    dry = machine.dry_run(plan_of(plainly(counts)["async"]), store=store, config=PARANOID)
    assert dry.result.error.code == "not_deterministic"


def test_the_coroutine_face_is_paranoid_too(store):
    async def start():
        return await machine.aio.run(plan_of(plainly(counts)["plain"]), store=store, config=PARANOID)

    assert anyio.run(start).error.code == "not_deterministic"


def test_it_is_refused_where_nothing_can_run_a_state_again(store):
    async def start():
        return await start_and_resume.run(plan_of(plainly(counts)["plain"]), store=store, config=PARANOID)

    with pytest.raises(machine.errors.UsageError, match=r"machine\.run"):
        anyio.run(start)


# ---- stopping


def test_a_second_run_that_is_interrupted_cuts_the_attempt(store):
    interrupted = []

    async def handler(ctx, io, rec):
        await io.call("world", {"q": 1})
        interrupted.append(1)
        if len(interrupted) == 2:
            raise KeyboardInterrupt

    plan = plan_of(handler)
    world = World()
    chosen = str(machine.new_run_id())
    with pytest.raises(KeyboardInterrupt):
        run(plan, store, transports={"world": world}, run_id=chosen)
    (failed,) = events_of(store, chosen, StateFailed)
    assert failed.error.code == "attempt_interrupted"
    result = resume(chosen, plan=plan, store=store, transports={"world": world})
    assert (result.status, len(world.asked)) == ("completed", 1)
    assert replayed(chosen, plan=plan, store=store, transports={"world": world}).identical


def test_a_run_that_is_cancelled_in_a_second_run_ends_cancelled(store):
    ran = []

    async def handler(ctx, io, rec):
        ran.append(1)
        if len(ran) == 2:
            await machine.aio.cancel(chosen, store=store)
            await asyncio.sleep(60)

    chosen = str(machine.new_run_id())
    plan = plan_of(handler)
    result = run(plan, store, run_id=chosen)
    assert (result.status, len(ran)) == ("cancelled", 2)
    assert [failed.error.code for failed in events_of(store, chosen, StateFailed)] == ["run_cancelled"]
    assert replayed(chosen, plan=plan, store=store).identical


# ---- secrets


SECRET = "s3cret-value-of-the-token"


def test_secrets_pass_and_none_is_in_what_is_told(store, monkeypatch):
    monkeypatch.setenv("API_TOKEN", SECRET)
    numbers = itertools.count()

    def handler_that(ends):
        async def handler(ctx, io, rec):
            token = await io.secret("API_TOKEN")
            await io.call("world", {"authorization": f"Bearer {token}", "plain": SECRET})
            await rec.emit(DomainEvent("said", {"text": f"with {SECRET}", "token": token}))
            ends(ctx, next(numbers))

        return handler

    def cut_in_two(ctx, number):
        raise ValueError("x" * (8192 - len("ValueError: ") - 10 - number) + SECRET)

    def told(ctx, number):
        raise ValueError(f"{number} {SECRET}")

    def written(ctx, number):
        ctx["token"] = SECRET

    def nothing(ctx, number):
        ctx["length"] = len(SECRET)

    codes = []
    for ends in (cut_in_two, told, written, nothing):
        plan = plan_of(handler_that(ends))
        result = run(plan, store, transports={"world": World()})
        codes.append(result.error.code if result.error else result.status)
    assert codes == ["not_deterministic", "not_deterministic", "secret_in_context", "completed"]
    stored = [data for _, data in store._contents.artifacts.values()]
    for row in store.list_runs().rows:
        stored += [event.data for event in store.read_range(row.run_id, 1)]
    assert not any(SECRET[:8].encode() in data for data in stored)
    assert replayed(result.run_id, plan=plan, store=store, transports={"world": World()}).identical


def test_a_secret_that_is_learned_late_makes_no_difference(store):
    class Shop(BaseTransport):
        async def perform(self, namespace, request):
            return {"access_token": SECRET}

    async def handler(ctx, io, rec):
        await io.call("world", {"text": SECRET, "password": "hunter-2-hunter"})
        token = (await io.call("shop", {})).response["access_token"]
        await io.call("world", {"text": SECRET, "token": token})

    doors = {"world": World(), "shop": Shop()}
    result = run(plan_of(handler), store, transports=doors, config=PARANOID)
    assert result.status == "completed", result.error
    assert [request["text"] for request in doors["world"].asked] == [SECRET, SECRET]


def test_a_fork_of_a_paranoid_run_is_paranoid_and_knows_what_it_has_copied(store):
    plan = Plan("op")
    drawn = iter(range(100))
    steady = True

    @plan.state("step.first")
    async def first(ctx, io, rec):
        ctx["first"] = await io.record_value("first", 1)

    @plan.state("step.second", after=[first])
    async def second(ctx, io, rec):
        ctx["second"] = [ctx["first"], 0 if steady else next(drawn)]

    result = machine.run(plan, store=store, config=RunConfig(paranoid=True))
    forked = machine.fork(result.run_id, plan=plan, store=store, at=5)
    assert (forked.result.status, forked.copied, forked.ran) == (
        "completed",
        ("op.step.first",),
        ("op.step.second",),
    )
    again = machine.fork(result.run_id, plan=plan, store=store, at=result.head_seq, set_facts={"first": 7})
    assert again.result.context["second"] == [7, 0]
    steady = False
    unsteady = machine.fork(result.run_id, plan=plan, store=store, at=5)
    assert unsteady.result.error.code == "not_deterministic"
