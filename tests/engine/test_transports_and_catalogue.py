"""What a plan brings along: whoever has the plan can drive its runs; a driver that lacks it destroys nothing."""

from __future__ import annotations

import functools
import itertools
import os

import attrs
import pytest
from crashes import left_after

import machine
from machine import DomainEvent, Plan, RunConfig, compare, dry_run, fork, replay, resume, run, schedules
from machine.catalogue import STANDARD, Level
from machine.codec import decode_entry
from machine.config import FanOutJoin
from machine.errors import PlanError, RunError, UsageError
from machine.io.transport import BaseTransport
from machine.torture import crash_matrix
from machine.torture.faults import FAULTS


class Shop(BaseTransport):
    """Answers reads and takes orders; it counts what it was asked, and how often it was closed."""

    one_effect_per_key = True

    def __init__(self, answer=7):
        self.answer = answer
        self.asked = []
        self.closed = 0

    def is_effect(self, namespace, request):
        return namespace == "shop.order"

    is_certain_effect = is_effect

    def with_idempotency_key(self, namespace, request, key):
        return {**request, "key": key}

    async def perform(self, namespace, request):
        self.asked.append((namespace, request))
        return {"of": namespace, "n": self.answer}

    async def aclose(self):
        self.closed += 1


@attrs.frozen
class Ordered:
    """The payload of an event of one's own."""

    number: int
    note: str | None = None


def catalogue_of(payload=Ordered, level=Level.NORMAL):
    return STANDARD.register("ordered", payload, level=level)


def plan_of(**owned):
    plan = Plan("shop", **owned)

    @plan.state("a.price")
    async def price(ctx, io, rec):
        ctx["price"] = (await io.call("shop.price", {"of": "tea"})).response["n"]
        ctx["stock"] = (await io.call("shop.stock", {"of": "tea"}, "stock")).response["n"]

    @plan.state("a.order", after=[price], side_effects="apply_side_effect", idempotency="order")
    async def order(ctx, io, rec):
        ctx["order"] = (await io.call("shop.order", {"n": ctx["price"]})).response["n"]
        await rec.emit(DomainEvent("ordered", Ordered(ctx["order"])))

    return plan


def owning(**more):
    shop = Shop()
    return plan_of(transports={"shop": shop}, catalogue=catalogue_of(), **more), shop


def first_info(store, run_id):
    (first,) = store.read_range(run_id, 1, 1)
    return decode_entry(1, first.data).info


def whole(store, run_id):
    return [stored.data for stored in store.read_range(run_id)]


# -- the plan owns its world ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.long
def test_whoever_has_the_plan_can_do_everything_with_it(store):
    plan, shop = owning()

    result = run(plan, store=store)
    assert (result.status, result.context["order"]) == ("completed", 7)
    assert replay(result.run_id, plan=plan, store=store).identical
    assert compare(result.run_id, plan=plan, store=store).identical
    assert len(shop.asked) == 3
    for length in range(1, result.head_seq):
        left = left_after(store, result.run_id, length)
        assert resume(left, plan=plan, store=store).digest
        assert replay(left, plan=plan, store=store).identical
    forked = fork(result.run_id, plan=plan, store=store, at=1)
    assert forked.result.digest == result.digest
    asked = len(shop.asked)
    dry = dry_run(plan, store=store)
    assert [effect.namespace for effect in dry.effects] == ["shop.order"]
    assert [namespace for namespace, _ in shop.asked[asked:]] == ["shop.price", "shop.stock"]
    assert run(plan, store=store, config=RunConfig(paranoid=True)).status == "completed"
    beside = run(plan, store=store, config=RunConfig(execution_mode=FanOutJoin(2)))
    assert schedules(beside.run_id, plan=plan, store=store, count=3).divergence is None
    assert crash_matrix(plan).safe


def test_a_start_with_an_invocation_key_is_given_what_the_plan_owns(store):
    plan, _ = owning()

    assert run(plan, store=store, invocation_key="once").status == "completed"
    assert run(plan, store=store, invocation_key="once").status == "completed"


def test_what_a_caller_gives_comes_in_the_place_of_what_the_plan_has(store):
    plan, shop = owning()
    other, more = Shop(9), Shop()

    result = run(plan, store=store, transports={"shop": other, "more": more}, catalogue=catalogue_of(Other))

    assert result.status == "failed", "Other has another field"
    assert (shop.asked, len(other.asked), plan.transports) == ([], 3, {"shop": shop})
    assert run(plan, store=store, transports={"more": more}).context["price"] == 7


@attrs.frozen
class Other:
    """A payload that differs."""

    amount: int


def test_what_a_plan_owns_is_no_part_of_its_fingerprint_nor_of_the_digest(store):
    plan, shop = owning()
    bare = plan_of()

    assert plan.graph.plan_id == bare.graph.plan_id
    there = run(plan, store=store)
    here = run(bare, store=store, transports={"shop": shop}, catalogue=catalogue_of())
    assert there.digest == here.digest


def test_a_plan_refuses_what_is_no_mapping_and_no_catalogue():
    with pytest.raises(PlanError, match="must be a Mapping"):
        Plan("shop", transports=[Shop()])
    with pytest.raises(PlanError, match="must be a Catalogue"):
        Plan("shop", catalogue=[Ordered])


@pytest.mark.parametrize(
    ("transports", "problem"),
    [
        ({"shop": Shop}, "is the class Shop"),
        ({"shop": 7}, "= 7 is not a transport"),
        ({"Shop": Shop()}, "'Shop' is not a namespace"),
        ({"shop": lambda: 7}, "= 7 is not a transport"),
        ({"shop": lambda: Shop}, "is not a transport"),
    ],
)
def test_what_is_no_transport_is_refused_before_anything_is_written(store, transports, problem):
    plan = plan_of(transports=transports)
    for action in (run, dry_run):
        with pytest.raises(UsageError, match=problem):
            action(plan, store=store)
    assert not store.list_runs().rows


# -- transports that are made for each run -------------------------------------------------------------------


class Made:
    """A function that makes shops, each for one driver."""

    def __init__(self):
        self.shops = []

    def __call__(self):
        self.shops.append(Shop())
        return self.shops[-1]


def test_a_function_makes_a_transport_for_each_driver_and_it_is_closed_after_the_run(store):
    made = Made()
    plan = plan_of(transports={"shop": made}, catalogue=catalogue_of())

    result = run(plan, store=store)
    left = left_after(store, result.run_id, 4)
    assert resume(left, plan=plan, store=store).status == "completed"

    assert [shop.closed for shop in made.shops] == [1, 1]
    assert made.shops[0].asked != []
    assert replay(result.run_id, plan=plan, store=store).identical
    assert compare(result.run_id, plan=plan, store=store).identical
    assert len(made.shops) == 2, "a replay makes none"
    assert crash_matrix(plan, faults=FAULTS[:1]).safe


def test_a_coroutine_function_may_make_it(store):
    made = []

    async def make():
        made.append(Shop())
        return made[-1]

    plan = plan_of(transports={"shop": make}, catalogue=catalogue_of())
    assert run(plan, store=store).status == "completed"
    assert [shop.closed for shop in made] == [1]


def test_what_is_given_as_it_is_stays_open(store):
    plan, shop = owning()
    run(plan, store=store)
    assert shop.closed == 0


def test_a_function_that_fails_is_told_before_anything_is_written_and_the_others_are_closed(store):
    made = Made()

    def broken():
        raise OSError("nobody there")

    plan = plan_of(transports={"shop": made, "zoo": broken}, catalogue=catalogue_of())
    with pytest.raises(
        RunError, match=r"transports\['zoo'\] could not be made: OSError: nobody there"
    ) as caught:
        run(plan, store=store)
    assert caught.value.code == "io_transport_failed"
    assert not store.list_runs().rows
    assert [shop.closed for shop in made.shops] == [1]

    whole_plan, _ = owning()
    left = left_after(store, run(whole_plan, store=store).run_id, 4)
    before = whole(store, left)
    with pytest.raises(RunError):
        resume(left, plan=plan, store=store)
    assert whole(store, left) == before


def test_a_transport_that_cannot_be_closed_is_told_and_the_run_is_what_it_was(store):
    class Sticky(Shop):
        async def aclose(self):
            raise OSError("stuck")

    plan = plan_of(transports={"shop": functools.partial(Sticky)}, catalogue=catalogue_of())
    with pytest.warns(RuntimeWarning, match=r"transports\['shop'\] could not be closed: OSError: stuck"):
        assert run(plan, store=store).status == "completed"


# -- a replay needs nothing of it ----------------------------------------------------------------------------


def test_a_replay_needs_neither_the_transports_nor_the_catalogue(store):
    plan, _ = owning()
    result = run(plan, store=store)

    for bare in (plan_of(), plan_of(transports={"shop": broken_factory})):
        assert replay(result.run_id, plan=bare, store=store).identical
        assert compare(result.run_id, plan=bare, store=store).identical


def broken_factory():
    raise AssertionError("a replay makes no transport")


@attrs.frozen
class Stricter:
    """Asks for more than was recorded."""

    number: int
    customer: str


@pytest.mark.parametrize("payload", [Ordered(1), Ordered(1, "x"), {"number": 1}, {"number": 1, "note": None}])
@pytest.mark.parametrize(
    ("then", "now"),
    list(
        itertools.product(
            [catalogue_of(), STANDARD],
            [catalogue_of(), STANDARD, catalogue_of(Stricter), catalogue_of(level=Level.VERBOSE)],
        )
    ),
)
def test_a_payload_is_not_checked_again_whatever_the_catalogue_of_today(store, payload, then, now):
    if then is STANDARD and isinstance(payload, Ordered):
        return  # which is no JSON for an unknown kind

    plan = Plan("op")

    @plan.state("a.emit")
    async def emit(ctx, io, rec):
        await rec.emit_many([DomainEvent("ordered", payload), DomainEvent("ordered", payload)])

    result = run(plan, store=store, catalogue=then)
    assert result.status == "completed"
    again = replay(result.run_id, plan=plan, store=store, catalogue=now)
    assert again.identical, str(again.divergence)


def test_an_event_that_was_not_kept_is_not_added_by_a_replay_without_the_catalogue(store):
    plan = Plan("op")

    @plan.state("a.emit")
    async def emit(ctx, io, rec):
        await rec.emit(DomainEvent("ordered", Ordered(1)))

    result = run(plan, store=store, catalogue=catalogue_of(level=Level.VERBOSE))
    assert result.head_seq == 4
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_payload_that_was_refused_is_refused_in_a_replay_without_the_catalogue(store):
    plan = Plan("op")

    @plan.state("a.emit")
    async def emit(ctx, io, rec):
        await rec.emit(DomainEvent("ordered", {"number": "one"}))

    result = run(plan, store=store, catalogue=catalogue_of())
    assert result.error.code == "malformed"
    for catalogue in (catalogue_of(), None):
        assert replay(result.run_id, plan=plan, store=store, catalogue=catalogue).identical


def test_a_payload_that_differs_is_a_divergence_all_the_same(store):
    number = [1]
    plan = Plan("op", catalogue=catalogue_of())

    @plan.state("a.emit")
    async def emit(ctx, io, rec):
        await rec.emit(DomainEvent("ordered", Ordered(number[0])))

    result = run(plan, store=store)
    number[0] = 2
    for catalogue in (None, STANDARD, catalogue_of(Stricter)):
        assert replay(result.run_id, plan=plan, store=store, catalogue=catalogue).divergence is not None


def refusing(calls, **options):
    plan = Plan("op")

    @plan.state("a.call", **options)
    async def call(ctx, io, rec):
        for number in range(calls):
            await io.call("shop.order", {"n": number})

    return plan


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (refusing(1), "side_effect_not_declared"),
        (refusing(2, side_effects="apply_side_effect", idempotency="k"), "idempotency_key_reused"),
    ],
)
def test_a_call_that_was_refused_is_refused_in_a_replay_without_transports(store, plan, code):
    result = run(plan, store=store, transports={"shop": Shop()})
    assert result.error.code == code
    for transports in (None, {"shop": Shop()}, {"shop": functools.partial(Shop)}):
        assert replay(result.run_id, plan=plan, store=store, transports=transports).identical


def test_a_call_for_which_there_was_no_transport_replays_as_it_was(store):
    plan = refusing(1)
    result = run(plan, store=store)
    assert result.error.code == "io_unknown_namespace"
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_call_that_was_added_is_told_as_one_without_the_transport(store):
    more = [False]
    plan = Plan("op")

    @plan.state("a.call")
    async def call(ctx, io, rec):
        await io.call("shop.price", {})
        if more[0]:
            await io.call("shop.stock", {})

    result = run(plan, store=store, transports={"shop": Shop()})
    more[0] = True
    for transports in ({"shop": Shop()}, None):
        found = replay(result.run_id, plan=plan, store=store, transports=transports)
        assert found.divergence.kind == "call_added"


def test_a_transport_that_says_otherwise_today_makes_no_recording_diverge(store):
    class Reads(Shop):
        def is_effect(self, namespace, request):
            return False

        is_certain_effect = is_effect

    class Writes(Shop):
        def is_effect(self, namespace, request):
            return True

        is_certain_effect = is_effect

    plan, _ = owning()
    result = run(plan, store=store)
    for shop in (Reads(), Writes()):
        assert replay(result.run_id, plan=plan, store=store, transports={"shop": shop}).identical


# -- a forgetful driver destroys nothing ---------------------------------------------------------------------


def test_a_resume_without_the_transports_is_refused_wherever_the_run_was_left_and_writes_nothing(store):
    plan, _ = owning()
    result = run(plan, store=store)

    for length in range(1, result.head_seq):
        left = left_after(store, result.run_id, length)
        before = whole(store, left)
        with pytest.raises(
            UsageError, match="the transport shop, which neither the plan nor the caller"
        ) as caught:
            resume(left, plan=plan_of(catalogue=catalogue_of()), store=store)
        assert caught.value.code == "transport_missing"
        assert caught.value.info.details == {"run_id": left, "transports": ["shop"]}
        assert "Plan(..., transports={'shop': ...})" in caught.value.hint
        assert "resume(..., transports={'shop': ...})" in caught.value.hint
        assert whole(store, left) == before
        ended = resume(
            left, plan=plan_of(), store=store, transports={"shop": Shop()}, catalogue=catalogue_of()
        )
        assert ended.digest
        assert ended.status == "completed"


def test_a_resume_of_a_run_that_does_not_name_its_transports_goes_by_its_facts(store, monkeypatch):
    plan, _ = owning()
    monkeypatch.setattr(
        "machine.engine.transports_and_catalogue.Provided.info", lambda self: {}
    )  # as an earlier version did
    result = run(plan, store=store)
    monkeypatch.undo()
    refused = []
    for length in range(1, result.head_seq):
        left = left_after(store, result.run_id, length)
        try:
            resume(left, plan=plan_of(catalogue=catalogue_of()), store=store)
        except UsageError as exc:
            refused.append((length, exc.code))
    assert refused == [(length, "transport_missing") for length in range(3, result.head_seq)]


@pytest.mark.parametrize("now", [None, STANDARD, catalogue_of(Other)])
def test_a_resume_without_the_catalogue_is_refused_and_writes_nothing(store, now):
    plan, shop = owning()
    left = left_after(store, run(plan, store=store).run_id, 4)
    before = whole(store, left)

    def resumed(catalogue):
        return resume(left, plan=plan_of(transports={"shop": shop}), store=store, catalogue=catalogue)

    if now is not None and "ordered" in now:
        assert resumed(now).status == "failed", "a kind is known by its name and version"
        return
    with pytest.raises(UsageError, match="differs in ordered") as caught:
        resumed(now)
    assert caught.value.code == "catalogue_missing"
    assert "Plan(..., catalogue=...)" in caught.value.hint
    assert "resume(..., catalogue=...)" in caught.value.hint
    assert whole(store, left) == before
    assert resumed(catalogue_of()).status == "completed"


def test_a_catalogue_that_leaves_standard_kinds_out_is_missed_too(store):
    plan = Plan("op", catalogue=machine.Catalogue())

    @plan.state("a.emit")
    async def emit(ctx, io, rec):
        await rec.emit(DomainEvent("tool_called", {"whatever": 1}))

    result = run(plan, store=store)
    assert result.status == "completed"
    left = left_after(store, result.run_id, 2)
    with pytest.raises(UsageError) as caught:
        resume(left, plan=plan, store=store, catalogue=STANDARD)
    assert caught.value.code == "catalogue_missing"
    assert resume(left, plan=plan, store=store).status == "completed"


def test_a_standard_transport_that_was_replaced_is_missed_too(store):
    plan = Plan("op")

    @plan.state("a.read")
    async def read(ctx, io, rec):
        ctx["home"] = await io.env("HOME")

    class Env(BaseTransport):
        async def perform(self, namespace, request):
            return {"value": "mine"}

    result = run(plan, store=store, transports={"env": Env()})
    left = left_after(store, result.run_id, 2)
    with pytest.raises(UsageError) as caught:
        resume(left, plan=plan, store=store)
    assert caught.value.code == "transport_missing"


def test_a_driver_may_have_more_than_the_run_was_started_with(store):
    plan, _ = owning()
    left = left_after(store, run(plan, store=store).run_id, 3)
    more = {"shop": Shop(), "more": Shop()}
    result = resume(
        left, plan=plan_of(), store=store, transports=more, catalogue=catalogue_of().register("more", Other)
    )
    assert result.status == "completed"


def test_a_shorter_prefix_serves_what_a_longer_one_did(store):
    plan = plan_of(catalogue=catalogue_of())
    own = {"shop.price": Shop(), "shop.stock": Shop(), "shop.order": Shop()}
    left = left_after(store, run(plan, store=store, transports=own).run_id, 3)
    with pytest.raises(UsageError, match=r"the transports shop\.order, shop\.price, shop\.stock"):
        resume(left, plan=plan, store=store)
    assert resume(left, plan=plan, store=store, transports={"shop": Shop()}).status == "completed"


def test_a_start_that_finds_its_run_cut_is_refused_likewise(store):
    plan, _ = owning()
    lent = {"transports": {"shop": Interrupting()}, "catalogue": catalogue_of()}
    with pytest.raises(KeyboardInterrupt):
        run(plan_of(), store=store, invocation_key="k", **lent)
    (row,) = store.list_runs().rows
    before = whole(store, row.run_id)
    with pytest.raises(UsageError) as caught:
        run(plan_of(), store=store, invocation_key="k")
    assert caught.value.code == "transport_missing"
    assert whole(store, row.run_id) == before
    assert run(plan, store=store, invocation_key="k").status == "completed"


class Interrupting(Shop):
    async def perform(self, namespace, request):
        raise KeyboardInterrupt


def test_a_fork_without_the_transports_is_refused_and_makes_no_run(store):
    plan, _ = owning()
    result = run(plan, store=store)
    half = plan_of(transports={"shop": Shop()})
    for bare, code in ((plan_of(), "transport_missing"), (half, "catalogue_missing")):
        with pytest.raises(UsageError) as caught:
            fork(result.run_id, plan=bare, store=store, at=3)
        assert caught.value.code == code
        assert "fork(..." in caught.value.hint
    assert len(store.list_runs().rows) == 1
    forked = fork(result.run_id, plan=plan, store=store, at=3).result
    assert first_info(store, forked.run_id)["transports"] == "shop"


def test_what_drives_nothing_needs_no_transports(store):
    plan, _ = owning()
    result = run(plan, store=store)
    assert resume(result.run_id, plan=plan_of(), store=store).digest == result.digest
    left = left_after(store, result.run_id, 4)
    assert machine.cancel(left, store=store).status == "cancelled"


def asking(**owned):
    plan = Plan("shop", **owned)

    @plan.state("a.order", side_effects="apply_side_effect", idempotency="k", on_uncertain="ask")
    async def order(ctx, io, rec):
        ctx["order"] = (await io.call("shop.order", {})).response["n"]

    return plan


def test_an_effect_is_resolved_without_the_transports_and_a_waiting_run_is_returned_as_it_is(store):
    plan = asking(transports={"shop": Shop()})
    left = left_after(store, run(plan, store=store).run_id, 3)
    with pytest.raises(UsageError):
        resume(left, plan=asking(), store=store)
    assert resume(left, plan=plan, store=store).status == "suspended"

    (wait,) = resume(left, plan=asking(), store=store).waits
    assert machine.resolve(left, wait.key, store=store, outcome={"n": 3}) == ()
    before = whole(store, left)
    with pytest.raises(UsageError):
        resume(left, plan=asking(), store=store)
    assert whole(store, left) == before
    assert resume(left, plan=plan, store=store).context == {"order": 3}


def test_a_fork_that_was_cut_is_not_resumed_without_the_transports_either(store):
    plan, _ = owning()
    forked = fork(run(plan, store=store).run_id, plan=plan, store=store, at=2).result
    cut = left_after(store, forked.run_id, 2)
    with pytest.raises(UsageError) as caught:
        resume(cut, plan=plan_of(), store=store)
    assert caught.value.code == "transport_missing"
    assert resume(cut, plan=plan, store=store).status == "completed"


def test_the_names_are_informational_and_absent_where_there_is_nothing_to_name(store):
    plan, _ = owning()
    info = first_info(store, run(plan, store=store).run_id)
    assert (info["transports"], info["catalogue"]) == ("shop", "ordered")
    bare = Plan("op")
    bare.state("a.b")(lambda ctx, io, rec: None)
    assert first_info(store, run(bare, store=store).run_id).keys() == {"provenance_id", "run_id", "ts_millis"}


def test_a_secret_that_is_not_set_any_more_is_asked_for_before_anything_is_written(store, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "a-very-secret-token")
    plan = Plan("op", transports={"shop": Shop()})

    @plan.state("a.first")
    async def first(ctx, io, rec):
        await io.secret("SHOP_TOKEN")

    @plan.state("a.second", after=[first])
    async def second(ctx, io, rec):
        token = await io.secret("SHOP_TOKEN")
        ctx["price"] = (await io.call("shop.price", {"token": token})).response["n"]
        ctx["stock"] = (await io.call("shop.stock", {"token": token})).response["n"]

    result = run(plan, store=store)
    kinds = [decode_entry(stored.seq, stored.data).event for stored in store.read_range(result.run_id)]
    seqs = [seq for seq, event in enumerate(kinds, 1) if getattr(event, "namespace", "") == "secret"]
    monkeypatch.delenv("SHOP_TOKEN")
    left = left_after(store, result.run_id, seqs[1])  # which has no key to open what it had read
    before = whole(store, left)
    with pytest.raises(UsageError, match="SHOP_TOKEN") as caught:
        resume(left, plan=plan, store=store)
    assert caught.value.code == "secret_not_set"
    assert whole(store, left) == before

    monkeypatch.setenv("SHOP_TOKEN", "a-very-secret-token")
    assert resume(left, plan=plan, store=store).status == "completed"
    assert "SHOP_TOKEN" in os.environ
