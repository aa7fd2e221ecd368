"""How two recorded runs differ."""

from __future__ import annotations

import json

import attrs
import pytest
from crashes import left_after

import machine
from machine import DomainEvent, Plan, RetryPolicy, RunConfig, diff_runs, run
from machine.recordings import diff_text
from machine.stores import MemoryStore


@attrs.define
class World(machine.io.transport.BaseTransport):
    """An outside that answers what it is told to, and fails what it is told to fail."""

    answers: dict = attrs.field(factory=dict)
    failing: int = 0

    def is_effect(self, namespace, request):
        return request["of"] == "pay"

    async def perform(self, namespace, request):
        if self.failing:
            self.failing -= 1
            raise machine.errors.TransportError("down", retryable=True)
        return self.answers.get(request["of"], 1)


def plan_of(asked="price", factor=2, **options):
    """Return a plan of three states, the second of which can be changed."""
    plan = Plan("shop")

    @plan.state("fetch.price", retry=RetryPolicy(max_attempts=3, backoff=machine.FixedBackoff(delay=0)))
    async def price(ctx, io, rec):
        ctx["price"] = (await io.call("world", {"of": asked, "unit": "EUR"})).response
        await rec.emit(DomainEvent("noted", {"price": ctx["price"]}))

    @plan.state("compute.total", after=[price], **options)
    async def total(ctx, io, rec):
        ctx["total"] = ctx["price"] * factor + ctx.get("add", 0)

    @plan.state("send.bill", after=[total], side_effects="apply_side_effect", idempotency="bill")
    async def bill(ctx, io, rec):
        await io.call("world", {"of": "pay", "sum": ctx["total"]})

    return plan


@pytest.fixture
def record(store):
    """Record a run and give its id."""

    def it(plan=None, world=None, **options):
        return run(plan or plan_of(), store=store, transports={"world": world or World()}, **options).run_id

    return it


def state_of(found, name):
    return next(state for state in found.states if state.state_id == f"shop.{name}")


def pointers(changes):
    return [change.pointer for change in changes]


def test_two_runs_with_the_same_facts_are_identical_whatever_their_ids_and_times(record, store):
    found = diff_runs(record(), record(), store=store)
    assert found.identical
    assert found.a.digest == found.b.digest
    assert (found.reasons, found.first, found.context) == ([], None, ())
    assert all(state.identical for state in found.states)


def test_a_run_is_found_different_from_one_in_another_store(record, store):
    with MemoryStore() as elsewhere:
        result = run(plan_of(), store=elsewhere, transports={"world": World()})
        assert diff_runs(record(), result.run_id, store=store, other_store=elsewhere).identical
        other = run(plan_of(), store=elsewhere, transports={"world": World({"price": 5})})
        assert not diff_runs(record(), other.run_id, store=store, other_store=elsewhere).identical


def test_another_answer_to_the_same_request_is_found_and_followed_to_the_end(record, store):
    found = diff_runs(record(), record(world=World({"price": 7})), store=store)
    assert not found.identical
    first = found.first
    assert (first.state_id, first.attempt, first.type_a) == ("shop.fetch.price", 0, "fact_recorded")
    assert pointers(first.changes) == ["/response"]
    (fact, event) = state_of(found, "fetch.price").items
    assert (fact.what, fact.name, fact.same_request, fact.seq_a, fact.seq_b) == ("fact", "world", True, 3, 3)
    assert [(change.pointer, change.recorded, change.now) for change in fact.changes] == [("/response", 1, 7)]
    assert (event.what, event.name, pointers(event.changes)) == ("event", "noted", ["/payload/price"])
    assert pointers(state_of(found, "compute.total").writes) == ["/total"]
    (paid,) = state_of(found, "send.bill").items
    assert not paid.same_request
    assert pointers(paid.changes) == ["/request/sum"]
    assert [(c.pointer, c.recorded, c.now) for c in found.context] == [("/price", 1, 7), ("/total", 2, 14)]


def test_another_request_is_told_from_another_outcome(record, store):
    found = diff_runs(record(), record(plan_of(asked="cost")), store=store)
    (fact, *_) = state_of(found, "fetch.price").items
    assert not fact.same_request
    assert pointers(fact.changes) == ["/request/of"]
    assert [reason.kind for reason in found.reasons] == []


def test_what_one_run_alone_asked_or_said_stands_alone(record, store):
    def plan_with(*, more):
        plan = Plan("shop")

        @plan.state("fetch.all")
        async def fetch(ctx, io, rec):
            await io.call("world", {"of": "a"})
            if more:
                await io.call("world", {"of": "b", "n": [1, 2]})
                await rec.emit(DomainEvent("more", {}))
            await io.call("world", {"of": "c"})

        return plan

    found = diff_runs(record(plan_with(more=False)), record(plan_with(more=True)), store=store)
    items = found.states[0].items
    assert [(item.what, item.name, item.seq_a, item.seq_b) for item in items] == [
        ("fact", "world", None, 4),
        ("event", "more", None, 5),
    ]
    assert items[0].b["request"] == {"of": "b", "n": [1, 2]}
    turned = diff_runs(found.b.run_id, found.a.run_id, store=store).states[0].items
    assert [(item.seq_a, item.seq_b) for item in turned] == [(4, None), (5, None)]


def test_a_fact_under_an_explicit_key_is_the_one_under_that_key(record, store):
    def plan_with(*names):
        plan = Plan("shop")

        @plan.state("fetch.all")
        async def fetch(ctx, io, rec):
            for key, name in zip(["one", "two"], names, strict=True):
                await io.call("world", {"of": name}, fact_key=key)

        return plan

    found = diff_runs(record(plan_with("a", "b")), record(plan_with("b", "a")), store=store)
    assert [(item.seq_a, item.seq_b, pointers(item.changes)) for item in found.states[0].items] == [
        (3, 3, ["/request/of"]),
        (4, 4, ["/request/of"]),
    ]


def test_calls_of_another_attempt_in_another_order_are_known_by_their_requests(record, store):
    def plan_with(*names):
        plan = Plan("shop")

        @plan.state("fetch.all", retry=RetryPolicy(max_attempts=2, backoff=machine.FixedBackoff(delay=0)))
        async def fetch(ctx, io, rec):
            if failing:
                failing.pop()
                raise ValueError("not yet")
            for name in names:
                await io.call("world", {"of": name})

        return plan

    names = [f"n{n}" for n in range(25)]
    failing = []
    here = record(plan_with(*names))
    failing.append(True)
    found = diff_runs(here, record(plan_with(*reversed(names))), store=store)
    assert found.b.status == "completed"
    assert (found.states[0].a.attempts, found.states[0].b.attempts) == (1, 2)
    assert list(found.states[0].items) == []


def test_a_changed_request_is_compared_with_the_nearest_one(record, store):
    def plan_with(*requests):
        plan = Plan("shop")

        @plan.state("fetch.all")
        async def fetch(ctx, io, rec):
            for request in requests:
                await io.call("world", request)

        return plan

    near = {"of": "a", "page": 1, "size": 10}
    far = {"of": "z", "page": 7, "size": 99}
    found = diff_runs(record(plan_with(near)), record(plan_with(far, {**near, "page": 2})), store=store)
    assert [(item.seq_a, item.seq_b) for item in found.states[0].items] == [(3, 4), (None, 3)]
    assert pointers(found.states[0].items[0].changes) == ["/request/page"]


def test_states_are_aligned_by_attempt_and_not_by_seq(record, store):
    found = diff_runs(record(), record(world=World(failing=1)), store=store)
    state = state_of(found, "fetch.price")
    assert (state.a.attempts, state.b.attempts) == (1, 2)
    assert [error["code"] for error in state.b.errors] == ["io_transport_failed"]
    assert state.b.delays_ms == (0,)
    assert state.same_base
    assert state_of(found, "compute.total").identical
    assert state_of(found, "send.bill").identical
    assert found.context == []


def test_another_input_configuration_and_plan_are_the_reasons_on_top(record, store):
    here = record(input={"add": 1})
    there = record(plan_of(tags=["compute"]), input={"add": 2}, config=RunConfig(durability="facts"))
    found = diff_runs(here, there, store=store)
    assert [reason.kind for reason in found.reasons] == ["input", "config", "plan"]
    assert [pointers(reason.changes) for reason in found.reasons] == [
        ["/add"],
        ["/durability"],
        ["/states/shop.compute.total/tags/0"],
    ]
    assert (found.first.seq_a, found.first.type_a) == (1, "run_started")
    assert not state_of(found, "fetch.price").same_base


def test_changed_code_is_a_reason_and_alone_is_no_difference(record, store):
    def plan_with(handler):
        plan = Plan("op")
        plan.state("a.b")(handler)
        return plan

    async def one(ctx, io, rec):
        ctx["n"] = 3

    async def same(ctx, io, rec):
        ctx["n"] = 1 + 2

    async def other(ctx, io, rec):
        ctx["n"] = 4

    first = record(plan_with(one))
    found = diff_runs(first, record(plan_with(same)), store=store)
    assert found.identical
    assert [reason.kind for reason in found.reasons] == ["code"]
    changed = diff_runs(first, record(plan_with(other)), store=store)
    assert not changed.identical
    assert changed.states[0].unexplained
    assert pointers(changed.states[0].writes) == ["/n"]


def test_runs_of_different_plans_have_states_that_are_only_in_one(record, store):
    short = Plan("shop")

    @short.state("fetch.price")
    async def price(ctx, io, rec):
        pass

    found = diff_runs(record(), record(short), store=store)
    bill = state_of(found, "send.bill")
    assert bill.a.status == "completed"
    assert bill.b is None
    assert diff_runs(found.b.run_id, found.a.run_id, store=store).states[-1].a is None


def test_a_failed_run_is_compared_with_one_that_did_not_fail(record, store):
    found = diff_runs(record(), record(world=World(failing=9)), store=store)
    assert found.b.status == "failed"
    state = state_of(found, "fetch.price")
    assert (state.a.status, state.b.status, state.b.attempts) == ("completed", "failed", 3)
    assert state_of(found, "compute.total").b is None


def test_a_run_left_open_and_a_suspended_one_are_compared_as_far_as_they_go(store):
    plan = Plan("op")

    @plan.state("a.ask", side_effects="apply_side_effect", idempotency="k", on_uncertain="ask")
    async def ask(ctx, io, rec):
        await io.call("world", {"of": "pay"})

    whole = run(plan, store=store, transports={"world": World()})
    open_run = left_after(store, whole.run_id, 3)
    found = diff_runs(whole.run_id, open_run, store=store)
    assert (found.a.status, found.b.status) == ("completed", "running")
    assert (found.first.type_a, found.first.type_b) == ("fact_recorded", None)
    assert (
        machine.resume(open_run, plan=plan, store=store, transports={"world": World()}).status == "suspended"
    )
    found = diff_runs(whole.run_id, open_run, store=store)
    assert found.b.status == "suspended"
    assert [(item.what, item.seq_a, item.seq_b) for item in found.states[0].items] == [("fact", 4, None)]


def test_another_idempotency_key_is_a_difference_of_the_effect(record, store):
    def plan_with(key):
        plan = Plan("op")

        @plan.state("a.pay", side_effects="apply_side_effect", idempotency=lambda ctx: key)
        async def pay(ctx, io, rec):
            await io.call("world", {"of": "pay"})

        return plan

    found = diff_runs(record(plan_with("one")), record(plan_with("two")), store=store)
    (item,) = found.states[0].items
    assert (item.what, pointers(item.changes)) == ("effect", ["/idempotency_key"])


def test_calls_that_came_in_another_order_differ_and_it_is_said_how(store):
    import asyncio

    class Slow(machine.io.transport.BaseTransport):
        def __init__(self, *order):
            self.order = order

        async def perform(self, namespace, request):
            await asyncio.sleep(0.05 * self.order.index(request))
            return request

    plan = Plan("op")

    @plan.state("a.b")
    async def both(ctx, io, rec):
        await asyncio.gather(io.call("slow", "x"), io.call("slow", "y"))

    one, other = (run(plan, store=store, transports={"slow": Slow(*order)}).run_id for order in ("xy", "yx"))
    found = diff_runs(one, other, store=store)
    assert not found.identical
    assert list(found.states[0].items) == []
    assert any("in another order" in line for _, line in diff_text.marked(found))


def test_one_state_alone_can_be_looked_at(record, store):
    here, there = record(), record(world=World(failing=1))
    alike = diff_runs(here, there, store=store, state="send.bill")
    assert (alike.identical, alike.first, alike.state) == (True, None, "shop.send.bill")
    found = diff_runs(here, there, store=store, state="shop.fetch.price")
    assert not found.identical
    assert [state.state_id for state in found.states] == ["shop.fetch.price"]
    assert found.first.state_id == "shop.fetch.price"
    with pytest.raises(machine.errors.UsageError, match=r"no state 'no\.such'"):
        diff_runs(here, there, store=store, state="no.such")


def test_a_run_that_is_not_there_is_named(record, store):
    with pytest.raises(machine.errors.NotFoundError, match="no run"):
        diff_runs(record(), str(machine.new_run_id()), store=store)


def test_the_whole_difference_is_json_and_the_text_fits_a_terminal(record, store):
    long = "\x1b[31m" + "same " * 60
    found = diff_runs(
        record(world=World({"price": long + "old"})),
        record(world=World({"price": long + "new"})),
        store=store,
    )
    assert json.loads(json.dumps(found.to_json()))["identical"] is False
    lines = [line for _, line in diff_text.marked(found)]
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert any(line.endswith('old"') for line in lines)
    assert any(line.endswith('new"') for line in lines)


def test_of_many_changes_the_text_shows_some_and_counts_the_rest(record, store):
    here = record(input={f"k{n:02}": 0 for n in range(30)})
    there = record(input={f"k{n:02}": 1 for n in range(30)})
    found = diff_runs(here, there, store=store)
    assert len(found.context) == 30
    assert any(line.strip() == "... and 20 more" for _, line in diff_text.marked(found))
