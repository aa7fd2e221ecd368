"""Cleanup states as pure decisions: when they begin, what may follow, and how the run ends."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FAST, RUN_CONFIGS, SCRIPTS, error_of, graphs_with_cleanup, log_of, plan_of, simulate

from machine.canonical import artifact_id
from machine.config import FanOutJoin, RunConfig
from machine.errors import LogError
from machine.events import (
    CleanupBegun,
    EffectIntended,
    RunCompleted,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
)
from machine.kernel.cleanup import error_of as error_of_run
from machine.kernel.cleanup import failure_of
from machine.kernel.decide import decide
from machine.kernel.decisions import AwaitAttempts, BeginCleanup, CompleteRun, Done, EnterState, SuspendRun
from machine.kernel.frontier import Frontier
from machine.kernel.history import fold
from machine.kernel.run_status import RunStatus
from machine.kernel.scheduler import Schedule

CANCELS = st.sets(st.integers(1, 25), max_size=2)
BASE, AFTER = artifact_id(b"input"), artifact_id(b"op.step.s0")
PLAN = plan_of(3, [(0, 1)], s1={"run": "on_failure"}, s2={"run": "always"}).graph
WORK, UNDO, CLOSE = PLAN.order


def begun(*events, status="failed", plan=PLAN, base=BASE):
    """Return the history of a run whose only state of work has failed, up to its cleanup and these events."""
    started = RunStarted("op", artifact_id(b"manifest"), plan.plan_id, BASE)
    failed = [StateEntered(WORK, 0, BASE), StateFailed(WORK, error_of(retryable=False))]
    return fold(log_of(started, *failed, CleanupBegun(status, base), *events))


# -- what holds of every run ---------------------------------------------------------------------------------


@FAST
@given(graphs_with_cleanup(), RUN_CONFIGS, SCRIPTS, CANCELS)
def test_cleanup_states_begin_after_the_work_once_each_and_in_order(graph, config, script, cancels):
    run = simulate(graph, config, script, cancels=cancels)
    (at,) = (place for place, entry in enumerate(run.entries) if isinstance(entry.event, CleanupBegun))
    before, after = run.entries[:at], run.entries[at:]
    touched = [
        entry.event.state_id for entry in after if isinstance(entry.event, StateEntered | StateSkipped)
    ]

    assert not any(getattr(entry.event, "state_id", None) in graph.cleanup for entry in before)
    assert not any(getattr(entry.event, "state_id", None) in graph.work for entry in after)
    order = [state_id for state_id, _ in itertools.groupby(touched)]
    assert order == list(graph.cleanup)[: len(order)]
    completed = [event.state_id for event in run.events(StateCompleted)]
    assert len(completed) == len(set(completed))
    if len(cancels) < 2:  # nothing cancels the cleanup itself, unless it is what the one cancel meets
        ended = not cancels or run.events(CleanupBegun)[0].status == "cancelled"
        assert order == list(graph.cleanup) or not ended


@FAST
@given(graphs_with_cleanup(), RUN_CONFIGS, SCRIPTS, CANCELS)
def test_no_cleanup_changes_how_a_run_ends(graph, config, script, cancels):
    run = simulate(graph, config, script, cancels=cancels)
    (cleanup,), (end,) = run.events(CleanupBegun), run.events(RunCompleted)
    work = [run.history.states.get(state_id) for state_id in graph.work]

    assert (end.status, end.error) == (cleanup.status, cleanup.error)
    assert end.final_snapshot_id == run.history.checkpoint
    assert run.decisions[-1] == Done(RunStatus(cleanup.status))
    assert (cleanup.status == "completed") <= all(
        state is not None and state.status.settled for state in work
    )
    assert (cleanup.status == "failed") <= any(
        state is not None and state.status == "failed" for state in work
    )
    assert (end.skipped or 0) == sum(event.reason.startswith("failed:") for event in run.events(StateSkipped))


@FAST
@given(graphs_with_cleanup(), RUN_CONFIGS, SCRIPTS, st.data())
def test_a_run_taken_up_again_from_any_point_of_its_log_cleans_up_the_same_way(graph, config, script, data):
    run = simulate(graph, config, script)
    cut = data.draw(st.integers(0, len(run.entries)))
    history = fold(run.entries[:cut])
    for entry in run.entries[cut:]:
        decision = decide(graph, config, history)
        assert decision in run.decisions or history.open
        history.advance(entry)
    assert decide(graph, config, history) == run.decisions[-1]


@FAST
@given(graphs_with_cleanup(), RUN_CONFIGS, SCRIPTS)
def test_a_log_without_the_beginning_of_its_cleanup_is_another_run(graph, config, script):
    """What follows it is no longer allowed to be what it was, or the digest says so."""
    run = simulate(graph, config, script)
    events = [entry.event for entry in run.entries]
    without = fold(log_of(*(event for event in events if not isinstance(event, CleanupBegun))))
    assert without.digest(graph.order) != run.history.digest(graph.order)
    assert not any(state.cleans for state in without.states.values())


# -- one case each -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([StateEntered(WORK, 1, BASE)], "log_cleanup"),
        ([StateSkipped(WORK, "failed:handler_error")], "log_cleanup"),
        ([CleanupBegun("failed", BASE)], "log_cleanup"),
        ([RunCompleted("completed")], "log_cleanup"),
        ([StateEntered(UNDO, 0, AFTER)], "log_base_snapshot"),
        ([StateEntered(UNDO, 0, BASE), StateEntered(CLOSE, 0, BASE)], "log_attempt_open"),
        ([StateEntered(UNDO, 0, BASE), RunCompleted("failed")], "log_attempt_open"),
        ([RunCompleted("failed", AFTER)], "log_end_snapshot"),
        ([RunCompleted("failed", BASE, skipped=1)], "log_bad_event"),
        ([StateSkipped(UNDO, "no_failure"), StateEntered(UNDO, 0, BASE)], "log_state_settled"),
    ],
    ids=[
        *("work goes on", "work is skipped", "twice", "another end", "another base", "two at once"),
        *("open at the end", "another context", "a wrong count", "again"),
    ],
)
def test_a_log_that_breaks_a_rule_of_cleanup_is_refused(events, code):
    with pytest.raises(LogError) as refused:
        begun(*events)
    assert refused.value.code == code


@pytest.mark.parametrize(("status", "base"), [("running", BASE), ("failed", AFTER)])
def test_a_cleanup_begins_with_an_end_and_on_the_checkpoint(status, base):
    with pytest.raises(LogError):
        begun(status=status, base=base)


def test_a_state_that_did_not_fail_is_not_skipped_for_its_failure():
    started = RunStarted("op", artifact_id(b"manifest"), PLAN.plan_id, BASE)
    for events in (
        [StateEntered(WORK, 0, BASE), StateCompleted(WORK, AFTER)],
        [StateEntered(WORK, 0, BASE), StateFailed(WORK, error_of())],
    ):
        reason = "failed:handler_error" if isinstance(events[-1], StateCompleted) else "no reason"
        with pytest.raises(LogError) as refused:
            fold(log_of(started, *events, StateSkipped(WORK, reason)))
        assert refused.value.code == "log_state_settled"


def test_an_effect_of_the_failed_state_without_an_outcome_is_asked_for_first():
    started = RunStarted("op", artifact_id(b"manifest"), PLAN.plan_id, BASE)
    intent = EffectIntended("k", artifact_id(b"request"), "once", WORK, 0, "http")
    failed = StateFailed(WORK, error_of("state_timeout", retryable=False))
    history = fold(log_of(started, StateEntered(WORK, 0, BASE), intent, failed, CleanupBegun("failed", BASE)))
    decision = decide(PLAN, RunConfig(), history)
    assert isinstance(decision, SuspendRun)
    assert [wait.key for wait in decision.waits] == ["k"]
    assert decide(PLAN, RunConfig(), history, cancel=True) == CompleteRun(RunStatus.FAILED, BASE)


def test_a_cancel_of_the_cleanup_leaves_what_has_not_begun():
    history = begun(StateEntered(UNDO, 0, BASE), StateCompleted(UNDO, AFTER))
    assert decide(PLAN, RunConfig(), history) == EnterState(CLOSE, 0, AFTER)
    assert decide(PLAN, RunConfig(), history, cancel=True) == CompleteRun(RunStatus.FAILED, AFTER)
    cut = begun(StateEntered(UNDO, 0, BASE), StateFailed(UNDO, error_of("run_cancelled", retryable=False)))
    assert decide(PLAN, RunConfig(), cut) == CompleteRun(RunStatus.FAILED, BASE)


def test_concurrent_states_are_awaited_before_the_cleanup_and_it_is_not_concurrent():
    started = RunStarted("op", artifact_id(b"manifest"), PLAN.plan_id, BASE, 3)
    failed = [StateEntered(WORK, 0, BASE), StateFailed(WORK, error_of(retryable=False))]
    history = fold(log_of(started, *failed, CleanupBegun("failed", BASE), StateEntered(UNDO, 0, BASE)))
    config = RunConfig(execution_mode=FanOutJoin(3))
    schedule = Schedule(Frontier(PLAN, {}.__getitem__), {UNDO})
    assert decide(PLAN, config, history, schedule=schedule) == AwaitAttempts()


def test_what_a_cleanup_state_is_given():
    assert failure_of(fold(log_of(RunStarted("op", BASE, PLAN.plan_id, BASE)))) is None
    assert failure_of(begun(status="completed")) is None
    assert failure_of(begun()).code == "handler_error"
    assert failure_of(begun(status="cancelled")).code == "run_cancelled"
    assert failure_of(begun(status="limit_exceeded")).code == "handler_error"


def test_the_failure_of_a_cleanup_is_in_the_details_of_the_run_s_error():
    failed = [StateEntered(UNDO, 0, BASE), StateFailed(UNDO, error_of("other", retryable=False))]
    history = begun(*failed, RunCompleted("failed"))
    error = error_of_run(history)
    assert (error.code, error.details) == (
        "handler_error",
        {"cleanup": {UNDO: {"code": "other", "message": "it failed"}}},
    )
    assert error_of_run(begun(*failed, RunCompleted("completed"), status="completed")).code == "handler_error"


def test_a_run_without_cleanup_states_has_no_such_event():
    run = simulate(plan_of(2, [(0, 1)]).graph, RunConfig(), ["give up"])
    assert run.events(CleanupBegun) == []
    assert not any(isinstance(decision, BeginCleanup) for decision in run.decisions)
