"""Waits of handlers in a log: what it may say of them, what is decided, and which of it is in the digest."""

from __future__ import annotations

from typing import Any

import pytest
from strategies import error_of, log_of

from machine import codec
from machine.canonical import artifact_id
from machine.config import RunConfig
from machine.errors import Code, LogError
from machine.events import (
    CODE_CHANGE,
    Entry,
    FactError,
    FactRecorded,
    FactValue,
    RunCompleted,
    RunResumed,
    RunStarted,
    RunSuspended,
    StateCompleted,
    StateEntered,
    StateFailed,
    WaitBegun,
)
from machine.kernel.decide import decide
from machine.kernel.decisions import CompleteRun, Done, EnterState, ResumeRun, SuspendRun
from machine.kernel.history import History, fold
from machine.kernel.linearize import without_suspensions
from machine.kernel.state_history import StateStatus
from machine.plan import Plan
from machine.waits import ApprovalWait, ChildWait, TimerWait

S0, S1 = artifact_id(b"0"), artifact_id(b"1")
ASK, OTHER = "op.step.ask", "op.step.other"
NAMESPACE = "wait.approval"
KEY = f"@{ASK}/wait/approval/{S0}/0"


def graph() -> Any:
    plan = Plan("op")

    @plan.state("step.ask")
    def ask(ctx: Any, io: Any) -> None:
        return None

    return plan.graph


GRAPH = graph()
START = RunStarted("op", S0, GRAPH.plan_id, S0)
ENTERED = StateEntered(ASK, 0, S0)
BEGUN = WaitBegun(KEY, NAMESPACE, S0, ASK, 0)
PUT_AWAY = StateFailed(ASK, error_of(Code.ATTEMPT_SUSPENDED, retryable=True))
ANSWER = FactRecorded(KEY, NAMESPACE, S0, FactValue(S1), ASK, 0)
WAITS = RunSuspended((ApprovalWait(KEY, ASK),))
GOES_ON = RunResumed("operator")
DONE = [StateCompleted(ASK, S1), RunCompleted("completed", S1)]


def decided(history: History, **options: Any) -> Any:
    return decide(GRAPH, RunConfig(), history, **options)


def folded(*events: Any) -> History:
    return fold(log_of(*events))


def test_an_attempt_that_waits_is_put_away_and_goes_on_under_its_number():
    history = folded(START, ENTERED, BEGUN, PUT_AWAY)
    assert history.states[ASK].status is StateStatus.SUSPENDED
    assert decided(history) == SuspendRun((ApprovalWait(KEY, ASK),))
    history = folded(START, ENTERED, BEGUN, PUT_AWAY, WAITS)
    assert decided(history) == Done(history.status)
    history = folded(START, ENTERED, BEGUN, PUT_AWAY, WAITS, ANSWER)
    assert decided(history) == ResumeRun()
    history = folded(START, ENTERED, BEGUN, PUT_AWAY, WAITS, ANSWER, GOES_ON)
    assert decided(history) == EnterState(ASK, 0, S0)
    history = folded(START, ENTERED, BEGUN, PUT_AWAY, WAITS, ANSWER, GOES_ON, ENTERED)
    assert history.states[ASK].attempts == 1
    assert not history.open_waits.by_key


def test_an_early_answer_needs_no_suspension_of_the_run():
    history = folded(START, ENTERED, BEGUN, PUT_AWAY, ANSWER)
    assert decided(history) == EnterState(ASK, 0, S0)


def test_a_suspension_uses_up_no_retry():
    history = folded(START, ENTERED, BEGUN, PUT_AWAY)
    state = history.states[ASK]
    assert (state.failed.failures, state.failed.recoveries, state.attempts) == (0, 0, 1)


LOGS = {
    "in the attempt": [START, ENTERED, BEGUN, ANSWER, *DONE],
    "while it is put away": [START, ENTERED, BEGUN, PUT_AWAY, ANSWER, ENTERED, *DONE],
    "while the run is suspended": [START, ENTERED, BEGUN, PUT_AWAY, WAITS, ANSWER, GOES_ON, ENTERED, *DONE],
}


@pytest.mark.parametrize("name", LOGS)
def test_when_an_answer_came_is_in_no_digest(name):
    digest = folded(*LOGS["in the attempt"]).digest([ASK])
    history = folded(*LOGS[name])
    assert history.digest([ASK]) == digest
    joined = without_suspensions(log_of(*LOGS[name]))
    assert [entry.event for entry in joined] == LOGS["in the attempt"]
    assert fold(joined, History(in_seq=False)).digest([ASK]) == digest


def test_the_answer_itself_is_in_the_digest():
    other = FactRecorded(KEY, NAMESPACE, S0, FactValue(S0), ASK, 0)
    digests = {folded(START, ENTERED, BEGUN, fact, *DONE).digest([ASK]) for fact in (ANSWER, other)}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([ENTERED, PUT_AWAY], Code.LOG_WAIT),
        ([ENTERED, BEGUN, BEGUN], Code.LOG_DUPLICATE_FACT),
        ([ENTERED, BEGUN, ANSWER, BEGUN], Code.LOG_DUPLICATE_FACT),
        ([ENTERED, BEGUN, ANSWER, ANSWER], Code.LOG_DUPLICATE_FACT),
        ([ENTERED, BEGUN, PUT_AWAY, WAITS, ANSWER, ANSWER], Code.LOG_SUSPENDED),
        ([BEGUN], Code.LOG_NO_OPEN_ATTEMPT),
        ([ENTERED, WaitBegun(KEY, "wait.forever", S0, ASK, 0)], Code.LOG_WAIT),
        ([ENTERED, BEGUN, PUT_AWAY, WAITS, GOES_ON], Code.LOG_SUSPENDED),
        ([ENTERED, BEGUN, PUT_AWAY, RunSuspended((TimerWait("other", ASK),))], Code.LOG_WAIT),
        ([ENTERED, BEGUN, PUT_AWAY, StateEntered(ASK, 1, S0)], Code.LOG_ATTEMPT_NUMBER),
        ([ENTERED, BEGUN, FactRecorded(KEY, NAMESPACE, S1, FactValue(S1), ASK, 0)], Code.LOG_WAIT),
        ([ENTERED, BEGUN, FactRecorded(KEY, "wait.timer", S0, FactValue(S1), ASK, 0)], Code.LOG_WAIT),
        ([ENTERED, BEGUN, PUT_AWAY, FactRecorded(KEY, NAMESPACE, S0, FactValue(S1), ASK, 1)], Code.LOG_WAIT),
        (
            [
                ENTERED,
                BEGUN,
                PUT_AWAY,
                FactRecorded(KEY, NAMESPACE, S0, FactError("other", error_of("call_cancelled")), ASK, 0),
            ],
            Code.LOG_NO_OPEN_ATTEMPT,
        ),
    ],
)
def test_a_log_that_breaks_a_rule_of_waits_is_refused(events, code):
    with pytest.raises(LogError) as refused:
        folded(START, *events)
    assert refused.value.code == code


def test_a_handler_that_gives_up_its_wait_closes_it():
    given_up = FactRecorded(KEY, NAMESPACE, S0, FactError("other", error_of("call_cancelled")), ASK, 0)
    history = folded(START, ENTERED, BEGUN, given_up)
    assert not history.open_waits.by_key


def test_a_later_attempt_begins_the_wait_again_with_the_same_time_limit():
    failed = StateFailed(ASK, error_of("boom", retryable=True))
    again, entered = WaitBegun(KEY, NAMESPACE, S0, ASK, 1), StateEntered(ASK, 1, S0)
    log = log_of(START, ENTERED, BEGUN, failed)
    log[2] = log[2]._replace(info={**log[2].info, "due_ms": "12000"})
    history = fold(log)
    assert history.open_waits.by_key[KEY].due_ms == 12000
    history.states[ASK].status = StateStatus.WAITING
    for seq, event in enumerate([entered, again], 5):
        history.advance(Entry(seq, event, codec.encode_event(event), log[0].run_id, 99_000, {}))
    wait = history.open_waits.by_key[KEY]
    assert (wait.begun, wait.due_ms, wait.since_ms) == (again, 12000, log[2].ts_millis)


def test_what_was_answered_before_a_failure_is_known_after_it():
    failed = StateFailed(ASK, error_of("boom", retryable=True))
    history = folded(START, ENTERED, BEGUN, failed, ANSWER)
    assert history.facts[KEY] == ANSWER


def test_a_state_that_is_woken_goes_on_without_an_answer_where_it_waits_for_a_child():
    key = f"@{ASK}/wait/child/{S0}/0"
    begun = WaitBegun(key, "wait.child", S0, ASK, 0)
    suspended = RunSuspended((ChildWait(key, ASK),))
    history = folded(START, ENTERED, begun, PUT_AWAY, suspended)
    assert decided(history) == Done(history.status)
    assert decided(history, woken={ASK}) == ResumeRun()
    history = folded(START, ENTERED, begun, PUT_AWAY, suspended, GOES_ON)
    assert decided(history, woken={ASK}) == EnterState(ASK, 0, S0)
    assert decided(history) == SuspendRun((ChildWait(key, ASK),))


def test_another_attempt_begins_where_the_code_has_changed():
    change = RunResumed(CODE_CHANGE)
    history = folded(START, ENTERED, BEGUN, PUT_AWAY, WAITS, ANSWER, change)
    assert decided(history) == EnterState(ASK, 1, S0)
    second = StateEntered(ASK, 1, S0)
    log = [START, ENTERED, BEGUN, PUT_AWAY, WAITS, ANSWER, change, second, *DONE]
    assert [entry.event for entry in without_suspensions(log_of(*log))] == log
    assert folded(*log).digest([ASK]) != folded(*LOGS["in the attempt"]).digest([ASK])


def test_a_run_that_ended_waits_for_nothing():
    history = folded(START, ENTERED, BEGUN, PUT_AWAY, WAITS, RunCompleted("cancelled", S0))
    assert not history.open_waits.by_key
    assert not history.unanswered
    with pytest.raises(LogError):
        fold(log_of(START, ENTERED, BEGUN, PUT_AWAY, WAITS, RunCompleted("cancelled", S0), ANSWER))


def test_a_cancelled_run_ends_while_it_waits():
    history = folded(START, ENTERED, BEGUN, PUT_AWAY, WAITS)
    assert decided(history, cancel=True) == CompleteRun("cancelled", S0)


@pytest.mark.parametrize("event", [BEGUN, WAITS, RunSuspended((TimerWait(KEY, ASK, 5), ChildWait(KEY, ASK)))])
def test_the_events_of_waits_are_read_as_they_were_written(event):
    assert codec.event_from_json(codec.event_to_json(event)) == event
    assert b"null" not in codec.encode_event(event)
