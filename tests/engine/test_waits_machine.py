"""Random plans of waits, answered in any order at any time, whose drivers are killed: only the answers decide."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
import pytest
from campaign import FULL
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import machine
from machine import DomainEvent, Plan, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.events import FactRecorded
from machine.io import parked_tasks
from machine.io.transport import BaseTransport
from machine.stores import MemoryStore

HOUR_MS = 3_600_000
KEYS = ["a", "b", "c", "d"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(KEYS)),
        st.tuples(st.just("both"), st.permutations(KEYS).map(lambda keys: tuple(keys[:2]))),
        st.tuples(st.just("hear"), st.sampled_from(KEYS)),
        st.tuples(st.just("sleep"), st.integers(1, 3)),
        st.tuples(st.just("send"), st.integers(0, 2)),
        st.tuples(st.just("note"), st.integers(0, 2)),
        st.tuples(st.just("call"), st.integers(0, 2)),
    ),
    min_size=1,
    max_size=4,
)


class Receiver(BaseTransport):
    """A service that counts the calls it was sent, by their text and key."""

    def __init__(self, *, effect: bool) -> None:
        self.effect = effect
        self.sent: list[Any] = []

    def is_effect(self, namespace: str, request: Any) -> bool:
        return self.effect

    async def perform(self, namespace: str, request: Any) -> Any:
        self.sent.append(request["text"])
        return request


def plan_of(programs: list[list[Any]], sent: Receiver, *, concurrent: bool) -> Plan:
    plan = Plan("random", transports={"mail": sent, "read": Receiver(effect=False)})
    before: list[Any] = []
    for number, program in enumerate(programs):

        async def handler(ctx, io, rec, number=number, program=program):
            found = []
            for place, (kind, what) in enumerate(program):
                name = f"{number}.{place}"
                if kind == "ask":
                    found.append((await io.approval("?", key=f"{what}{number}")).value)
                elif kind == "both":
                    decisions = await asyncio.gather(
                        *(io.approval("?", key=f"{key}{number}") for key in what)
                    )
                    found.append([decision.value for decision in decisions])
                elif kind == "hear":
                    found.append(await io.wait_signal(f"{what}{number}", key=f"heard/{what}{number}"))
                elif kind == "sleep":
                    await io.sleep(what * 3600)
                elif kind == "send":
                    found.append((await io.call("mail", {"text": name})).response["text"])
                elif kind == "note":
                    await rec.emit(DomainEvent("noted", {"at": name}))
                else:
                    found.append((await io.call("read", {"text": name})).response["text"])
            ctx[f"s{number}"] = found

        options = {"side_effects": "apply_side_effect", "idempotency": f"k{number}"}
        handler = plan.state(f"step.s{number}", after=[] if concurrent else before, **options)(handler)
        before = [handler]
    return plan


class Waits(RuleBasedStateMachine):
    """A run of a random plan."""

    @initialize(programs=st.lists(STEPS, min_size=1, max_size=2), concurrent=st.booleans())
    def begin(self, programs, concurrent):
        self.grace, parked_tasks.WAIT_GRACE = parked_tasks.WAIT_GRACE, 0.03
        self.look, parked_tasks._LOOK_SECONDS = parked_tasks._LOOK_SECONDS, 0.005
        self.now = [HOUR_MS]
        self.programs = programs
        self.said: dict[tuple[str, str], Any] = {}
        self.sent = Receiver(effect=True)
        self.plan = plan_of(programs, self.sent, concurrent=concurrent)
        self.store = MemoryStore(clock=lambda: self.now[0])
        config = RunConfig(execution_mode=FanOutJoin(2)) if concurrent else RunConfig()
        self.result = machine.run(self.plan, store=self.store, config=config)
        self.run_id = self.result.run_id

    def post(self, kind, name, value):
        if self.result.status != "suspended":
            return
        key = {"answer": name, "signal": name}[kind]
        self.said.setdefault((kind, key), value)
        data = (
            {"key": name, "answer": {"approved": True, "value": value}}
            if kind == "answer"
            else {"name": name, "value": value}
        )
        self.store.post(self.run_id, kind, data)

    @rule(key=st.sampled_from(KEYS), number=st.integers(0, 1), value=st.integers(0, 9))
    def answer(self, key, number, value):
        self.post("answer", f"{key}{number}", value)

    @rule(key=st.sampled_from(KEYS), number=st.integers(0, 1), value=st.integers(0, 9))
    def signal(self, key, number, value):
        self.post("signal", f"{key}{number}", value)

    @rule(hours=st.integers(-1, 3))
    def move_the_clock(self, hours):
        self.now[0] = max(self.now[0] + hours * HOUR_MS, 1)

    @rule(killed=st.none() | st.integers(1, 9))
    def drive(self, killed):
        before = self.store.head_seq(self.run_id)
        self.result = machine.resume(self.run_id, plan=self.plan, store=self.store)
        head = self.store.head_seq(self.run_id)
        if killed is not None and head > before:
            self.cut(before + killed % (head - before))
            self.result = machine.resume(self.run_id, plan=self.plan, store=self.store)

    def cut(self, length):
        """Go on with what the store had after an event, as after a crash there."""
        cut = MemoryStore(clock=lambda: self.now[0])
        for kind, data in self.store._contents.artifacts.values():
            cut.put(kind, data)
        cut.append(self.run_id, 0, list(self.store.read_range(self.run_id, 1, length)))
        cut._contents.inboxes = self.store._contents.inboxes
        self.store = cut

    def teardown(self):
        if not hasattr(self, "store"):
            return
        try:
            self.end()
        finally:
            parked_tasks.WAIT_GRACE, parked_tasks._LOOK_SECONDS = self.grace, self.look

    def end(self):
        for number in range(len(self.programs)):
            for key in KEYS:
                for kind in ("answer", "signal"):
                    if (kind, f"{key}{number}") not in self.said:
                        self.post(kind, f"{key}{number}", 5)
        for _ in range(20):
            if self.result.status != "suspended":
                break
            self.now[0] += 4 * HOUR_MS
            self.result = machine.resume(self.run_id, plan=self.plan, store=self.store)
        assert (self.result.status, self.result.error) == ("completed", None)
        assert self.result.context == self.expected()
        replayed = machine.replay(self.run_id, plan=self.plan, store=self.store)
        assert replayed.identical, replayed.divergence
        assert (replayed.digest, replayed.events) == (self.result.digest, self.result.head_seq)
        facts = [entry.event for entry, _ in run_reader.entries(self.store, self.run_id)]
        keys = [
            fact.key
            for fact in facts
            if isinstance(fact, FactRecorded) and fact.namespace.startswith("wait.")
        ]
        assert len(keys) == len(set(keys))

    def expected(self):
        """Return the context that the answers determine: the first to each wait."""

        def given(kind, name):
            return self.said[kind, name]

        context = {}
        for number, program in enumerate(self.programs):
            found = []
            for place, (kind, what) in enumerate(program):
                if kind == "ask":
                    found.append(given("answer", f"{what}{number}"))
                elif kind == "both":
                    found.append([given("answer", f"{key}{number}") for key in what])
                elif kind == "hear":
                    found.append(given("signal", f"{what}{number}"))
                elif kind in {"send", "call"}:
                    found.append(f"{number}.{place}")
            context[f"s{number}"] = found
        return context


TestWaits = pytest.mark.slow(Waits.TestCase)
TestWaits.settings = settings(
    max_examples=600 if FULL else 25, stateful_step_count=10, deadline=None, derandomize=not FULL
)
