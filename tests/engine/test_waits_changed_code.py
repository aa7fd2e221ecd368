"""Code that changes while a run waits: found before anything is written, and gone on with only on demand."""

from __future__ import annotations

import pytest

import machine
from machine import Plan, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import Code, RunError
from machine.events import EffectIntended, FactRecorded, RunResumed, StateEntered
from machine.io.transport import BaseTransport
from machine.stores import MemoryStore

YES = {"approved": True, "by": "ada"}


class Sent(BaseTransport):
    """A service that counts what it was sent."""

    def __init__(self):
        self.sent = []

    def is_effect(self, namespace, request):
        return True

    async def perform(self, namespace, request):
        self.sent.append(request)
        return len(self.sent)


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


@pytest.fixture(params=[None, 2], ids=["sequential", "concurrent"])
def config(request):
    return RunConfig() if request.param is None else RunConfig(execution_mode=FanOutJoin(request.param))


def plan_of(sent, *, first="first", more=0, version="1"):
    plan = Plan("changed", version=version, transports={"mail": sent})

    @plan.state("step.pay", side_effects="apply_side_effect", idempotency="key")
    async def pay(ctx, io, rec):
        ctx["sent"] = (await io.call("mail", {"to": first})).response
        await rec.emit(machine.DomainEvent("noted", {"to": first}))
        for _ in range(more):
            await io.now()
        ctx["by"] = (await io.approval("Go on?", key="go")).by
        ctx["then"] = (await io.call("mail", {"to": "last"})).response

    return plan


def waiting(store, sent, config=None):
    result = machine.run(plan_of(sent), store=store, config=config)
    assert (result.status, len(sent.sent)) == ("suspended", 1)
    return result


def bodies(store, run_id):
    return [entry.body for entry, _ in run_reader.entries(store, run_id)]


CHANGES = {"another request": {"first": "other"}, "a call before it": {"more": 1}}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_code_is_found_before_anything_is_written(store, config, change):
    sent = Sent()
    result = waiting(store, sent, config)
    before = bodies(store, result.run_id)
    changed = plan_of(sent, **CHANGES[change])
    assert machine.resume(result.run_id, plan=changed, store=store).status == "suspended"
    store.post(result.run_id, "answer", {"key": "go", "answer": YES})
    with pytest.raises(RunError) as refused:
        machine.resume(result.run_id, plan=changed, store=store)
    assert refused.value.code == Code.SUSPENDED_CODE_CHANGED
    assert refused.value.info.details["divergence"]["state_id"] == "changed.step.pay"
    assert (bodies(store, result.run_id), len(sent.sent)) == (before, 1)
    result = machine.resume(result.run_id, plan=plan_of(sent), store=store)
    assert result.context == {"sent": 1, "by": "ada", "then": 2}
    assert machine.replay(result.run_id, plan=plan_of(sent), store=store).identical


def test_an_allowed_change_begins_the_attempt_anew_on_its_answers_and_effects(store, config):
    sent = Sent()
    result = waiting(store, sent, config)
    store.post(result.run_id, "answer", {"key": "go", "answer": YES})
    changed = plan_of(sent, more=2)
    result = machine.resume(result.run_id, plan=changed, store=store, allow_code_change=True)
    assert result.context == {"sent": 1, "by": "ada", "then": 2}
    found = [entry.event for entry, _ in run_reader.entries(store, result.run_id)]
    assert [event.attempt for event in found if isinstance(event, StateEntered)] == [0, 1]
    assert len([event for event in found if isinstance(event, EffectIntended)]) == 2
    assert "code_change" in [event.by for event in found if isinstance(event, RunResumed)]
    replayed = machine.replay(result.run_id, plan=changed, store=store)
    assert replayed.identical, replayed.divergence
    assert (replayed.digest, replayed.events) == (result.digest, result.head_seq)


@pytest.mark.parametrize(
    ("change", "allowed"),
    [({"version": "2"}, "allow_plan_change"), ({"more": 2}, "allow_code_change")],
    ids=["plan", "code"],
)
def test_a_change_that_is_allowed_before_there_is_an_answer_stays_allowed(store, config, change, allowed):
    sent = Sent()
    result = waiting(store, sent, config)
    changed = plan_of(sent, **change)
    result = machine.resume(result.run_id, plan=changed, store=store, **{allowed: True})
    assert (result.status, [wait.key for wait in result.waits]) == ("suspended", ["go"])
    store.post(result.run_id, "answer", {"key": "go", "answer": YES})
    result = machine.resume(result.run_id, plan=changed, store=store)
    assert result.context == {"sent": 1, "by": "ada", "then": 2}
    replayed = machine.replay(result.run_id, plan=changed, store=store)
    assert replayed.identical, replayed.divergence


def test_an_allowed_change_of_code_that_has_not_changed_writes_nothing(store, config):
    sent = Sent()
    result = waiting(store, sent, config)
    before = bodies(store, result.run_id)
    same = plan_of(sent)
    machine.resume(result.run_id, plan=same, store=store, allow_code_change=True)
    assert (bodies(store, result.run_id), len(sent.sent)) == (before, 1)


def test_a_handler_that_is_not_deterministic_fails_with_its_own_code(store):
    seen = []
    plan = Plan("changed")

    @plan.state("step.flip")
    async def flip(ctx, io):
        seen.append(1)
        if len(seen) > 1:
            await io.uuid()
        ctx["by"] = (await io.approval("Go on?", key="go")).by

    result = machine.run(plan, store=store, answers={"go": True})
    assert (result.status, result.error.code) == ("failed", Code.SUSPENDED_CODE_CHANGED)


def test_code_after_the_wait_may_change_at_will(store):
    sent = Sent()
    result = waiting(store, sent)
    store.post(result.run_id, "answer", {"key": "go", "answer": YES})
    plan = Plan("changed", transports={"mail": sent})

    @plan.state("step.pay", side_effects="apply_side_effect", idempotency="key")
    async def pay(ctx, io, rec):
        ctx["sent"] = (await io.call("mail", {"to": "first"})).response
        await rec.emit(machine.DomainEvent("noted", {"to": "first"}))
        ctx["by"] = (await io.approval("Go on?", key="go")).by
        ctx["id"] = str(await io.uuid())

    result = machine.resume(result.run_id, plan=plan, store=store)
    assert (result.status, len(sent.sent)) == ("completed", 1)
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def test_a_change_is_allowed_where_every_wait_is_answered_and_the_run_is_not_suspended(store, config):
    sent = Sent()
    plan = plan_of(sent)
    result = machine.run(plan, store=store, config=config, answers={"go": YES})
    entries = [entry for entry, _ in run_reader.entries(store, result.run_id)]
    answered = next(
        entry.seq for entry in entries if getattr(entry.event, "namespace", "") == "wait.approval"
    )
    answered = next(
        entry.seq for entry in entries if entry.seq > answered and isinstance(entry.event, FactRecorded)
    )
    cut = MemoryStore()
    for kind, data in store._contents.artifacts.values():
        cut.put(kind, data)
    cut.append(result.run_id, 0, list(store.read_range(result.run_id, 1, answered)))
    changed = plan_of(sent, more=1)
    with pytest.raises(RunError) as refused:
        machine.resume(result.run_id, plan=changed, store=cut)
    assert refused.value.code == Code.SUSPENDED_CODE_CHANGED
    again = machine.resume(result.run_id, plan=changed, store=cut, allow_code_change=True)
    assert (again.status, again.context["by"]) == ("completed", "ada")
    replayed = machine.replay(result.run_id, plan=changed, store=cut)
    assert replayed.identical, replayed.divergence
    assert machine.verify(result.run_id, store=cut).ok
