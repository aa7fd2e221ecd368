"""What becomes of an effect that a crash may have hidden: it is sent again, asked after, or waits for a person."""

from __future__ import annotations

from typing import Any

import pytest

import machine
from machine import MachineError, Plan
from machine.engine import run_reader
from machine.errors import Code, RunError, UsageError
from machine.events import (
    EffectIntended,
    FactRecorded,
    RunResumed,
    RunSuspended,
)
from machine.io.transport import BaseTransport
from machine.stores import Store
from machine.waits import EffectWait


class World(BaseTransport):
    """A receiver that deduplicates by key, in front of which the power may fail."""

    one_effect_per_key = True

    def __init__(self) -> None:
        self.applied: dict[str, Any] = {}
        self.arrived: list[str] = []
        self.asked = 0
        self.cut: str | None = None

    def is_effect(self, namespace: str, request: Any) -> bool:
        return bool(request.get("apply"))

    def is_certain_effect(self, namespace: str, request: Any) -> bool:
        return bool(request.get("apply"))

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:
        return {**request, "key": key}

    async def perform(self, namespace: str, request: Any) -> Any:
        if not request.get("apply"):
            self.asked += 1
            return {"applied": self.applied.get("k")}
        cut, self.cut = self.cut, None
        if cut == "before":
            raise KeyboardInterrupt(cut)
        self.arrived.append(request["key"])
        self.applied.setdefault(request["key"], {"number": len(self.arrived)})
        if cut == "after":
            raise KeyboardInterrupt(cut)
        return self.applied[request["key"]]


@pytest.fixture
def world() -> World:
    return World()


def pay(on_uncertain: str, *, fact_key: str | None = None, reconcile: Any = None) -> Plan:
    plan = Plan("pay")

    @plan.state(
        "out.pay",
        side_effects="apply_side_effect",
        idempotency="k",
        on_uncertain=on_uncertain,
        reconcile=reconcile,
    )
    async def charge(ctx: Any, io: Any, rec: Any) -> None:
        ctx["receipt"] = (await io.call("world", {"apply": True, "euros": 5}, fact_key)).response

    return plan


async def asks(ctx: Any, io: Any, effect: machine.UncertainEffect) -> Any:
    found = (await io.call("world", {"apply": False})).response["applied"]
    return effect.happened(found) if found else effect.not_done()


def crashed(plan: Plan, store: Store, world: World, cut: str) -> str:
    """Start a run whose process ends `before` or `after` the effect was applied, and leaves the attempt open."""
    world.cut = cut
    run_id = str(machine.new_run_id())
    with pytest.raises(KeyboardInterrupt):
        machine.run(plan, store=store, run_id=run_id, transports={"world": world})
    return run_id


def events_of(store: Store, run_id: str, kind: type) -> list[Any]:
    return [entry.event for entry, _ in run_reader.entries(store, run_id) if isinstance(entry.event, kind)]


def sound(plan: Plan, store: Store, run_id: str) -> None:
    assert machine.verify(run_id, store=store).problems == ()
    replayed = machine.replay(run_id, plan=plan, store=store, transports={"world": World()})
    assert replayed.divergence is None


class PowerCut(BaseTransport):
    """An outside whose first effect ends the process."""

    def __init__(self) -> None:
        self.cut = False

    def is_effect(self, namespace: str, request: Any) -> bool:
        return True

    async def perform(self, namespace: str, request: Any) -> Any:
        if not self.cut:
            self.cut = True
            raise KeyboardInterrupt
        return {"status": 200} if namespace == "http" else {"returncode": 0}


@pytest.mark.parametrize("own", [None, "mine-7"])
@pytest.mark.parametrize("namespace", ["http", "exec"])
def test_reconcile_is_told_the_key_that_was_sent_and_not_only_that_of_the_state(store, namespace, own):
    plan, told = Plan("pay"), []

    async def look(ctx: Any, io: Any, effect: machine.UncertainEffect) -> Any:
        told.append(effect.idempotency_key)
        return effect.happened({"status": 200} if namespace == "http" else {"returncode": 0})

    @plan.state(
        "out.pay", side_effects="apply_side_effect", idempotency="k", on_uncertain="reconcile", reconcile=look
    )
    async def charge(ctx: Any, io: Any, rec: Any) -> None:
        if namespace == "http":
            await io.http("POST", "http://pay.test/", headers={"Idempotency-Key": own} if own else {})
        else:
            await io.exec(["pay"], env={"MACHINE_IDEMPOTENCY_KEY": own} if own else {})

    run_id, transports = str(machine.new_run_id()), {namespace: PowerCut()}
    with pytest.raises(KeyboardInterrupt):
        machine.run(plan, store=store, run_id=run_id, transports=transports)

    assert machine.resume(run_id, plan=plan, store=store, transports=transports).status == "completed"
    assert told == [own or "k"]


@pytest.mark.parametrize("namespace", ["http", "http.payments"])
def test_reconcile_is_told_the_key_of_a_request_that_was_not_built_by_io(store, namespace):
    plan, told = Plan("pay"), []
    request = {"method": "POST", "url": "http://pay.test/", "headers": {"Idempotency-Key": "mine-7"}}

    async def look(ctx: Any, io: Any, effect: machine.UncertainEffect) -> Any:
        told.append(effect.idempotency_key)
        return effect.not_done()

    @plan.state(
        "out.pay", side_effects="apply_side_effect", idempotency="k", on_uncertain="reconcile", reconcile=look
    )
    async def charge(ctx: Any, io: Any, rec: Any) -> None:
        await io.call(namespace, request)

    run_id, transports = str(machine.new_run_id()), {namespace: PowerCut()}
    with pytest.raises(KeyboardInterrupt):
        machine.run(plan, store=store, run_id=run_id, transports=transports)
    machine.resume(run_id, plan=plan, store=store, transports=transports)
    assert told == ["mine-7"]


@pytest.mark.parametrize("fact_key", [None, "the.payment"])
@pytest.mark.parametrize("cut", ["before", "after"])
def test_reconcile_asks_the_world_and_the_effect_arrives_once(store, world, cut, fact_key):
    plan = pay("reconcile", reconcile=asks, fact_key=fact_key)
    run_id = crashed(plan, store, world, cut)

    result = machine.resume(run_id, plan=plan, store=store, transports={"world": world})

    assert result.status == "completed"
    assert result.context == {"receipt": {"number": 1}}
    assert world.arrived == ["k"]
    assert world.asked == 1
    sound(plan, store, run_id)


def test_a_plain_function_may_reconcile(store, world):
    def plainly(ctx: Any, io: Any, effect: machine.UncertainEffect) -> Any:
        assert (effect.namespace, effect.idempotency_key, effect.attempt) == ("world", "k", 0)
        assert effect.request == {"apply": True, "euros": 5}
        return effect.happened(io.call("world", {"apply": False}).response["applied"])

    plan = pay("reconcile", reconcile=plainly)
    run_id = crashed(plan, store, world, "after")

    assert machine.resume(run_id, plan=plan, store=store, transports={"world": world}).status == "completed"
    assert world.arrived == ["k"]
    sound(plan, store, run_id)


def test_reconcile_sees_the_world_as_it_is_now_and_the_handler_as_it_was(store, world):
    plan = Plan("pay")

    @plan.state(
        "out.pay", side_effects="apply_side_effect", idempotency="k", on_uncertain="reconcile", reconcile=asks
    )
    async def charge(ctx: Any, io: Any, rec: Any) -> None:
        before = (await io.call("world", {"apply": False})).response
        await io.call("world", {"apply": True, "before": before})

    run_id = crashed(plan, store, world, "after")
    result = machine.resume(run_id, plan=plan, store=store, transports={"world": world})

    assert result.status == "completed"
    assert world.arrived == ["k"]
    assert world.asked == 2
    sound(plan, store, run_id)


def test_a_reconcile_function_that_changes_the_outside_is_refused(store, world):
    async def meddles(ctx: Any, io: Any, effect: machine.UncertainEffect) -> Any:
        return effect.happened((await io.call("world", {"apply": True})).response)

    plan = pay("reconcile", reconcile=meddles)
    run_id = crashed(plan, store, world, "before")
    result = machine.resume(run_id, plan=plan, store=store, transports={"world": world})

    assert result.error is not None
    assert result.error.code == Code.SIDE_EFFECT_NOT_DECLARED
    assert world.arrived == []
    sound(plan, store, run_id)


def test_a_reconcile_function_that_cannot_tell_fails_the_attempt_and_sends_nothing(store, world):
    async def fails(ctx: Any, io: Any, effect: machine.UncertainEffect) -> Any:
        return None

    plan = pay("reconcile", reconcile=fails)
    run_id = crashed(plan, store, world, "after")
    result = machine.resume(run_id, plan=plan, store=store, transports={"world": world})

    assert result.error is not None
    assert result.error.code == Code.INVALID_EFFECT_OUTCOME
    assert world.arrived == ["k"]


@pytest.mark.parametrize(
    "options",
    [{"on_uncertain": "reconcile"}, {"on_uncertain": "retry", "reconcile": asks}],
    ids=["no function", "no use for it"],
)
def test_reconcile_and_its_function_go_together(options):
    with pytest.raises(MachineError) as failure:
        pay(**options)

    assert failure.value.code == Code.MISSING_RECONCILE


@pytest.mark.parametrize("fact_key", [None, "the.payment"])
def test_ask_suspends_and_an_outcome_goes_on_without_sending_again(store, world, fact_key):
    plan = pay("ask", fact_key=fact_key)
    run_id = crashed(plan, store, world, "after")

    suspended = machine.resume(run_id, plan=plan, store=store, transports={"world": world})
    assert suspended.status == "suspended"
    (wait,) = suspended.waits
    assert isinstance(wait, EffectWait)
    assert machine.resume(run_id, plan=plan, store=store).head_seq == suspended.head_seq
    sound(plan, store, run_id)

    assert machine.resolve(run_id, wait.key, store=store, outcome={"number": 1}) == ()
    sound(plan, store, run_id)
    result = machine.resume(run_id, plan=plan, store=store, transports={"world": world})

    assert result.context == {"receipt": {"number": 1}}
    assert world.arrived == ["k"]
    assert len(events_of(store, run_id, RunSuspended)) == len(events_of(store, run_id, RunResumed)) == 1
    sound(plan, store, run_id)


@pytest.mark.parametrize("fact_key", [None, "the.payment"])
def test_ask_and_not_done_sends_it(store, world, fact_key):
    plan = pay("ask", fact_key=fact_key)
    run_id = crashed(plan, store, world, "before")
    (wait,) = machine.resume(run_id, plan=plan, store=store, transports={"world": world}).waits

    machine.resolve(run_id, wait.key, store=store, not_done=True)
    result = machine.resume(run_id, plan=plan, store=store, transports={"world": world})

    assert result.context == {"receipt": {"number": 1}}
    assert world.arrived == ["k"]
    sound(plan, store, run_id)


def test_a_resolve_that_answers_nothing_is_refused_and_writes_nothing(store, world):
    plan = pay("ask")
    run_id = crashed(plan, store, world, "after")
    (wait,) = machine.resume(run_id, plan=plan, store=store, transports={"world": world}).waits
    head = store.head(run_id)

    for key in ("another", "", f"{wait.key}0"):
        with pytest.raises(RunError) as failure:
            machine.resolve(run_id, key, store=store, not_done=True)
        assert failure.value.code == Code.EFFECT_NOT_UNCERTAIN
    with pytest.raises(UsageError):
        machine.resolve(run_id, wait.key, store=store)
    with pytest.raises(UsageError):
        machine.resolve(run_id, wait.key, store=store, outcome={}, not_done=True)
    with pytest.raises(UsageError) as unfit:
        machine.resolve(run_id, wait.key, store=store, outcome=float("nan"))
    assert unfit.value.code == Code.INVALID_EFFECT_OUTCOME
    assert store.head(run_id) == head

    machine.resolve(run_id, wait.key[:12], store=store, outcome={"number": 1})
    with pytest.raises(RunError) as twice:
        machine.resolve(run_id, wait.key, store=store, outcome={"number": 1})
    assert twice.value.code == Code.EFFECT_NOT_UNCERTAIN
    assert store.head_seq(run_id) == head.seq + 1


def test_a_resolve_of_a_finished_run_is_refused(store, world):
    run_id = machine.run(pay("ask"), store=store, transports={"world": world}).run_id
    (intent,) = events_of(store, run_id, EffectIntended)

    with pytest.raises(RunError) as failure:
        machine.resolve(run_id, intent.key, store=store, not_done=True)

    assert failure.value.code == Code.EFFECT_NOT_UNCERTAIN


def test_a_suspended_run_can_be_cancelled(store, world):
    plan = pay("ask")
    run_id = crashed(plan, store, world, "after")
    machine.resume(run_id, plan=plan, store=store, transports={"world": world})

    cancelled = machine.cancel(run_id, store=store)
    assert (cancelled.status, cancelled.waits) == ("cancelled", ())
    assert machine.resume(run_id, plan=plan, store=store).status == "cancelled"
    (intent,) = run_reader.folded(store, run_id)[0].uncertain.values()
    with pytest.raises(RunError, match="is cancelled and waits for nothing"):
        machine.resolve(run_id, intent.key, store=store, not_done=True)
    sound(plan, store, run_id)


@pytest.mark.parametrize(
    "told",
    [{"status": 201, "json": {"id": 1}}, {"json": {"id": 1}}, {"text": '{"id": 1}'}],
)
def test_an_outcome_of_http_needs_no_more_than_what_the_handler_reads(store, told):
    plan = Plan("pay")

    @plan.state("out.pay", side_effects="apply_side_effect", idempotency="k", on_uncertain="ask")
    async def charge(ctx: Any, io: Any, rec: Any) -> None:
        ctx["id"] = (await io.http("POST", "http://pay.test/")).raise_for_status().json()["id"]

    run_id, own = _cut_http(plan, store)
    (wait,) = machine.resume(run_id, plan=plan, store=store, transports=own).waits
    machine.resolve(run_id, wait.key, store=store, outcome=told)

    assert machine.resume(run_id, plan=plan, store=store, transports=own).context == {"id": 1}


def _cut_http(plan: Plan, store: Store) -> tuple[str, dict[str, Any]]:
    class Cut(World):
        def is_effect(self, namespace: str, request: Any) -> bool:
            return True

        def is_certain_effect(self, namespace: str, request: Any) -> bool:
            return False

        async def perform(self, namespace: str, request: Any) -> Any:
            raise KeyboardInterrupt

    run_id, own = str(machine.new_run_id()), {"http": Cut()}
    with pytest.raises(KeyboardInterrupt):
        machine.run(plan, store=store, run_id=run_id, transports=own)
    return run_id, own


def test_another_effect_with_the_same_key_after_a_crash_is_refused_before_it_leaves(store, world):
    plan, euros = Plan("pay"), [5]

    @plan.state("out.pay", side_effects="apply_side_effect", idempotency="k")
    async def charge(ctx: Any, io: Any, rec: Any) -> None:
        await io.call("world", {"apply": True, "euros": euros[0]})

    run_id = crashed(plan, store, world, "after")
    euros[0] = 6
    result = machine.resume(run_id, plan=plan, store=store, transports={"world": world})

    assert result.error is not None
    assert result.error.code == Code.IDEMPOTENCY_KEY_REUSED
    assert world.arrived == ["k"]


def test_what_a_reconcile_found_is_a_fact_of_the_attempt_that_asked(store, world):
    plan = pay("reconcile", reconcile=asks)
    run_id = crashed(plan, store, world, "before")
    machine.resume(run_id, plan=plan, store=store, transports={"world": world})

    asked, settled, sent = events_of(store, run_id, FactRecorded)
    assert asked.key.endswith("/r0")
    assert (settled.made_in, settled.attempt, settled.outcome.error.code) == (0, 1, Code.EFFECT_NOT_DONE)
    assert (sent.made_in, sent.attempt) == (1, 1)
