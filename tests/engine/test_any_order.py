"""Runs start, crash, are resumed, cancelled, resolved and fought over in any order; what is promised holds."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from campaign import FULL
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

import machine
from machine import MachineError, Plan
from machine.engine import run_reader
from machine.errors import Code, ConcurrencyError, OtherStoreError, RunError, StoreError
from machine.io.transport import BaseTransport
from machine.kernel.run_status import FINAL_STATUSES, RunStatus
from machine.recordings.bundle import store_recording
from machine.recordings.run_contents import gather
from machine.stores import MemoryStore
from machine.stores.lease import owner_here
from machine.waits import EffectWait

KEY, TOKEN = "k-4f9a8e7d6c5b4a39", "tok-9f8e7d6c5b4a"
CONTEXT = {"read": 1, "retry": {"sent": "retry"}, "reconcile": {"sent": "reconcile"}, "ask": {"sent": "ask"}}


@pytest.fixture(autouse=True)
def order_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDER_KEY", KEY)


class PowerCut(KeyboardInterrupt):
    """The process is gone."""


class FaultyStore(MemoryStore):
    """A store whose next append may fail, before or after it was done, or end the process."""

    fault: str | None = None
    dead = False
    """True when the process is gone: nothing it does any more reaches the disk."""

    def append(self, *args: Any, **more: Any) -> None:
        if self.dead:
            raise PowerCut
        fault, self.fault = self.fault, None
        if fault == "full":
            raise OtherStoreError("no space left", code=Code.STORE_FULL)
        if fault == "cut before":
            self.die()
        super().append(*args, **more)
        if fault == "cut after":
            self.die()

    def die(self) -> None:
        self.dead = True
        raise PowerCut


class World(BaseTransport):
    """A receiver that deduplicates by run and key, in front of which the power may fail."""

    one_effect_per_key = True

    def __init__(self, store: FaultyStore) -> None:
        self.store = store
        self.run_id = ""
        self.applied: dict[tuple[str, str], int] = {}
        self.fault: str | None = None

    def is_effect(self, namespace: str, request: Any) -> bool:
        return "send" in request

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:
        return {**request, "key": key}

    async def perform(self, namespace: str, request: Any) -> Any:
        fault = None
        if self.fault is not None and self.fault.endswith(
            request.get("send", "look" if "ask" in request else "read")
        ):
            fault, self.fault = self.fault.rpartition(" ")[0], None
        if fault == "cut before":
            self.store.die()
        if fault == "error":
            raise machine.errors.OtherIoError("no answer", retryable=True)
        if "login" in request:
            assert request["login"] == KEY
            return {"access_token": TOKEN}
        if "headers" in request:
            assert request["headers"] == {"authorization": f"Bearer {TOKEN}"}
        if "send" not in request:
            return (
                1
                if "ask" not in request
                else [self.run_id, request["ask"]] in [list(k) for k in self.applied]
            )
        if request["send"] == "retry":  # the receiver tells repetitions by the key
            self.applied[self.run_id, request["key"]] = 1
        else:  # this one does not: it applies what arrives
            key = (self.run_id, request["key"])
            self.applied[key] = self.applied.get(key, 0) + 1
        if fault == "cut after":
            self.store.die()
        return {"sent": request["send"]}


async def authorized(io: Any) -> dict[str, str]:
    answer = (await io.call("world", {"login": await io.secret("ORDER_KEY")})).response
    return {"authorization": f"Bearer {answer['access_token']}"}


async def look(ctx: Any, io: Any, effect: machine.UncertainEffect) -> Any:
    asked = {"ask": effect.idempotency_key, "headers": await authorized(io)}
    there = (await io.call("world", asked)).response
    return effect.happened({"sent": effect.request["send"]}) if there else effect.not_done()


def story(*, timeout: float | None = None) -> Plan:
    plan = Plan("op")
    retry = machine.RetryPolicy(5)

    @plan.state("step.read", retry=retry, timeout=timeout)
    async def read(ctx: Any, io: Any, rec: Any) -> None:
        await io.now()
        ctx["read"] = (await io.call("world", {"headers": await authorized(io)})).response

    before: Any = read
    for how in ("retry", "reconcile", "ask"):

        async def send(ctx: Any, io: Any, rec: Any, how: str = how) -> None:
            sent = {"send": how, "headers": await authorized(io)}
            ctx[how] = (await io.call("world", sent)).response

        before = plan.state(
            f"step.{how}",
            after=[before],
            retry=retry,
            side_effects="apply_side_effect",
            idempotency=how,
            on_uncertain=how,
            reconcile=look if how == "reconcile" else None,
        )(send)
    return plan


FAULTS = st.sampled_from(
    [
        None,
        "store full",
        "store cut before",
        "store cut after",
        *(
            f"world {what} {where}"
            for what in ("error", "cut before", "cut after")
            for where in ("read", "retry", "reconcile", "look", "ask")
        ),
    ]
)


class AnyOrder(RuleBasedStateMachine):
    """What a user, a crash and another process may do to the runs of one store."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.store, self.plan = FaultyStore(), story()
        self.world = World(self.store)
        self.logs: dict[str, list[bytes]] = {}
        self.statuses: dict[str, str] = {}

    def teardown(self) -> None:
        self.store.close()

    # -- what may happen -------------------------------------------------------------------------------------

    def drive(self, run_id: str, fault: str | None, work: Any) -> Any:
        self.world.run_id, self.store.fault, self.world.fault = run_id, None, None
        if fault is not None:
            where, _, what = fault.partition(" ")
            (self.store if where == "store" else self.world).fault = what
        result = None
        with contextlib.suppress(PowerCut, StoreError):
            result = work()
        self.store.dead, self.store.fault, self.world.fault = False, None, None
        return result

    @rule(target=runs, fault=FAULTS, key=st.none() | st.sampled_from(["k1", "k2"]))
    def start(self, fault: str | None, key: str | None) -> Any:
        if key is not None and self.store.find_invocation(key) is not None:
            again = self.store.find_invocation(key)
            found = self.drive(
                again,
                fault,
                lambda: machine.run(self.plan, store=self.store, invocation_key=key, transports=self.doors),
            )
            assert found is None or found.run_id == again
            return multiple()
        run_id = str(machine.new_run_id())
        self.drive(
            run_id,
            fault,
            lambda: machine.run(
                self.plan, store=self.store, run_id=run_id, invocation_key=key, transports=self.doors
            ),
        )
        return run_id if self.store.run_exists(run_id) else multiple()

    @property
    def doors(self) -> dict[str, Any]:
        return {"world": self.world}

    @rule(run_id=runs, fault=FAULTS)
    def resume(self, run_id: str, fault: str | None) -> None:
        before, head = self.statuses.get(run_id), self.store.head(run_id)
        result = self.drive(
            run_id,
            fault,
            lambda: machine.resume(run_id, plan=self.plan, store=self.store, transports=self.doors),
        )
        if before in FINAL_STATUSES:
            assert self.store.head(run_id) == head
        elif fault is None and result is not None:
            assert result.status in {"completed", "suspended", "failed"}

    @rule(run_id=runs)
    def cancel(self, run_id: str) -> None:
        head = self.store.head(run_id)
        if self.statuses.get(run_id) in FINAL_STATUSES:
            with pytest.raises(RunError) as failure:
                machine.cancel(run_id, store=self.store)
            assert failure.value.code == Code.INVALID_TRANSITION
            assert self.store.head(run_id) == head
        else:
            assert machine.cancel(run_id, store=self.store).status == "cancelled"

    @rule(run_id=runs)
    def resolve(self, run_id: str) -> None:
        history, _ = run_reader.folded(self.store, run_id)
        for wait in history.unanswered:
            assert isinstance(wait, EffectWait)
            if (run_id, "ask") in self.world.applied:
                machine.resolve(run_id, wait.key, store=self.store, outcome={"sent": "ask"})
            else:
                machine.resolve(run_id, wait.key, store=self.store, not_done=True)
        head = self.store.head(run_id)
        with pytest.raises(RunError) as failure:
            machine.resolve(run_id, "@op.step.ask", store=self.store, not_done=True)
        assert failure.value.code == Code.EFFECT_NOT_UNCERTAIN
        assert self.store.head(run_id) == head

    @rule(run_id=runs)
    def a_second_driver(self, run_id: str) -> None:
        if self.statuses.get(run_id) in FINAL_STATUSES:
            return
        lease, head = self.store.acquire(run_id, owner_here(), 60_000), self.store.head(run_id)
        with pytest.raises(ConcurrencyError) as failure:
            machine.resume(run_id, plan=self.plan, store=self.store, transports=self.doors)
        assert failure.value.code == Code.RUN_LEASED
        self.store.release(lease)
        with pytest.raises(ConcurrencyError):
            self.store.append(run_id, head.seq, [], lease=lease)
        assert self.store.head(run_id) == head

    @rule(run_id=runs)
    def another_plan(self, run_id: str) -> None:
        head = self.store.head(run_id)
        with pytest.raises(MachineError) as failure:
            machine.resume(run_id, plan=story(timeout=7), store=self.store, transports=self.doors)
        assert failure.value.code == Code.PLAN_CHANGED
        assert self.store.head(run_id) == head

    # -- what holds ------------------------------------------------------------------------------------------

    @invariant()
    def every_effect_happened_at_most_once(self) -> None:
        assert set(self.world.applied.values()) <= {1}

    @invariant()
    def every_run_is_sound_and_replays(self) -> None:
        for row in self.store.list_runs(limit=1000).rows:
            log = [event.data for event in self.store.read_range(row.run_id)]
            known = self.logs.get(row.run_id, [])
            if log == known:
                continue
            assert log[: len(known)] == known, "what was durable is lost or changed"
            history, _ = run_reader.folded(self.store, row.run_id)
            before = self.statuses.get(row.run_id, "pending")
            assert before not in FINAL_STATUSES, "a run that had ended went on"
            self.logs[row.run_id], self.statuses[row.run_id] = log, history.status.value
            assert machine.verify(row.run_id, store=self.store).problems == ()
            sent = dict(self.world.applied)
            replayed = machine.replay(row.run_id, plan=self.plan, store=self.store, transports=self.doors)
            assert replayed.divergence is None
            assert self.world.applied == sent
            recording = gather(run_reader.entries(self.store, row.run_id), self.store.get)
            held = [data for _, data in recording.artifacts.values()]
            data = b"".join([*(event.data for event in recording.log), *held])
            assert KEY.encode() not in data
            assert TOKEN.encode() not in data
            if history.status is RunStatus.COMPLETED:
                with MemoryStore() as elsewhere:
                    store_recording(recording, store=elsewhere, path="there")
                    replayed = machine.replay(row.run_id, plan=self.plan, store=elsewhere)
                assert (replayed.divergence, replayed.secrets) == (None, "placeholders")
                result = machine.resume(row.run_id, plan=self.plan, store=self.store)
                assert result.context == CONTEXT
                assert all((row.run_id, key) in self.world.applied for key in ("retry", "reconcile", "ask"))


AnyOrder.TestCase.settings = settings(
    deadline=None,
    max_examples=120 if FULL else 30,
    stateful_step_count=25,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
test_any_order_of_events_keeps_what_is_promised = pytest.mark.slow(AnyOrder.TestCase)


@pytest.mark.parametrize("what", ["cut before", "cut after"])
@pytest.mark.parametrize(
    "where", ["store", *(f"world {name}" for name in ("retry", "reconcile", "look", "ask"))]
)
def test_a_crash_at_an_effect_and_a_truthful_operator_bring_a_run_to_its_end(where, what):
    place, _, call = where.partition(" ")
    world = AnyOrder()
    run_id = world.start(None if place == "store" else f"world {what} {call}".strip(), None)
    fault: str | None = f"store {what}"
    while not isinstance(run_id, str):
        run_id = world.start(fault, None)
        fault = None
    for fault in (
        f"{place} {what} {call}".strip(),
        "world cut after reconcile",
        "world cut after look",
        None,
        None,
        None,
    ):
        world.resume(run_id, fault)
        world.every_run_is_sound_and_replays()
        world.resolve(run_id)
        world.every_effect_happened_at_most_once()
        world.every_run_is_sound_and_replays()
    assert world.statuses[run_id] == "completed"
    world.teardown()
