"""A new run that shares the past of another up to an event, and goes on live from there."""

from __future__ import annotations

import asyncio
import json
import tempfile

import attrs
import pytest
from crashes import left_after

import machine
from machine import (
    DomainEvent,
    Plan,
    RetryPolicy,
    RunConfig,
    diff_runs,
    export_run,
    fork,
    import_bundle,
    open_bundle,
    replay,
    resume,
    run,
    verify,
)
from machine.engine import run_reader
from machine.stores import MemoryStore


@attrs.define
class World(machine.io.transport.BaseTransport):
    """An outside that answers by name, and counts what it was asked."""

    answers: dict = attrs.field(factory=dict)
    asked: list = attrs.field(factory=list)
    one_effect_per_key = True

    def is_effect(self, namespace, request):
        return request["of"].startswith("pay")

    def with_idempotency_key(self, namespace, request, key):
        return {**request, "key": key}

    async def perform(self, namespace, request):
        self.asked.append(request["of"])
        answer = self.answers.get(request["of"], 1)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


NOW = RetryPolicy(max_attempts=3, backoff=machine.FixedBackoff(delay=0))
DOWN = machine.errors.TransportError("down", retryable=True)


def shop(**bill_options):
    """Return a plan of four states: two that fetch, one that computes, one that pays."""
    plan = Plan("shop")

    @plan.state("fetch.price")
    async def price(ctx, io, rec):
        ctx["price"] = (await io.call("world", {"of": "price"})).response

    @plan.state("fetch.stock", after=[price])
    async def stock(ctx, io, rec):
        ctx["stock"] = (await io.call("world", {"of": "stock"}, fact_key="stock")).response
        await rec.emit(DomainEvent("seen", {"stock": ctx["stock"]}))

    @plan.state("compute.total", after=[stock])
    def total(ctx, io, rec):
        ctx["total"] = min(ctx["price"], 100) * ctx["stock"]

    options = {"side_effects": "apply_side_effect", "idempotency": "bill", **bill_options}

    @plan.state("send.bill", after=[total], **options)
    async def bill(ctx, io, rec):
        await io.call("world", {"of": "rate"})
        ctx["paid"] = (await io.call("world", {"of": "pay", "sum": ctx["total"]})).response

    return plan


@pytest.fixture
def world():
    return World({"price": 5, "stock": 3, "rate": 2, "pay": "receipt"})


@pytest.fixture
def parent(store, world):
    """Record the run that is forked, and forget what it asked."""
    result = run(shop(), store=store, transports={"world": world}, input={"who": "me"})
    world.asked.clear()
    return result


def forked(parent, store, world, at, plan=None, **options):
    return fork(
        parent.run_id, plan=plan or shop(), store=store, at=at, transports={"world": world}, **options
    )


def hows(result):
    return [(fact.how, fact.parent_seq) for fact in result.facts]


def names(state_ids):
    return [state_id.removeprefix("shop.") for state_id in state_ids]


def sound(run_id, store, plan=None, world=None):
    """Check that a run is whole and replays, alone, in a store that has nothing of any other."""
    assert verify(run_id, store=store).ok
    with tempfile.TemporaryDirectory() as place:
        export_run(run_id, f"{place}/alone.run", store=store)
        with open_bundle(f"{place}/alone.run") as alone:
            assert verify(run_id, store=alone.store).ok
            transports = {"world": world or World()}
            found = replay(run_id, plan=plan or shop(), store=alone.store, transports=transports)
    assert found.identical, found.divergence


# -- where it is forked --------------------------------------------------------------------------------------


def test_a_fork_at_any_event_comes_to_the_same_context_and_replays_alone(parent, store, world):
    for at in range(1, parent.head_seq + 1):
        result = forked(parent, store, world, at)
        assert result.result.status == "completed"
        assert result.result.context == parent.context
        assert (result.parent_run_id, result.parent_seq) == (parent.run_id, at)
        sound(result.run_id, store)


def test_a_fork_between_states_has_the_digest_of_its_parent(parent, store, world):
    boundaries = [1, *(entry_seq(store, parent.run_id, "state_completed")), parent.head_seq]
    for at in boundaries:
        assert forked(parent, store, world, at).result.digest == parent.digest


def entry_seq(store, run_id, kind):
    return [stored.seq for stored in store.read_range(run_id) if f'"type":"{kind}"'.encode() in stored.data]


def test_what_was_shared_is_not_asked_again_and_what_came_after_goes_out(parent, store, world):
    result = forked(parent, store, world, 8)  # fetch.stock has completed
    assert world.asked == ["rate", "pay"]
    assert names(result.copied) == ["fetch.price", "fetch.stock"]
    assert names(result.ran) == ["compute.total", "send.bill"]
    assert hows(result) == [("copied", 3), ("copied", 6), ("new", None), ("new", None)]
    world.asked.clear()
    assert forked(parent, store, world, parent.head_seq).result.digest == parent.digest
    assert world.asked == []


def test_an_attempt_that_is_open_there_is_cut_and_its_facts_are_used(parent, store, world):
    (paid,) = entry_seq(store, parent.run_id, "effect_intended")
    rate = paid - 1
    result = forked(parent, store, world, rate)
    assert world.asked == ["pay"]
    states = {state.state_id: state for state in diff_runs(parent.run_id, result.run_id, store=store).states}
    bill = states["shop.send.bill"]
    assert bill.b.attempts == 2
    assert [error["code"] for error in bill.b.errors] == ["orphan_attempt_recovered"]
    world.asked.clear()
    forked(parent, store, world, paid + 1)  # with the receipt
    assert world.asked == []


@pytest.mark.parametrize("at", [0, -1, 99, True, "3"])
def test_a_point_that_is_not_there_is_refused_and_nothing_is_written(parent, store, world, at):
    with pytest.raises(machine.errors.UsageError, match="the events 1 to") as caught:
        forked(parent, store, world, at)
    assert caught.value.code == "invalid_fork_point"
    assert len(store.list_runs().rows) == 1


def test_a_run_that_is_not_there_cannot_be_forked(store, world):
    with pytest.raises(machine.errors.NotFoundError):
        fork(str(machine.new_run_id()), plan=shop(), store=store, at=1)


def test_a_suspended_run_is_forked_before_it_waits_or_after(store, world):
    plan = shop(on_uncertain="ask")
    whole = run(plan, store=store, transports={"world": world})
    (intended,) = entry_seq(store, whole.run_id, "effect_intended")
    left = left_after(store, whole.run_id, intended)
    waiting = resume(left, plan=plan, store=store, transports={"world": world})
    assert waiting.status == "suspended"
    with pytest.raises(machine.errors.UsageError, match="waits for an answer") as caught:
        forked(waiting, store, world, waiting.head_seq, plan)
    assert caught.value.code == "invalid_fork_point"
    assert f"at event {waiting.head_seq - 1}" in caught.value.hint
    machine.resolve(left, "@shop.send.bill", store=store, outcome="told")
    with pytest.raises(machine.errors.UsageError, match="waits for an answer"):
        forked(waiting, store, world, waiting.head_seq + 1, plan)
    done = resume(left, plan=plan, store=store, transports={"world": world})
    world.asked.clear()
    result = forked(done, store, world, waiting.head_seq + 2, plan)
    assert (result.result.context["paid"], world.asked) == ("told", [])
    sound(result.run_id, store, plan)
    before = forked(done, store, world, waiting.head_seq - 1, plan)
    assert (before.result.status, world.asked) == ("suspended", [])


def test_a_cancelled_run_is_forked_before_it_was_cancelled(store, world):
    whole = run(shop(), store=store, transports={"world": world})
    left = left_after(store, whole.run_id, 3)
    ended = machine.cancel(left, store=store)
    assert ended.status == "cancelled"
    result = forked(ended, store, world, 3)
    assert result.result.status == "completed"


def test_a_run_that_was_cut_to_be_cancelled_is_not_forked_there(store, world):
    plan = Plan("shop")
    run_id = str(machine.new_run_id())

    @plan.state("a.wait")
    async def wait(ctx, io, rec):
        ctx["price"] = (await io.call("world", {"of": "price"})).response
        if not world.answers.get("well"):
            store.post(run_id, "cancel", {})
            await asyncio.sleep(60)

    ended = run(plan, store=store, transports={"world": world}, run_id=run_id)
    assert ended.status == "cancelled"
    with pytest.raises(machine.errors.UsageError, match="being cancelled") as caught:
        forked(ended, store, world, ended.head_seq, plan)
    assert caught.value.code == "invalid_fork_point"
    world.answers["well"] = True
    assert forked(ended, store, world, 3, plan).result.status == "completed"


def test_a_failed_run_goes_on_from_before_it_failed_when_the_outside_is_well_again(store, world):
    world.answers["rate"] = machine.errors.TransportError("down")
    failed = run(shop(), store=store, transports={"world": world})
    assert failed.status == "failed"
    world.answers["rate"], world.asked[:] = 2, []
    assert forked(failed, store, world, failed.head_seq).result.status == "failed"
    (began,) = entry_seq(store, failed.run_id, "state_failed")
    result = forked(failed, store, world, began - 2)
    assert result.result.status == "completed"
    assert world.asked == ["rate", "pay"]
    sound(result.run_id, store)


def test_a_running_run_is_forked_and_left_alone(parent, store, world):
    left = left_after(store, parent.run_id, 6)
    before = [stored.data for stored in store.read_range(left)]
    result = fork(left, plan=shop(), store=store, at=6, transports={"world": world})
    assert result.result.status == "completed"
    assert [stored.data for stored in store.read_range(left)] == before


def test_a_fork_can_be_forked(parent, store, world):
    first = forked(parent, store, world, 8, set_facts=None)
    second = fork(
        first.run_id,
        plan=shop(),
        store=store,
        at=first.result.head_seq,
        set_facts={"stock": 7},
        transports={"world": world},
    )
    assert second.parent_run_id == first.run_id
    assert second.result.context["total"] == 35


def test_the_link_to_the_parent_is_informational(parent, store, world):
    result = forked(parent, store, world, 8)
    entry, started = run_reader.first_entry(store, result.run_id)
    assert (entry.info["parent_run_id"], entry.info["parent_seq"]) == (parent.run_id, "8")
    assert started == run_reader.first_entry(store, parent.run_id)[1]
    assert diff_runs(parent.run_id, result.run_id, store=store).identical


def test_a_fork_has_no_invocation_key_of_its_own(store, world):
    first = run(shop(), store=store, transports={"world": world}, invocation_key="once")
    result = forked(first, store, world, first.head_seq)
    assert store.find_invocation("once") == first.run_id != result.run_id


# -- with another fact ---------------------------------------------------------------------------------------


def test_another_fact_gives_the_run_that_it_would_have_made(parent, store):
    """The fork's digest is that of a fresh run in a world where the fact is so."""
    for key, name, value in [("stock", "stock", 4), ("fetch.price/0", "price", 6), ("3", "price", 7)]:
        world = World({"price": 5, "stock": 3, "rate": 2, "pay": "receipt", name: value})
        cut = entry_seq(store, parent.run_id, "state_completed")[2]
        result = forked(parent, store, world, cut, set_facts={key: value})
        fresh = run(shop(), store=store, transports={"world": World(world.answers)}, input={"who": "me"})
        assert result.result.context == fresh.context
        assert result.result.digest == fresh.digest
        sound(result.run_id, store)


def test_states_whose_inputs_changed_run_again_and_facts_that_fit_answer_them(parent, store, world):
    cut = entry_seq(store, parent.run_id, "state_completed")[2]
    result = forked(parent, store, world, cut, set_facts={"@shop.fetch.price/0/": 50})
    assert names(result.copied) == []
    assert names(result.ran) == ["fetch.price", "fetch.stock", "compute.total", "send.bill"]
    assert hows(result) == [("overridden", 3), ("reused", 6), ("new", None), ("new", None)]
    assert world.asked == ["rate", "pay"]
    assert result.result.context["total"] == 150


def test_states_whose_inputs_come_out_the_same_are_copied(parent, store, world):
    """A state that comes to the same snapshot as before cuts the change off."""

    def plan_of():
        plan = Plan("shop")

        @plan.state("a.first")
        async def first(ctx, io, rec):
            ctx["big"] = (await io.call("world", {"of": "price"})).response > 3

        @plan.state("a.second", after=[first])
        async def second(ctx, io, rec):
            runs.append("second")
            ctx["second"] = (await io.call("world", {"of": "stock"})).response

        @plan.state("a.third", after=[second])
        async def third(ctx, io, rec):
            ctx["third"] = (await io.call("world", {"of": "pay"}, fact_key="k")).response

        return plan

    runs = []
    first = run(plan_of(), store=store, transports={"world": world})
    runs.clear()
    world.asked.clear()
    result = forked(first, store, world, first.head_seq, plan_of(), set_facts={"3": 4})
    assert names(result.ran) == ["a.first"]
    assert names(result.copied) == ["a.second", "a.third"]
    assert (runs, world.asked) == ([], [])
    assert result.result.context == first.context
    assert result.result.digest != first.digest
    sound(result.run_id, store, plan_of())


def test_a_fact_under_an_explicit_key_may_have_been_read_by_any_later_state(store, world):
    def plan_of():
        plan = Plan("shop")

        @plan.state("a.first")
        async def first(ctx, io, rec):
            await io.call("world", {"of": "price"}, fact_key="the price")

        @plan.state("a.second", after=[first])
        def second(ctx, io, rec):
            ctx["price"] = io.get_recorded_fact("the price")

        return plan

    first = run(plan_of(), store=store, transports={"world": world})
    world.asked.clear()
    result = forked(first, store, world, first.head_seq, plan_of(), set_facts={"the price": 9})
    assert result.result.context == {"price": 9}
    assert names(result.ran) == ["a.first", "a.second"]
    assert world.asked == []
    sound(result.run_id, store, plan_of())


def test_an_effect_of_the_shared_past_is_answered_and_never_sent_again(parent, store, world):
    result = forked(parent, store, world, parent.head_seq, set_facts={"12": 3})
    assert world.asked == []
    assert names(result.ran) == ["send.bill"]
    assert hows(result)[-2:] == [("overridden", 12), ("reused", 14)]
    assert result.result.context["paid"] == "receipt"
    sound(result.run_id, store)


def test_another_effect_under_a_key_that_the_past_has_used_does_not_leave(parent, store, world):
    result = forked(parent, store, world, parent.head_seq, set_facts={"stock": 10})
    assert world.asked == []
    assert result.result.status == "failed"
    assert result.result.error.code == "idempotency_key_reused"
    assert result.facts[-1].how == "new"
    sound(result.run_id, store)


def test_another_effect_under_a_key_of_its_own_is_sent(store, world):
    def plan_of():
        return shop(idempotency=lambda ctx: f"bill-{ctx['total']}")

    first = run(plan_of(), store=store, transports={"world": world})
    world.asked.clear()
    result = forked(first, store, world, first.head_seq, plan_of(), set_facts={"stock": 10})
    assert (world.asked, result.result.status) == (["pay"], "completed")
    assert result.result.context["total"] == 50
    sound(result.run_id, store, plan_of())


def test_an_effect_that_happened_in_a_later_attempt_answers_an_earlier_one(store, world):
    def plan_of():
        plan = Plan("shop")

        @plan.state("a.pay", side_effects="apply_side_effect", idempotency="k", retry=NOW)
        async def pay(ctx, io, rec):
            ctx["price"] = (await io.call("world", {"of": "price"})).response
            ctx["paid"] = (await io.call("world", {"of": "pay"})).response

        return plan

    world.answers["price"] = [DOWN, 5]
    first = run(plan_of(), store=store, transports={"world": world})
    assert first.status == "completed"
    world.asked.clear()
    result = forked(first, store, world, first.head_seq, plan_of(), set_facts={"3": 5})
    assert world.asked == []
    assert result.result.context == {"price": 5, "paid": "receipt"}
    assert [fact.how for fact in result.facts] == ["overridden", "reused"]
    sound(result.run_id, store, plan_of())


@pytest.mark.parametrize(
    ("policy", "status", "asked"),
    [("retry", "completed", ["pay"]), ("ask", "suspended", []), ("reconcile", "completed", [])],
)
def test_an_effect_that_hangs_is_found_out_as_its_state_says(store, world, policy, status, asked):
    async def reconcile(ctx, io, effect):
        return effect.happened("found")

    def plan_of():
        more = {"reconcile": reconcile} if policy == "reconcile" else {}
        return shop(on_uncertain=policy, idempotency=lambda ctx: "bill", **more)

    whole = run(plan_of(), store=store, transports={"world": world})
    (intended,) = entry_seq(store, whole.run_id, "effect_intended")
    world.asked.clear()
    # the total stays the same, so that the very same effect hangs; the bill has other facts before it
    result = forked(whole, store, world, intended, plan_of(), set_facts={"12": 8})
    assert (result.result.status, world.asked) == (status, asked)
    sound(result.run_id, store, plan_of())


def test_what_a_person_said_of_an_effect_is_shared_whether_its_state_is_copied_or_runs_again(store, world):
    def plan_of():
        plan = Plan("shop")

        @plan.state("a.first")
        async def first(ctx, io, rec):
            price = (await io.call("world", {"of": "price"})).response
            ctx["big"], ctx["odd"] = price > 3, price % 2

        @plan.state(
            "a.pay",
            after=[first],
            side_effects="apply_side_effect",
            idempotency="k",
            on_uncertain="ask",
        )
        async def pay(ctx, io, rec):
            ctx["paid"] = (await io.call("world", {"of": "pay"})).response

        return plan

    transports = {"world": world}
    whole = run(plan_of(), store=store, transports=transports)
    left = left_after(store, whole.run_id, 6)
    assert resume(left, plan=plan_of(), store=store, transports=transports).status == "suspended"
    machine.resolve(left, "@shop.a.pay", store=store, outcome="told")
    done = resume(left, plan=plan_of(), store=store, transports=transports)
    assert done.context["paid"] == "told"
    world.asked.clear()
    for value, copied in ((7, ["a.pay"]), (8, [])):
        result = forked(done, store, world, done.head_seq, plan_of(), set_facts={"3": value})
        assert names(result.copied) == copied
        assert (result.result.context["paid"], world.asked) == ("told", [])
        sound(result.run_id, store, plan_of())


def test_a_paranoid_run_is_forked_as_one(store, world):
    config = RunConfig(paranoid=True)
    parent = run(shop(), store=store, transports={"world": world}, config=config)
    for facts in (None, {"stock": 3}, {"12": 3}):
        result = forked(parent, store, world, parent.head_seq, set_facts=facts)
        assert result.result.status == "completed"
        sound(result.run_id, store)


def test_a_retry_of_the_past_is_gone_through_again(store, world):
    def plan_of():
        plan = Plan("shop")

        @plan.state("a.poll", retry=NOW)
        async def poll(ctx, io, rec):
            ctx["price"] = (await io.call("world", {"of": "price"})).response
            ctx["stock"] = (await io.call("world", {"of": "stock"})).response

        return plan

    world.answers |= {"price": [5, 6, 7], "stock": [DOWN, 3]}
    first = run(plan_of(), store=store, transports={"world": world})
    assert first.context == {"price": 6, "stock": 3}
    world.asked.clear()
    result = forked(first, store, world, first.head_seq, plan_of(), set_facts={"8": 9})
    assert result.result.context == {"price": 9, "stock": 3}
    assert world.asked == []
    assert [fact.how for fact in result.facts] == ["reused", "reused", "overridden", "reused"]
    sound(result.run_id, store, plan_of())


def test_what_a_handler_recorded_itself_is_shared_too(store, world):
    plan = Plan("shop")
    values = iter(range(10))

    @plan.state("a.first")
    async def first(ctx, io, rec):
        ctx["now"] = await io.now()
        ctx["value"] = await io.record_value("drawn", next(values))
        ctx["env"] = await io.env("HOME")

    parent = run(plan, store=store)
    result = fork(parent.run_id, plan=plan, store=store, at=6, set_facts={"5": "/elsewhere"})
    assert result.result.context == {**parent.context, "env": "/elsewhere"}
    drawn = fork(parent.run_id, plan=plan, store=store, at=6, set_facts={"drawn": 42})
    assert drawn.result.context == {**parent.context, "value": 42}


def test_a_fork_that_a_crash_cut_goes_on_with_what_it_shares(parent, store, world):
    whole = forked(parent, store, world, parent.head_seq, set_facts={"3": 50, "12": 3})
    assert whole.result.error.code == "idempotency_key_reused"
    whole = forked(parent, store, world, parent.head_seq, set_facts={"12": 3})
    for length in range(10, whole.result.head_seq):  # what is copied for certain is one append
        world.asked.clear()
        left = left_after(store, whole.run_id, length)
        result = resume(left, plan=shop(), store=store, transports={"world": world})
        assert (result.status, world.asked) == ("completed", []), length
        assert result.context == whole.result.context
        sound(left, store)


def test_a_fork_with_another_plan_goes_by_it_from_the_fork_on(parent, store, world):
    def longer():
        plan = shop()

        @plan.state("report.done", after=["send.bill"])
        def done(ctx, io, rec):
            ctx["done"] = True

        return plan

    for at, facts in ((8, None), (parent.head_seq, None), (9, {"3": 50}), (parent.head_seq, {"stock": 3})):
        result = forked(parent, store, world, at, longer(), set_facts=facts)
        assert result.result.status == "completed"
        assert result.result.context["done"] is True
        (changed,) = entry_seq(store, result.run_id, "run_suspended")
        passed = [seq for seq in entry_seq(store, result.run_id, "state_completed") if seq < changed]
        assert len(passed) == {8: 2, 9: 2, parent.head_seq: 4}[at], "the plan changes at the fork point"
        sound(result.run_id, store, longer())
    failed = forked(parent, store, world, parent.head_seq, longer(), set_facts={"stock": 10})
    assert failed.result.status == "failed"
    assert failed.result.digest == verify(failed.run_id, store=store).digest
    result = forked(parent, store, world, parent.head_seq, longer(), set_facts={"stock": 3})
    (together,) = entry_seq(store, result.run_id, "run_suspended")  # with the resumption, in one append
    for length in {*range(4, result.result.head_seq)} - {together}:
        left = left_after(store, result.run_id, length)
        done = resume(left, plan=longer(), store=store, transports={"world": world})
        assert done.context["done"] is True


def test_a_plan_that_does_not_fit_the_past_is_refused_and_nothing_is_written(parent, store, world):
    other = Plan("shop")
    other.state("fetch.price")(lambda ctx, io, rec: None)
    with pytest.raises(machine.errors.PlanError, match="no longer has"):
        forked(parent, store, world, 8, other)
    foreign = Plan("other")
    foreign.state("fetch.price")(lambda ctx, io, rec: None)
    with pytest.raises(machine.errors.PlanError, match="is of op"):
        forked(parent, store, world, 8, foreign)
    assert len(store.list_runs().rows) == 1


def test_changed_code_of_a_copied_state_is_told(parent, store, world):
    plan = Plan("shop")

    @plan.state("fetch.price")
    async def price(ctx, io, rec):
        ctx["price"] = (await io.call("world", {"of": "price"})).response + 1

    @plan.state("fetch.stock", after=[price])
    async def stock(ctx, io, rec):
        ctx["stock"] = 0

    result = forked(parent, store, world, 4, plan)
    assert names(result.code_changed) == ["fetch.price"]
    found = replay(result.run_id, plan=plan, store=store, transports={"world": world})
    assert found.divergence.cause == "state_code_changed"


def test_what_the_parent_took_over_from_a_cut_attempt_answers_as_it_did(parent, store, world):
    left = left_after(store, parent.run_id, 12)  # the rate is known, the bill is not sent
    resumed = resume(left, plan=shop(), store=store, transports={"world": world})
    world.asked.clear()
    paid = entry_seq(store, left, "fact_recorded")[-1]
    result = forked(resumed, store, world, resumed.head_seq, set_facts={str(paid): "another receipt"})
    assert world.asked == []
    assert [fact.how for fact in result.facts] == ["copied", "copied", "reused", "overridden"]
    assert result.result.context["paid"] == "another receipt"
    sound(result.run_id, store)


def test_a_call_that_was_given_up_is_made_again(store):
    @attrs.define
    class Slow(World):
        async def perform(self, namespace, request):
            if request["of"] == "slow":
                self.asked.append("slow")
                await asyncio.sleep(60)
            return await World.perform(self, namespace, request)

    plan = Plan("shop")

    @plan.state("a.race")
    async def race(ctx, io, rec):
        ctx["price"] = (await io.call("world", {"of": "price"})).response
        slow = asyncio.create_task(io.call("world", {"of": "slow"}))
        await asyncio.sleep(0.05)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)

    world = Slow({"price": 5})
    parent = run(plan, store=store, transports={"world": world})
    world.asked.clear()
    result = forked(parent, store, world, parent.head_seq, plan, set_facts={"3": 6})
    assert (result.result.context, world.asked) == ({"price": 6}, ["slow"])
    sound(result.run_id, store, plan, world)


def test_a_copied_attempt_keeps_its_distances_in_time(parent, store, world):
    result = forked(parent, store, world, 10)
    before, after = (
        [entry.ts_millis for entry, _ in run_reader.entries(store, run_id, 10)]
        for run_id in (parent.run_id, result.run_id)
    )
    assert [ts - before[0] for ts in before] == [ts - after[0] for ts in after]
    assert after[-1] >= before[-1]


# -- across stores ------------------------------------------------------------------------------------------


def test_a_run_of_another_store_is_forked_into_this_one(parent, store, world):
    for facts in (None, {"stock": 3}, {"12": 3}):
        with MemoryStore() as here:
            world.asked.clear()
            result = forked(parent, here, world, parent.head_seq, source=store, set_facts=facts)
            assert (result.result.context, world.asked) == (parent.context, [])
            assert here.list_runs().rows[0].run_id == result.run_id
            sound(result.run_id, here)


def test_an_effect_with_a_secret_is_known_again_in_another_store(store, world):
    """The hashes of handles are those of a store: there they cannot tell one request from another."""
    plan = Plan("shop")

    @plan.state("a.pay", side_effects="apply_side_effect", idempotency="k")
    async def pay(ctx, io, rec):
        ctx["rate"] = (await io.call("world", {"of": "rate"})).response
        ctx["paid"] = (await io.call("world", {"of": "pay", "password": "hunter2-hunter2"})).response

    parent = run(plan, store=store, transports={"world": world})
    assert parent.context["paid"] == "receipt"
    with MemoryStore() as here:
        world.asked.clear()
        result = forked(parent, here, world, parent.head_seq, plan, source=store, set_facts={"3": 9})
        assert (result.result.context, world.asked) == ({"rate": 9, "paid": "receipt"}, [])
        sound(result.run_id, here, plan)


def test_an_unfinished_fork_goes_on_wherever_it_is_brought(parent, store, world, tmp_path):
    whole = forked(parent, store, world, parent.head_seq, set_facts={"6": 3})
    left = left_after(store, whole.run_id, 5)
    export_run(left, tmp_path / "left.run", store=store)
    with MemoryStore() as elsewhere:
        import_bundle(tmp_path / "left.run", store=elsewhere)
        world.asked.clear()
        result = resume(left, plan=shop(), store=elsewhere, transports={"world": world})
        assert (result.status, result.context, world.asked) == ("completed", whole.result.context, [])
        assert result.digest != ""
        sound(left, elsewhere)


def test_a_shared_past_that_is_lost_is_found_by_verify(parent, store, world):
    result = forked(parent, store, world, parent.head_seq, set_facts={"stock": 3})
    entry, _ = run_reader.first_entry(store, result.run_id)
    del store._contents.artifacts[entry.info["shared_past_id"]]
    (problem,) = verify(result.run_id, store=store).problems
    assert (problem.code, entry.info["shared_past_id"] in problem.where) == ("artifact_not_found", True)
    assert replay(result.run_id, plan=shop(), store=store, transports={"world": world}).identical


# -- which fact is meant -------------------------------------------------------------------------------------


def refusal(parent, store, world, at=99, **facts):
    with pytest.raises(machine.errors.UsageError) as caught:
        forked(parent, store, world, min(at, parent.head_seq), set_facts=facts.get("facts"))
    assert len(store.list_runs().rows) == 1
    assert world.asked == []
    return caught.value


def test_a_fact_that_is_not_there_is_refused_naming_near_ones(parent, store, world):
    error = refusal(parent, store, world, facts={"stok": 1})
    assert error.code == "fact_not_found"
    assert "stock at event 6" in error.hint
    late = refusal(parent, store, world, at=4, facts={"stock": 1})
    assert "it was recorded at event 6" in late.message
    assert refusal(parent, store, world, at=1, facts={"7": 1}).hint == "nothing had been learned by then"
    assert refusal(parent, store, world, facts={"": 1}).code == "fact_not_found"


def test_a_key_that_could_be_several_facts_is_refused(parent, store, world):
    error = refusal(parent, store, world, facts={"send.bill": 1})
    assert error.code == "fact_ambiguous"
    assert "at event 12" in error.hint
    assert "at event 14" in error.hint


def test_one_fact_named_twice_is_refused(parent, store, world):
    assert "are the same fact" in refusal(parent, store, world, facts={"stock": 1, "6": 2}).message


@pytest.mark.parametrize("value", [{1, 2}, float("nan")])
def test_a_value_that_is_no_json_is_refused(parent, store, world, value):
    assert refusal(parent, store, world, facts={"stock": value}).code == "invalid_effect_outcome"


def test_a_response_that_no_call_could_have_is_refused(store, tmp_path):
    (tmp_path / "f").write_text("text")
    plan = Plan("op")

    @plan.state("a.b")
    async def b(ctx, io, rec):
        ctx["now"] = await io.now()
        ctx["file"] = (await io.read_file(tmp_path / "f")).text
        ctx["env"] = await io.env("HOME")
        ctx["out"] = (await io.exec(["echo", "x"])).stdout

    parent = run(plan, store=store)
    for key, value in [("3", "noon"), ("4", "text"), ("5", 7), ("5", {}), ("6", {"stdout": 1}), ("6", 0)]:
        with pytest.raises(machine.errors.UsageError) as caught:
            fork(parent.run_id, plan=plan, store=store, at=7, set_facts={key: value})
        assert caught.value.code == "invalid_effect_outcome"
    result = fork(
        parent.run_id,
        plan=plan,
        store=store,
        at=7,
        set_facts={
            "3": 1,
            "4": {"path": "f", "data": {"text": "other"}},
            "5": None,
            "6": {"stdout": "y"},
        },
    )
    assert result.result.context == {"now": 1, "file": "other", "env": None, "out": "y"}


def test_a_secret_is_no_fact_to_be_replaced(store, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "a-very-secret-token")
    plan = Plan("op")

    @plan.state("a.b")
    async def b(ctx, io, rec):
        token = await io.secret("API_TOKEN")
        await io.call("world", {"of": "price", "token": token})
        await io.call("world", {"of": "rate", "token": token})
        ctx["stock"] = (await io.call("world", {"of": "stock"})).response

    world = World({"price": "got a-very-secret-token", "rate": {"password": "made-up-there"}, "stock": 2})
    parent = run(plan, store=store, transports={"world": world})
    with pytest.raises(machine.errors.UsageError, match="secret"):
        fork(parent.run_id, plan=plan, store=store, at=5, set_facts={"3": "x"}, transports={"world": world})
    world.asked.clear()
    result = forked(parent, store, world, 7, plan, set_facts={"6": 3})
    assert (result.result.status, result.result.context) == ("completed", {"stock": 3})
    assert world.asked == [], "what the parent sealed, the fork can open"
    sound(result.run_id, store, plan)


def test_the_same_facts_make_the_same_run_whatever_the_configuration_of_durability(store, world):
    config = RunConfig(durability="facts")
    parent = run(shop(), store=store, transports={"world": world}, config=config)
    result = forked(parent, store, world, parent.head_seq, set_facts={"stock": 3})
    assert result.result.digest == parent.digest


def test_a_fork_tells_what_it_did_as_json(parent, store, world):
    told = json.loads(json.dumps(forked(parent, store, world, 8).to_json()))
    assert told["parent"] == {"run_id": parent.run_id, "seq": 8}
    assert told["copied"] == ["shop.fetch.price", "shop.fetch.stock"]
    assert [fact["how"] for fact in told["facts"]] == ["copied", "copied", "new", "new"]
