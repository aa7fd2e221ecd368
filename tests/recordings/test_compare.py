"""Comparing a run with changed code or a changed plan: every state that differs is listed, by its own doing."""

from __future__ import annotations

import json

import pytest

import machine
from machine import Plan, RetryPolicy, compare, run


def plan_of(*, first=1, second=2, third=3, extra=False, without=None):
    plan = Plan("op")

    @plan.state("step.first")
    async def one(ctx, io, rec):
        ctx["first"] = first
        if first == "fails":
            raise ValueError("now")

    last = one
    if without != "second":

        @plan.state("step.second", after=[one])
        async def two(ctx, io, rec):
            for _ in range(second):
                await io.env("A")
            ctx["second"] = ctx["first"]

        last = two

    @plan.state("step.third", after=[last], retry=RetryPolicy(2))
    async def three(ctx, io, rec):
        ctx["third"] = [ctx["first"], third]

    if extra:

        @plan.state("step.extra", after=[three])
        async def four(ctx, io, rec):
            raise AssertionError("a state that was not recorded is not run")

    return plan


def verdicts(result):
    return {state.state_id.rpartition(".")[2]: state.verdict.value for state in result.states}


@pytest.fixture
def run_id(store):
    return run(plan_of(), store=store).run_id


def test_nothing_differs_when_nothing_has_changed(store, run_id):
    result = compare(run_id, plan=plan_of(), store=store)
    assert result.identical
    assert [state.verdict for state in result.states] == ["identical"] * 3
    assert [state.code_changed for state in result.states] == [False] * 3


def test_every_state_that_differs_is_listed_and_no_other(store, run_id):
    result = compare(run_id, plan=plan_of(first=9, third=8), store=store)
    assert verdicts(result) == {"first": "differs", "second": "identical", "third": "differs"}
    assert [state.divergence.kind for state in result.states if state.divergence] == ["snapshot_differs"] * 2
    assert result.states[2].divergence.recorded == {"third": [1, 3]}
    assert result.states[2].divergence.now == {"third": [1, 8]}


def test_what_comes_after_a_state_that_fails_now_is_compared_all_the_same(store, run_id):
    result = compare(run_id, plan=plan_of(first="fails", second=1, third=4), store=store)
    assert verdicts(result) == {"first": "differs", "second": "differs", "third": "differs"}
    kinds = [state.divergence.kind.value for state in result.states]
    assert kinds == ["event_differs", "call_missing", "snapshot_differs"]


def test_a_changed_plan_is_compared_as_far_as_its_states_are_still_there(store, run_id):
    result = compare(run_id, plan=plan_of(third=7, without="second", extra=True), store=store)
    assert not result.identical
    assert verdicts(result) == {
        "first": "identical",
        "second": "removed",
        "third": "differs",
        "extra": "added",
    }
    assert "- state op.step.second" in result.plan_changes
    assert "+ state op.step.extra" in result.plan_changes


def test_a_plan_that_changed_in_nothing_but_its_plan_differs(store, run_id):
    result = compare(run_id, plan=plan_of(extra=True), store=store)
    assert not result.identical
    assert set(verdicts(result).values()) == {"identical", "added"}


def test_a_state_that_a_run_never_came_to_has_nothing_to_compare(store):
    run_id = run(plan_of(first="fails"), store=store).run_id
    result = compare(run_id, plan=plan_of(first="fails", third=9), store=store)
    assert result.identical
    assert verdicts(result) == {"first": "identical", "second": "not_run", "third": "not_run"}


def test_each_attempt_of_a_state_is_compared_and_the_first_difference_is_told(store):
    def plan_with(words):
        plan = Plan("op")

        @plan.state("step.only", retry=RetryPolicy(3))
        async def only(ctx, io, rec):
            raise ValueError(words)

        return plan

    run_id = run(plan_with("one"), store=store).run_id
    result = compare(run_id, plan=plan_with("two"), store=store)
    assert [(state.verdict, state.divergence.attempt) for state in result.states] == [("differs", 0)]


def test_the_result_is_json(store, run_id):
    shown = compare(run_id, plan=plan_of(first=9, extra=True), store=store).to_json()
    assert json.loads(json.dumps(shown)) == shown
    assert [state["verdict"] for state in shown["states"]] == ["differs", "identical", "identical", "added"]


def test_the_plan_of_another_op_is_refused(store, run_id):
    with pytest.raises(machine.errors.PlanError) as caught:
        compare(run_id, plan=Plan("other"), store=store)
    assert caught.value.code in {"op_id_mismatch", "empty_plan"}


def test_damage_is_no_difference_of_a_state(store, run_id):
    contents = store._contents
    log = contents.logs[run_id]
    log[3] = machine.stores.StoredEvent(4, log[3].data.replace(b'"attempt":0', b'"attempt":1'), log[3].chain)
    with pytest.raises(machine.errors.LogError):
        compare(run_id, plan=plan_of(), store=store)
