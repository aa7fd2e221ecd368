"""A run that waits, killed after each of its events: the next driver ends it the same, and sends nothing twice."""

from __future__ import annotations

import pytest

import machine
from machine import DomainEvent, Plan, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.events import FactRecorded
from machine.io.transport import BaseTransport
from machine.stores import MemoryStore

HOUR_MS = 3_600_000
MAIL = [
    ("signal", {"name": "paid", "value": 7}),
    ("answer", {"key": "one", "answer": {"approved": True, "by": "ada"}}),
    ("answer", {"key": "two", "answer": {"approved": False, "by": "bo"}}),
]


class Sent(BaseTransport):
    """A service that makes each effect once for its idempotency key."""

    one_effect_per_key = True

    def __init__(self):
        self.made = {}

    def is_effect(self, namespace, request):
        return True

    def with_idempotency_key(self, namespace, request, key):
        return {**request, "key": key}

    async def perform(self, namespace, request):
        return self.made.setdefault(request["key"], request["to"])


def plan_of(sent):
    plan = Plan("killed", transports={"mail": sent})

    @plan.state("step.pay", side_effects="apply_side_effect", idempotency="pay")
    async def pay(ctx, io, rec):
        await io.now()
        ctx["sent"] = (await io.call("mail", {"to": "ada"})).response
        await rec.emit(DomainEvent("noted", {"n": 1}))
        ctx["by"] = (await io.approval("Go on?", key="one", timeout=10**6)).by
        await rec.emit(DomainEvent("noted", {"n": 2}))
        ctx["paid"] = await io.wait_signal("paid")
        await io.record_value("last", 3)

    @plan.state("step.other")
    def other(ctx, io):
        io.sleep(3600)
        ctx["other"] = io.approval("Or not?", key="two").approved

    @plan.state("step.last", after=[pay, other])
    def last(ctx, io):
        ctx["last"] = str(io.uuid())[8]

    return plan


def post(store, run_id):
    for kind, data in MAIL:
        store.post(run_id, kind, data)


def prefix_of(store, run_id, length, now):
    cut = MemoryStore(clock=lambda: now[0])
    for kind, data in store._contents.artifacts.values():
        cut.put(kind, data)
    cut.append(run_id, 0, list(store.read_range(run_id, 1, length)))
    return cut


def ended(plan, store, run_id, now):
    for _ in range(9):
        now[0] += HOUR_MS
        result = machine.resume(run_id, plan=plan, store=store)
        if result.status != "suspended":
            break
    return result


@pytest.mark.slow
@pytest.mark.parametrize("at", ["end", "once"])
@pytest.mark.parametrize("config", [RunConfig(), RunConfig(execution_mode=FanOutJoin(2))], ids=["one", "two"])
def test_killed_after_each_event_a_run_that_waits_ends_the_same(config, at):
    now = [1000]
    with MemoryStore(clock=lambda: now[0]) as store:
        sent = Sent()
        plan = plan_of(sent)
        result = machine.run(plan, store=store, config=config)
        run_id = result.run_id
        if at == "once":
            post(store, run_id)
        else:
            for kind, data in MAIL:
                store.post(run_id, kind, data)
                result = machine.resume(run_id, plan=plan, store=store)
        result = ended(plan, store, run_id, now)
        assert (result.status, result.error) == ("completed", None)
        assert machine.replay(run_id, plan=plan, store=store).identical
        for length in range(1, result.head_seq):
            sent = Sent()
            plan = plan_of(sent)
            with prefix_of(store, run_id, length, now) as cut:
                post(cut, run_id)
                again = ended(plan, cut, run_id, now)
                assert (again.status, again.error) == ("completed", None), length
                assert again.context == result.context
                assert len(sent.made) <= 1
                found = machine.replay(run_id, plan=plan, store=cut)
                assert found.identical, (length, found.divergence)
                assert found.digest == again.digest
                facts = [entry.event for entry, _ in run_reader.entries(cut, run_id)]
                answered = [
                    fact.key
                    for fact in facts
                    if isinstance(fact, FactRecorded) and fact.namespace.startswith("wait.")
                ]
                assert len(answered) == len(set(answered)) == 4
