"""Resume: this same loop, started from a log that is not empty."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import machine
from machine import Plan, RetryPolicy, open_store, replay, resume, run, verify
from machine.codec import decode_entry
from machine.engine.log import LiveLog
from machine.events import RunStarted
from machine.kernel.history import History
from machine.stores import MemoryStore
from machine.stores.base import ZERO_CHAIN


def story():
    """Return a plan with reads, a retry, a skip and an effect."""
    plan = Plan("op", version="3")

    @plan.state("read.first")
    async def first(ctx, io, rec):
        ctx["first"] = (await io.call("world", {"n": 1})).response
        ctx["second"] = (await io.call("world", {"n": 2})).response
        await rec.emit(machine.DomainEvent("read", {"n": 2}))

    @plan.state("read.flaky", after=[first], retry=RetryPolicy(6))
    async def flaky(ctx, io, rec):
        tries = (await io.call("world", {"flaky": True})).response
        if not tries["ok"]:
            raise ValueError("not yet")
        ctx["flaky"] = tries

    @plan.state("write.effect", after=[flaky], side_effects="apply_side_effect", idempotency="once")
    async def effect(ctx, io, rec):
        await io.call("world", {"before": True})
        ctx["effect"] = (await io.call("outside", {"do": ctx["first"]})).response

    @plan.state("write.done", after=[effect])
    def done(ctx, io, rec):
        ctx["done"] = io.call("world", {"n": 3}).response

    return plan


@pytest.fixture
def world(scripted):
    """Return the transports: reads that repeat, one that succeeds at the third try, an effect that counts."""
    tries = []

    def answer(request):
        if "flaky" in request:
            tries.append(1)
            return {"ok": len(tries) % 3 == 0}
        return {"echo": request}

    return {"world": scripted(answer), "outside": scripted(lambda request: {"applied": request}, effect=True)}


def keys_of(transport):
    return [request["key"] for request in transport.asked]


def test_a_run_cut_after_any_event_resumes_to_the_same_context(store, world, crashed_after):
    plan = story()
    whole = run(plan, store=store, transports=world)
    assert whole.status == "completed"
    for length in range(1, whole.head_seq + 1):
        before = len(world["outside"].asked)
        cut = crashed_after(store, whole.run_id, length)
        intended_only = cut_is_uncertain(cut, whole.run_id)
        done = any(
            decode_entry(event.seq, event.data).event.type == "fact_recorded"
            and decode_entry(event.seq, event.data).event.namespace == "outside"
            for event in cut.read_range(whole.run_id)
        )
        result = resume(whole.run_id, plan=plan, store=cut, transports=world)
        assert result.status == "completed", length
        same = {key: value for key, value in result.context.items() if key != "flaky"}
        assert same == {key: value for key, value in whole.context.items() if key != "flaky"}
        assert len(world["outside"].asked) - before == (0 if done else 1), (length, intended_only)
        assert set(keys_of(world["outside"])) == {"once"}
        assert verify(whole.run_id, store=cut).problems == ()
        assert replay(whole.run_id, plan=plan, store=cut).identical, length
        assert replay(whole.run_id, plan=plan, store=crashed_after(store, whole.run_id, length)).identical


def cut_is_uncertain(store, run_id):
    entries = (decode_entry(event.seq, event.data) for event in store.read_range(run_id))
    return bool(machine.kernel.history.fold(entries).uncertain)


def test_a_run_can_be_crashed_at_the_same_place_any_number_of_times(store, world, crashed_after):
    plan = story()
    whole = run(plan, store=store, transports=world)
    cut = crashed_after(store, whole.run_id, 4)

    class Crash(machine.Reporter):
        def entry(self, entry):
            if entry.event.type == "fact_recorded":
                raise RuntimeError("crash")

    for _ in range(4):
        with pytest.raises(RuntimeError, match="crash"):
            resume(whole.run_id, plan=plan, store=cut, transports=world, reporter=Crash())
    result = resume(whole.run_id, plan=plan, store=cut, transports=world)
    assert result.status == "completed"
    assert replay(whole.run_id, plan=plan, store=cut).identical
    orphans = [
        entry.event
        for entry in (decode_entry(event.seq, event.data) for event in cut.read_range(whole.run_id))
        if entry.event.type == "state_failed" and entry.event.error.code == "orphan_attempt_recovered"
    ]
    assert len(orphans) == 5, "every crash is closed explicitly, the first one included"


def test_what_a_cut_attempt_had_fetched_is_not_fetched_again(store, world, crashed_after):
    plan = story()
    whole = run(plan, store=store, transports=world)
    cut = crashed_after(store, whole.run_id, 3)  # started, entered, the first of two facts
    before = len(world["world"].asked)
    resume(whole.run_id, plan=plan, store=cut, transports=world)
    again = [request for request in world["world"].asked[before:] if request.get("n") in {1, 2}]
    assert again == [{"n": 2}]


def test_resuming_a_run_that_has_ended_returns_it_and_writes_nothing(store, world):
    plan = story()
    whole = run(plan, store=store, transports=world)
    assert resume(whole.run_id, plan=plan, store=store, transports=world) == whole
    assert store.head(whole.run_id).seq == whole.head_seq


def test_a_changed_plan_is_refused(store, world, crashed_after):
    whole = run(story(), store=store, transports=world)
    cut = crashed_after(store, whole.run_id, 5)

    more = story()
    more.state("write.more")(lambda ctx, io, rec: None)
    with pytest.raises(machine.errors.PlanError) as caught:
        resume(whole.run_id, plan=more, store=cut)
    assert caught.value.code == "plan_changed"

    fewer = Plan("op")
    fewer.state("write.done")(lambda ctx, io, rec: None)
    with pytest.raises(machine.errors.PlanError) as caught:
        resume(whole.run_id, plan=fewer, store=cut)
    assert caught.value.code == "recovery_state_not_in_plan"

    other = Plan("other")
    other.state("write.done")(lambda ctx, io, rec: None)
    with pytest.raises(machine.errors.PlanError) as caught:
        resume(whole.run_id, plan=other, store=cut)
    assert caught.value.code == "op_id_mismatch"
    assert cut.head(whole.run_id).seq == 5, "nothing was written"


def test_an_unknown_run_is_not_found(store):
    with pytest.raises(machine.errors.NotFoundError):
        resume(machine.new_run_id(), plan=story(), store=store)


def test_the_configuration_is_the_one_the_run_was_started_with(store, crashed_after):
    plan = Plan("op")
    first = plan.state("step.first")(lambda ctx, io, rec: None)
    plan.state("step.second", tags=["report"], after=[first])(lambda ctx, io, rec: None)
    whole = run(plan, store=store, config=machine.RunConfig(skip_tags=["report"]))
    cut = crashed_after(store, whole.run_id, 3)
    assert resume(whole.run_id, plan=plan, store=cut).digest == whole.digest


def test_two_drivers_on_one_run_do_not_both_win(tmp_path, world):
    plan = story()
    with (
        open_store(f"sqlite:///{tmp_path}/runs.db") as store,
        open_store(f"sqlite:///{tmp_path}/runs.db") as other,
    ):
        chosen = machine.new_run_id()

        class Interfere(machine.Reporter):
            def entry(self, entry):
                if entry.seq == 4:
                    resume(chosen, plan=plan, store=other, transports=world)

        config = machine.RunConfig(durability="facts")
        with pytest.raises((machine.errors.ConcurrencyError, machine.errors.UsageError)):
            machine.run(
                plan, store=store, transports=world, config=config, run_id=chosen, reporter=Interfere()
            )


@pytest.mark.parametrize("durability", ["effects", "states", "facts"])
def test_every_durability_ends_with_everything_durable(tmp_path, world, durability):
    plan = story()
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        whole = run(plan, store=store, transports=world, config=machine.RunConfig(durability=durability))
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        assert verify(whole.run_id, store=store).ok
        assert store.head(whole.run_id).seq == whole.head_seq


def test_no_effect_leaves_before_what_influenced_it_is_durable(store, world):
    plan = story()
    chosen = machine.new_run_id()
    at_the_effect = []

    def answer(request):
        at_the_effect.append(store.head(chosen).seq)
        entries = (decode_entry(event.seq, event.data) for event in store.read_range(chosen))
        history = machine.kernel.history.fold(entries)
        assert len(history.uncertain) == 1, "the intent is durable before the effect leaves"
        return {}

    world["outside"].answer = answer
    assert run(plan, store=store, transports=world, run_id=chosen).status == "completed"
    assert len(at_the_effect) == 1


def test_after_the_store_has_failed_nothing_goes_outside_whatever_the_handler_does(store, world, monkeypatch):
    plan = Plan("op")
    refused = []

    @plan.state("step.stubborn")
    async def stubborn(ctx, io, rec):
        for number in range(50):
            try:
                await io.call("world", {"n": number})
            except Exception as exc:  # noqa: BLE001 - what a stubborn handler does
                refused.append(exc)

    append, count = store.append, []

    def failing(*args, **kwargs):
        count.append(1)
        if len(count) > 3:
            raise machine.errors.OtherStoreError("no space left", code="store_full")
        append(*args, **kwargs)

    monkeypatch.setattr(store, "append", failing)
    with pytest.raises(machine.errors.OtherStoreError, match="no space left"):
        run(plan, store=store, transports=world, config=machine.RunConfig(durability="facts"))
    assert len(refused) > 40
    assert len(world["world"].asked) <= 2


def test_a_store_that_fails_stops_the_run_and_loses_nothing_durable(store, world, monkeypatch):
    plan = story()
    chosen = machine.new_run_id()
    append, count = store.append, []

    def failing(*args, **kwargs):
        count.append(1)
        if len(count) == 2:
            raise machine.errors.OtherStoreError("no space left", code="store_full")
        append(*args, **kwargs)

    monkeypatch.setattr(store, "append", failing)
    with pytest.raises(machine.errors.OtherStoreError, match="no space left"):
        run(plan, store=store, transports=world, run_id=chosen, config=machine.RunConfig(durability="states"))
    monkeypatch.undo()
    assert verify(chosen, store=store).ok
    assert resume(chosen, plan=plan, store=store, transports=world).status == "completed"


@pytest.mark.parametrize("key", [None, "named"])
def test_an_effect_cut_between_intent_and_fact_is_sent_again_with_its_key(
    store, scripted, crashed_after, key
):
    plan = Plan("op")

    @plan.state("write.effect", side_effects="apply_side_effect", idempotency="once")
    async def effect(ctx, io, rec):
        ctx["done"] = (await io.call("outside", {"do": 1}, fact_key=key)).response

    outside = scripted(effect=True)
    whole = run(plan, store=store, transports={"outside": outside})
    cut = crashed_after(store, whole.run_id, 3)  # started, entered, intended
    for _ in range(2):
        again = crashed_after(cut, whole.run_id, 3)
        result = resume(whole.run_id, plan=plan, store=again, transports={"outside": outside})
        assert (result.status, result.context) == ("completed", whole.context)
        assert replay(whole.run_id, plan=plan, store=again).identical
    assert keys_of(outside) == ["once"] * 3


def test_a_log_kept_under_another_run_id_is_refused(store, world):
    plan = story()
    whole = run(plan, store=store, transports=world)
    other = machine.new_run_id()
    store.append(other, 0, list(store.read_range(whole.run_id)))
    with pytest.raises(machine.errors.LogError) as caught:
        resume(other, plan=plan, store=store)
    assert caught.value.code == "log_wrong_run"
    divergence = replay(other, plan=plan, store=store).divergence
    assert (divergence.kind, divergence.now["code"]) == ("corrupt", "log_wrong_run")
    assert verify(other, store=store).problems[0].code == "log_wrong_run"


@pytest.mark.parametrize("durability", ["effects", "states", "facts"])
def test_facts_become_durable_while_their_state_goes_on(tmp_path, scripted, durability):
    plan = Plan("op")
    chosen = machine.new_run_id()
    seen = []

    @plan.state("step.long")
    async def long(ctx, io, rec):
        for number in range(5):
            await io.call("world", {"n": number})
        for _ in range(200):
            seen.append(store.head(chosen).seq)
            if seen[-1] == 7:
                break
            await asyncio.sleep(0.02)

    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        config = machine.RunConfig(durability=durability)
        run(plan, store=store, run_id=chosen, config=config, transports={"world": scripted()})
        assert seen[-1] == 7, "started, entered and five facts"
        assert verify(chosen, store=store).ok


# -- what is durable, and when ----------------------------------------------------------------------------------


class Behind(MemoryStore):
    """A store whose commits take a moment, so that the log writes behind the run."""

    write_behind = True

    def __init__(self, refuses=b"nothing"):
        super().__init__()
        self.refuses = refuses
        self.begun = threading.Event()

    def append(self, run_id, expected_seq, events, artifacts=(), **more):
        if expected_seq:
            self.begun.set()
            time.sleep(0.05)
        if any(self.refuses in event.data for event in events):
            raise machine.errors.OtherStoreError("no space left", code="store_full")
        super().append(run_id, expected_seq, events, artifacts, **more)


def with_an_effect(between=lambda io: None):
    plan = Plan("op")

    @plan.state("write.effect", side_effects="apply_side_effect", idempotency="once")
    async def effect(ctx, io, rec):
        await io.call("world", {"n": 1}, fact_key="read")
        between(io)
        await io.call("outside", {"do": 1})

    return plan


def test_no_effect_leaves_while_the_commit_of_what_influenced_it_is_under_way(world):
    chosen, seen = machine.new_run_id(), []

    def answer(request):
        entries = [decode_entry(event.seq, event.data) for event in store.read_range(chosen)]
        seen.append([entry.event.type for entry in entries])
        return {}

    world["outside"].answer = answer
    with Behind() as store:
        plan = with_an_effect(lambda io: store.begun.wait(5))
        assert run(plan, store=store, transports=world, run_id=chosen).status == "completed"
    assert seen == [["run_started", "state_entered", "fact_recorded", "effect_intended"]]


@pytest.mark.parametrize("kind", [MemoryStore, Behind])
@pytest.mark.parametrize("refused", [b'"fact_recorded"', b'"effect_intended"'], ids=["read", "intent"])
def test_no_effect_leaves_when_what_influenced_it_cannot_be_written(world, monkeypatch, kind, refused):
    chosen = machine.new_run_id()
    with kind() as store:
        append = store.append

        def failing(run_id, expected_seq, events, artifacts=(), **more):
            if any(refused in event.data for event in events):
                raise machine.errors.OtherStoreError("no space left", code="store_full")
            append(run_id, expected_seq, events, artifacts, **more)

        monkeypatch.setattr(store, "append", failing)
        with pytest.raises(machine.errors.OtherStoreError, match="no space left"):
            run(with_an_effect(), store=store, transports=world, run_id=chosen)
        assert world["outside"].asked == []
        monkeypatch.undo()
        assert resume(chosen, plan=with_an_effect(), store=store, transports=world).status == "completed"
        assert verify(chosen, store=store).ok
    assert keys_of(world["outside"]) == ["once"]


def log_behind(store, run_id):
    return LiveLog(
        store,
        run_id,
        history=History(),
        chain=ZERO_CHAIN,
        behind=True,
        boundaries=True,
        on_entry=lambda entry: None,
    )


def test_a_commit_that_failed_behind_the_run_is_what_durable_raises():
    class Broken(MemoryStore):
        def append(self, *args, **more):
            begun.set()
            raise machine.errors.OtherStoreError("no space left", code="store_full")

    async def main():
        log = log_behind(Broken(), machine.new_run_id())
        await log.emit([RunStarted("op", "0" * 64, "0" * 64, "0" * 64)])
        assert begun.wait(5)
        for _ in range(2):
            with pytest.raises(machine.errors.OtherStoreError, match="no space left"):
                await log.durable()
        log.close()

    begun = threading.Event()
    asyncio.run(main())


def test_what_was_emitted_after_a_commit_that_fails_is_not_written_and_the_failure_stays(world):
    chosen = machine.new_run_id()
    plan = Plan("op")

    @plan.state("read.some")
    async def some(ctx, io, rec):
        await io.call("world", {"n": 1})
        assert store.begun.wait(5)
        await io.call("world", {"n": 2})  # emitted while the commit that will fail is under way

    with Behind(b'"state_entered"') as store:
        with pytest.raises(machine.errors.OtherStoreError, match="no space left"):
            run(plan, store=store, transports=world, run_id=chosen)
        assert store.head(chosen).seq == 1


def test_what_is_being_committed_can_be_read(world):
    plan = Plan("op")

    @plan.state("read.some")
    async def some(ctx, io, rec):
        await io.call("world", {"n": 1}, fact_key="read")
        assert store.begun.wait(5)
        ctx["read"] = io.get_recorded_fact("read")

    with Behind() as store:
        assert run(plan, store=store, transports=world).context == {"read": {"echo": {"n": 1}}}


def test_no_more_waits_for_the_disk_than_it_may(world):
    chosen, behind = machine.new_run_id(), []
    plan = Plan("op")

    @plan.state("read.some")
    async def some(ctx, io, rec):
        for number in range(10):
            await rec.emit(machine.DomainEvent("counted", {"n": number}))
            behind.append(number + 3 - store.head(chosen).seq)

    with Behind() as store:
        store.commit_limits.max_pending = 3
        assert run(plan, store=store, run_id=chosen).status == "completed"
    assert max(behind) < 6, "two that wait, and those being committed"


@pytest.mark.parametrize(
    ("durability", "first", "then"), [("effects", 2, 2), ("states", 2, 2), ("facts", 2, 3)]
)
def test_what_is_durable_within_a_state_is_what_the_durability_says(store, world, durability, first, then):
    chosen, heads = machine.new_run_id(), []
    plan = Plan("op")

    @plan.state("read.some")
    async def some(ctx, io, rec):
        heads.append(store.head(chosen).seq)
        await io.call("world", {"n": 1})
        heads.append(store.head(chosen).seq)

    config = machine.RunConfig(durability=durability)
    run(plan, store=store, transports=world, run_id=chosen, config=config)
    assert heads == [first, then]


def test_everything_is_durable_before_a_retry_is_waited_for(store):
    class Waits(machine.Reporter):
        def entry(self, entry):
            self.seen = entry.seq

        def waiting(self, state_id, seconds):
            waited.append((self.seen, store.head(chosen).seq))

    async def handler(ctx, io, rec):
        raise ValueError("always")

    chosen, waited = machine.new_run_id(), []
    plan = Plan("op")
    plan.state("step.only", retry=RetryPolicy(2, machine.FixedBackoff(0.01)))(handler)
    run(plan, store=store, run_id=chosen, reporter=Waits())
    assert waited == [(4, 4)]


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_an_effect_that_has_happened_is_a_fact_although_its_call_is_cancelled_at_once(store, turns):
    class Outside(machine.io.transport.BaseTransport):
        def is_effect(self, namespace, request):
            return True

        async def perform(self, namespace, request):
            happened.set()
            return {"applied": 1}

    happened = asyncio.Event()
    plan = Plan("op")

    @plan.state("write.effect", side_effects="apply_side_effect", idempotency="once")
    async def effect(ctx, io, rec):
        call = asyncio.create_task(io.call("outside", {}, fact_key="effect"))
        await happened.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        ctx["known"] = io.get_recorded_fact("effect")

    result = run(plan, store=store, transports={"outside": Outside()})
    assert result.context == {"known": {"applied": 1}}


def test_no_event_is_in_the_store_before_the_artifacts_it_names(world):
    class Strict(MemoryStore):
        def append(self, run_id, *args, **more):
            super().append(run_id, *args, **more)
            assert verify(run_id, store=self).problems == ()

    with Strict() as store:
        assert run(story(), store=store, transports=world).status == "completed"


def test_the_start_is_durable_before_anything_else_happens(store):
    class Seen(machine.Reporter):
        def entry(self, entry):
            heads.append((entry.seq, store.head(chosen).seq))

    chosen, heads = machine.new_run_id(), []
    run(story_of_nothing(), store=store, run_id=chosen, reporter=Seen())
    assert heads[:2] == [(1, 0), (2, 1)]


def story_of_nothing():
    plan = Plan("op")
    plan.state("step.only")(lambda ctx, io, rec: None)
    return plan
