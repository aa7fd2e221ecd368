"""Recordings of runs that wait: forked, compared, used as answers, shown, and run dry, with nobody there."""

from __future__ import annotations

import itertools

import pytest

import machine
from machine import Plan, RunConfig
from machine.config import FanOutJoin, IoMode
from machine.engine import run_reader
from machine.engine.recorded_answers import FactsFrom
from machine.events import FactRecorded, WaitBegun
from machine.stores import MemoryStore


@pytest.fixture
def store():
    days = itertools.count(10**13, 10**8)
    with MemoryStore(clock=lambda: next(days)) as opened:
        yield opened


@pytest.fixture(params=[None, 2], ids=["sequential", "concurrent"])
def config(request):
    return RunConfig() if request.param is None else RunConfig(execution_mode=FanOutJoin(request.param))


def plan_of(word="Go on?"):
    plan = Plan("waits")

    @plan.state("step.ask")
    async def ask(ctx, io):
        ctx["id"] = str(await io.uuid())
        ctx["by"] = (await io.approval(word, key="one")).by
        ctx["again"] = str(await io.uuid())

    @plan.state("step.wait", after=[ask])
    def wait(ctx, io):
        io.sleep(86400)
        ctx["paid"] = io.wait_signal("paid")

    return plan


def answered(store, run_id, plan):
    store.post(run_id, "answer", {"key": "one", "answer": {"approved": True, "by": "ada"}})
    store.post(run_id, "signal", {"name": "paid", "value": 7})
    for _ in range(9):
        result = machine.resume(run_id, plan=plan, store=store)
        if result.status != "suspended":
            break
    assert (result.status, result.error) == ("completed", None)
    return result


@pytest.fixture
def recorded(store, config):
    plan = plan_of()
    result = machine.run(plan, store=store, config=config)
    return answered(store, result.run_id, plan)


def test_a_fork_before_or_after_any_answer_goes_on_from_there(store, recorded):
    plan = plan_of()
    by_id = set()
    for at in range(1, recorded.head_seq):
        fork = machine.fork(recorded.run_id, plan=plan, store=store, at=at)
        result = fork.result
        if result.status == "suspended":
            result = answered(store, fork.run_id, plan)
        assert (result.status, result.context["by"], result.context["paid"]) == ("completed", "ada", 7), at
        by_id.add(result.context["id"])
        found = machine.replay(fork.run_id, plan=plan, store=store)
        assert found.identical, (at, found.divergence)
        assert found.digest == result.digest
    assert recorded.context["id"] in by_id


def test_a_fork_of_a_suspended_run_takes_its_open_waits_over(store, config):
    plan = plan_of()
    result = machine.run(plan, store=store, config=config)
    fork = machine.fork(result.run_id, plan=plan, store=store, at=result.head_seq).result
    assert (fork.status, fork.waits) == ("suspended", result.waits)
    ended = answered(store, fork.run_id, plan)
    assert ended.context["by"] == "ada"
    assert machine.resume(result.run_id, plan=plan, store=store).status == "suspended"


def test_a_fork_with_another_answer_needs_nobody(store, recorded):
    plan = plan_of()
    fork = machine.fork(
        recorded.run_id,
        plan=plan,
        store=store,
        at=recorded.head_seq,
        set_facts={"one": {"approved": False, "by": "bo", "comment": None, "value": None, "at_ms": 0}},
    )
    assert fork.result.status == "completed"
    assert (fork.result.context["by"], fork.result.context["paid"]) == ("bo", 7)
    assert machine.replay(fork.run_id, plan=plan, store=store).identical


def test_recorded_answers_answer_waits(store, recorded):
    plan = plan_of()
    result = machine.run(plan, store=store, facts_from=recorded.run_id)
    assert (result.status, result.context) == ("completed", recorded.context)
    assert machine.replay(result.run_id, plan=plan, store=store).identical
    shut = machine.run(plan, store=store, facts_from=recorded.run_id, config=RunConfig(io_mode=IoMode.REPLAY))
    assert shut.context == recorded.context


def test_a_wait_that_a_recording_has_no_answer_to_is_missing_where_nothing_may_go_outside(store, recorded):
    plan = plan_of("Another question?")
    result = machine.run(plan, store=store, facts_from=FactsFrom(recorded.run_id, shut=True, kept=False))
    assert (result.status, result.error.code) == ("failed", "missing_fact")
    assert machine.replay(result.run_id, plan=plan, store=store).identical
    live = machine.run(plan, store=store, facts_from=recorded.run_id)
    assert live.status == "suspended"


def test_changed_code_is_compared_without_anybody(store, recorded):
    same = machine.compare(recorded.run_id, plan=plan_of(), store=store)
    assert same.identical
    changed = machine.compare(recorded.run_id, plan=plan_of("Another question?"), store=store)
    assert not changed.identical


def test_a_run_that_waits_verifies_and_shows_who_answered(store, recorded):
    assert machine.verify(recorded.run_id, store=store).ok
    (step,) = machine.blame(recorded.run_id, "/by", store=store).steps
    (source,) = [fact for fact in step.facts if fact.found]
    assert (source.key, source.namespace, source.request) == ("one", "wait.approval", {"prompt": "Go on?"})


def test_when_the_answers_came_is_no_difference_and_what_they_are_is(store, recorded, config):
    again = machine.run(plan_of(), store=store, facts_from=recorded.run_id, config=config)
    same = machine.diff_runs(recorded.run_id, again.run_id, store=store)
    assert same.identical
    assert same.first is None
    assert all(state.identical for state in same.states)
    other = machine.fork(
        recorded.run_id,
        plan=plan_of(),
        store=store,
        at=recorded.head_seq,
        set_facts={"one": {"approved": True, "by": "bo"}},
    )
    found = machine.diff_runs(recorded.run_id, other.run_id, store=store)
    assert found.first.type_a == found.first.type_b == "fact_recorded"
    assert not all(state.identical for state in found.states)
    assert not any(state.a.errors or state.b.errors for state in found.states)


def test_a_bundle_of_a_run_that_waits_replays_elsewhere(store, recorded, tmp_path):
    path = tmp_path / "waits.run"
    machine.export_run(recorded.run_id, path, store=store)
    with MemoryStore() as other:
        machine.import_bundle(path, store=other, take_over=True)
        assert machine.replay(recorded.run_id, plan=plan_of(), store=other).identical


def test_a_recording_that_is_suspended_is_replayed_up_to_there(store, config):
    plan = plan_of()
    result = machine.run(plan, store=store, config=config)
    assert machine.replay(result.run_id, plan=plan, store=store).identical
    found = machine.replay(result.run_id, plan=plan_of("Another question?"), store=store)
    assert not found.identical
    assert found.divergence.state_id == "waits.step.ask"


def test_the_answer_to_a_wait_of_a_dry_run_is_known_later_and_can_be_given(store, config):
    plan = plan_of()
    dry = machine.dry_run(plan, store=store, config=config)
    assert dry.result.status == "completed"
    assert machine.replay(dry.result.run_id, plan=plan, store=store).identical
    dry = machine.dry_run(plan, store=store, config=config, clock="skip", answers={"one": True, "paid": 7})
    assert dry.result.status == "completed"


def test_a_paranoid_run_with_answers_in_advance_is_as_deterministic(store):
    result = machine.run(
        plan_of(),
        store=store,
        config=RunConfig(paranoid=True),
        clock="skip",
        answers={"one": True, "paid": 7},
    )
    assert (result.status, result.error) == ("completed", None)


def test_the_recording_has_each_wait_once_and_its_answer_once(store, recorded):
    found = [entry.event for entry, _ in run_reader.entries(store, recorded.run_id)]
    begun = [event.key for event in found if isinstance(event, WaitBegun)]
    facts = [event.key for event in found if isinstance(event, FactRecorded) and "wait" in event.namespace]
    assert sorted(begun) == sorted(facts)
    assert len(begun) == len(set(begun)) == 3
