"""`decide`: what comes next, seen in whole runs simulated without an engine."""

from __future__ import annotations

import copy
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FAST, RUN_CONFIGS, SCRIPTS, error_of, graphs, log_of, plan_of, simulate

from machine.canonical import artifact_id
from machine.config import ExponentialBackoff, FixedBackoff, RetryPolicy, RunConfig
from machine.events import (
    RetryScheduled,
    RunCompleted,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
)
from machine.kernel.decide import decide
from machine.kernel.decisions import (
    CompleteRun,
    Done,
    EnterState,
    RecoverOrphan,
    ScheduleRetry,
    SkipState,
    StartRun,
)
from machine.kernel.history import History, fold
from machine.kernel.run_status import RunStatus

THREE = RunConfig(retry_policy=RetryPolicy(3))
ONE_STATE = plan_of(1, []).graph
STATE = "op.step.s0"
BASE = artifact_id(b"input")


def attempts_of(run, state_id=STATE):
    return [event.attempt for event in run.events(StateEntered) if event.state_id == state_id]


def retried(policy, script, graph=ONE_STATE):
    return simulate(graph, RunConfig(retry_policy=policy), script)


# -- what holds of every run ---------------------------------------------------------------------------------


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS)
def test_the_same_history_always_gets_the_same_decision_and_is_not_changed(graph, config, script):
    run = simulate(graph, config, script)
    history = History()
    for entry in run.entries:
        before = copy.deepcopy(history)
        first, second = decide(graph, config, history), decide(graph, config, fold([], history))
        assert first == second
        assert history == before
        history.advance(entry)
    assert decide(graph, config, history) == Done(history.status) == run.decisions[-1]


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS)
def test_states_run_one_at_a_time_in_the_order_of_the_plan(graph, config, script):
    run = simulate(graph, config, script)
    touched = [
        event.state_id
        for event in (entry.event for entry in run.entries)
        if isinstance(event, StateEntered | StateSkipped)
    ]
    order = [state_id for state_id, _ in itertools.groupby(touched)]

    assert order == [*graph.order[: len(order)]]
    if run.history.status == "completed":
        assert order == [*graph.order]
    for earlier, later in graph.edges:
        if later in order:
            assert order.index(earlier) < order.index(later)


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS)
def test_a_run_ends_once_and_as_its_states_did(graph, config, script):
    run = simulate(graph, config, script)
    settled = {event.state_id for event in run.events(StateCompleted) + run.events(StateSkipped)}

    assert len(run.events(RunStarted)) == len(run.events(RunCompleted)) == 1
    assert run.history.status == ("completed" if settled == set(graph.states) else "failed")
    assert run.events(RunCompleted)[0].final_snapshot_id == run.history.checkpoint


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS)
def test_no_state_is_tried_more_often_than_its_policy_allows_crashes_aside(graph, config, script):
    run = simulate(graph, config, script)
    for state_id, state in graph.states.items():
        policy = state.meta.retry or config.retry_policy
        errors = [event.error for event in run.events(StateFailed) if event.state_id == state_id]
        counted = [error for error in errors if error.code != "orphan_attempt_recovered"]
        skipped = any(event.state_id == state_id for event in run.events(StateSkipped))
        assert len(counted) <= policy.max_attempts
        assert attempts_of(run, state_id) == [*range(len(attempts_of(run, state_id)))]
        assert not (skipped and attempts_of(run, state_id))
        if counted and run.history.states[state_id].status == "failed":
            assert len(counted) == policy.max_attempts or not counted[-1].retryable


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS)
def test_every_state_starts_from_the_checkpoint_before_it(graph, config, script):
    checkpoint = BASE
    for entry in simulate(graph, config, script).entries:
        if isinstance(entry.event, StateEntered):
            assert entry.event.base_snapshot_id == checkpoint
        if isinstance(entry.event, StateCompleted):
            checkpoint = entry.event.context_snapshot_id


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS, st.data())
def test_a_run_taken_up_again_from_any_point_of_its_log_goes_on_the_same_way(graph, config, script, data):
    run = simulate(graph, config, script)
    cut = data.draw(st.integers(0, len(run.entries)))
    decisions = []
    history = fold(run.entries[:cut])
    for entry in run.entries[cut:]:
        decision = decide(graph, config, history)
        if not decisions or decisions[-1] != decision:
            decisions.append(decision)
        history.advance(entry)
    recovered = [decision for decision in decisions if isinstance(decision, RecoverOrphan)]
    kept = [decision for decision in decisions if decision not in recovered]

    assert [decision for decision in kept if decision not in run.decisions] == []
    assert decide(graph, config, history) == run.decisions[-1]


# -- stories -------------------------------------------------------------------------------------------------


def test_an_empty_log_begins_with_the_start():
    assert decide(ONE_STATE, RunConfig(), History()) == StartRun()


def test_a_run_without_trouble():
    assert simulate(plan_of(2, []).graph, RunConfig()).decisions == [
        StartRun(),
        EnterState("op.step.s0", 0, BASE),
        EnterState("op.step.s1", 0, artifact_id(b"op.step.s0")),
        CompleteRun(RunStatus.COMPLETED, artifact_id(b"op.step.s1")),
        Done(RunStatus.COMPLETED),
    ]


def test_ties_are_broken_by_declaration_and_edges_come_first():
    graph = plan_of(4, [(3, 1)], [2, 1, 0, 3]).graph

    assert [event.state_id[-2:] for event in simulate(graph, RunConfig()).events(StateEntered)] == [
        "s2",
        "s0",
        "s3",
        "s1",
    ]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_attempts_of_a_policy_include_the_first(most):
    run = retried(RetryPolicy(most), ["fail"] * 9)

    assert attempts_of(run) == [*range(most)]
    assert run.history.status == "failed"
    assert run.events(RunCompleted) == [RunCompleted("failed", BASE)]


def test_without_a_policy_nothing_is_tried_again():
    assert attempts_of(simulate(ONE_STATE, RunConfig(), ["fail"] * 3)) == [0]


def test_a_success_ends_the_retries():
    run = retried(RetryPolicy(5), ["fail", "fail"])

    assert attempts_of(run) == [0, 1, 2]
    assert run.history.status == "completed"


def test_an_error_that_is_not_retryable_ends_the_run_at_once():
    run = retried(RetryPolicy(5), ["fail", "give up"])

    assert attempts_of(run) == [0, 1]
    assert run.decisions[-2:] == [CompleteRun(RunStatus.FAILED, BASE), Done(RunStatus.FAILED)]


def test_a_failed_run_ends_on_the_last_checkpoint_and_runs_nothing_more():
    run = simulate(plan_of(3, []).graph, RunConfig(), ["complete", "give up"])

    assert run.events(RunCompleted) == [RunCompleted("failed", artifact_id(b"op.step.s0"))]
    assert attempts_of(run, "op.step.s2") == []


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (FixedBackoff(), [0, 0, 0, 0]),
        (FixedBackoff(1.5), [1500, 1500, 1500, 1500]),
        (ExponentialBackoff(0.1, 60), [100, 200, 400, 800]),
        (ExponentialBackoff(0.1, 0.3), [100, 200, 300, 300]),
        (ExponentialBackoff(0, 60), [0, 0, 0, 0]),
        (ExponentialBackoff(5, 2), [2000, 2000, 2000, 2000]),
    ],
    ids=str,
)
def test_the_delay_before_each_retry_is_recorded(backoff, delays):
    run = retried(RetryPolicy(5, backoff), ["fail"] * 9)

    assert [(event.attempt, event.delay_ms) for event in run.events(RetryScheduled)] == [
        *enumerate(delays, 1)
    ]


def test_a_scheduled_retry_is_entered_with_what_it_has_to_wait_and_since_when():
    run = simulate(ONE_STATE, RunConfig(retry_policy=RetryPolicy(2, FixedBackoff(3))), ["fail"], ts_millis=77)

    assert EnterState(STATE, 1, BASE, delay_ms=3000, since_ms=77) in run.decisions
    assert ScheduleRetry(STATE, 1, 3000) in run.decisions


def test_a_timeout_uses_the_retry_budget():
    assert attempts_of(retried(RetryPolicy(3), ["time out"] * 9)) == [0, 1, 2]
    assert attempts_of(retried(RetryPolicy(3), ["time out", "fail", "time out", "complete"])) == [0, 1, 2]


@pytest.mark.parametrize("crashes", [1, 3, 50])
def test_an_attempt_left_open_is_closed_and_begun_again_any_number_of_times(crashes):
    run = retried(RetryPolicy(1), ["crash"] * crashes)

    assert run.decisions.count(RecoverOrphan(STATE)) == crashes
    assert attempts_of(run) == [*range(crashes + 1)]
    assert run.events(RetryScheduled) == []
    assert run.history.status == "completed"


def test_crashes_use_none_of_the_retry_budget():
    run = retried(RetryPolicy(2), ["crash", "fail", "crash", "crash", "fail"])

    assert attempts_of(run) == [0, 1, 2, 3, 4]
    assert run.history.states[STATE].failed.failures == 2
    assert run.history.status == "failed"


def test_the_delay_counts_failures_and_not_crashes():
    run = retried(RetryPolicy(3, ExponentialBackoff(1, 60)), ["crash", "crash", "fail", "crash", "fail"])

    assert [event.delay_ms for event in run.events(RetryScheduled)] == [1000, 2000]


def test_an_open_attempt_is_closed_before_anything_else():
    entered = StateEntered(STATE, 0, BASE)
    history = fold(log_of(RunStarted("op", BASE, BASE, BASE), entered))

    assert decide(ONE_STATE, THREE, history) == RecoverOrphan(STATE)


def test_a_crash_between_a_failure_and_its_retry_changes_nothing():
    history = fold(
        log_of(
            RunStarted("op", BASE, ONE_STATE.plan_id, BASE),
            StateEntered(STATE, 0, BASE),
            StateFailed(STATE, error_of()),
        )
    )

    assert decide(ONE_STATE, THREE, history) == ScheduleRetry(STATE, 1, 0)
    assert decide(ONE_STATE, RunConfig(), history) == CompleteRun(RunStatus.FAILED, BASE)


def test_a_policy_of_the_state_overrides_the_one_of_the_run():
    graph = plan_of(2, [], s0={"retry": RetryPolicy(2, FixedBackoff(1))}).graph
    run = simulate(graph, RunConfig(retry_policy=RetryPolicy(4)), ["fail", "complete", *["fail"] * 9])

    assert attempts_of(run, "op.step.s0") == [0, 1]
    assert attempts_of(run, "op.step.s1") == [0, 1, 2, 3]
    assert [event.delay_ms for event in run.events(RetryScheduled)] == [1000, 0, 0, 0]


def test_a_state_may_also_override_with_fewer_attempts():
    graph = plan_of(1, [], s0={"retry": RetryPolicy(1)}).graph

    assert attempts_of(simulate(graph, THREE, ["fail"] * 9)) == [0]


def test_states_that_carry_a_skipped_tag_are_skipped_and_say_which():
    graph = plan_of(
        3, [], s0={"tags": ["config", "report"]}, s1={"tags": ["compute"]}, s2={"tags": ["report"]}
    ).graph
    run = simulate(graph, RunConfig(skip_tags=["report", "execute"]))

    assert run.events(StateSkipped) == [
        StateSkipped("op.step.s0", "skip_tag:report"),
        StateSkipped("op.step.s2", "skip_tag:report"),
    ]
    assert [event.state_id for event in run.events(StateEntered)] == ["op.step.s1"]
    assert run.history.status == "completed"


def test_skipping_side_effects_skips_every_state_that_declares_one():
    graph = plan_of(2, [], s1={"side_effects": "apply_side_effect", "idempotency": "k"}).graph

    assert simulate(graph, RunConfig(skip_tags=["apply_side_effect"])).events(StateSkipped) == [
        StateSkipped("op.step.s1", "skip_tag:apply_side_effect")
    ]


def test_a_run_in_which_everything_is_skipped_completes_on_its_input():
    graph = plan_of(2, [], s0={"tags": ["compute"]}, s1={"tags": ["compute"]}).graph

    assert simulate(graph, RunConfig(skip_tags=["compute"])).decisions[-2:] == [
        CompleteRun(RunStatus.COMPLETED, BASE),
        Done(RunStatus.COMPLETED),
    ]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "limit_exceeded"])
def test_nothing_is_left_to_do_after_the_end(status):
    history = fold(log_of(RunStarted("op", BASE, BASE, BASE), RunCompleted(status)))

    assert decide(ONE_STATE, THREE, history) == Done(RunStatus(status))


@pytest.mark.parametrize("mode", ["dry_run", "live"])
def test_what_is_known_after_apply_skips_a_state_of_a_dry_run_alone(mode):
    history = History()
    graph = plan_of(2, [(0, 1)]).graph
    first = graph.order[0]
    base = artifact_id(b"0")
    started = RunStarted("op", artifact_id(b"m"), graph.plan_id, base)
    error = error_of("known_after_apply", retryable=True)
    events = [started, StateEntered(first, 0, base), StateFailed(first, error)]
    for entry in log_of(*events):
        history.advance(entry)
    config = RunConfig(io_mode=mode, retry_policy=RetryPolicy(2))
    decision = decide(graph, config, history)
    expected = SkipState(first, "failed:known_after_apply")
    assert decision == (expected if mode == "dry_run" else ScheduleRetry(first, 1, 0))
