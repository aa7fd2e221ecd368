"""Suspension, cancellation and plan changes: what a log may say of them, and what is decided."""

from __future__ import annotations

import pytest
from strategies import error_of, log_of

from machine.canonical import artifact_id
from machine.config import RunConfig
from machine.error_codes import CUT_CODES, STOPPED_CODES
from machine.errors import Code, LogError
from machine.events import (
    EffectIntended,
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
)
from machine.kernel.close_open_attempts import close_open_attempts
from machine.kernel.decide import decide
from machine.kernel.decisions import (
    ChangePlan,
    CompleteRun,
    Done,
    EnterState,
    RecoverOrphan,
    ResumeRun,
    SuspendRun,
)
from machine.kernel.history import fold
from machine.kernel.reuse import answers
from machine.kernel.run_status import RunStatus
from machine.plan import Plan
from machine.waits import (
    EffectWait,
    PlanWait,
)

S0, S1 = artifact_id(b"0"), artifact_id(b"1")
STATE = "op.step.pay"


def graph(**options):
    plan = Plan("op")
    options = {"side_effects": "apply_side_effect", "idempotency": "k", **options}

    @plan.state("step.pay", **options)
    def pay(ctx, io, rec):
        return None

    return plan.graph


ASKS, OTHER = graph(on_uncertain="ask"), graph(on_uncertain="ask", timeout=5)
START = RunStarted("op", S0, ASKS.plan_id, S0)
KEY = f"@{STATE}/0/http/{S0}/0"
INTENT = EffectIntended(KEY, S0, "k", STATE, 0, "http")
WAIT = EffectWait(KEY, STATE)
CRASHED = (
    START,
    StateEntered(STATE, 0, S0),
    INTENT,
    StateFailed(STATE, error_of("orphan_attempt_recovered")),
)
SUSPENDED = (*CRASHED, RunSuspended((WAIT,)))
NOT_DONE = FactError("other", error_of("effect_not_done"))


def answer(outcome=None, *, key=KEY, attempt=0, digest=S0):
    return FactRecorded(key, "http", digest, outcome or FactValue(S1), STATE, attempt)


def decided(*events, plan=ASKS, cancel=False):
    return decide(plan, RunConfig(), fold(log_of(*events)), cancel=cancel)


def test_an_effect_that_a_crash_hid_is_asked_after_before_another_attempt():
    assert decided(*CRASHED) == SuspendRun((WAIT,))
    assert decided(*CRASHED, plan=graph()) != SuspendRun((WAIT,))
    assert decided(*SUSPENDED) == Done(RunStatus.SUSPENDED)


@pytest.mark.parametrize("outcome", [FactValue(S1), NOT_DONE])
def test_a_run_goes_on_when_it_has_been_told_everything(outcome):
    told = (*SUSPENDED, answer(outcome))

    assert fold(log_of(*told)).unanswered == ()
    assert decided(*told) == ResumeRun()
    assert decided(*told, RunResumed("operator")) == EnterState(STATE, 1, S0)


def test_only_an_outcome_answers_the_next_attempt():
    for outcome, reused in ((FactValue(S1), True), (NOT_DONE, False)):
        events = (*SUSPENDED, answer(outcome), RunResumed("operator"), StateEntered(STATE, 1, S0))
        found = answers(fold(log_of(*events)), STATE, "http", S0, keeps_all=True)
        assert bool(found) is reused


@pytest.mark.parametrize(
    "event",
    [
        StateEntered(STATE, 1, S0),
        RunSuspended((WAIT,)),
        RunResumed("operator"),
        RunResumed("plan_change", OTHER.plan_id),
        answer(key="another"),
        answer(attempt=1),
        answer(digest=S1),
    ],
    ids=lambda event: event.type,
)
def test_a_suspended_run_only_waits(event):
    with pytest.raises(LogError) as refused:
        fold(log_of(*SUSPENDED, event))

    assert refused.value.code == Code.LOG_SUSPENDED
    assert refused.value.seq == len(SUSPENDED) + 1


def test_an_answer_counts_once():
    with pytest.raises(LogError):
        fold(log_of(*SUSPENDED, answer(), answer()))


@pytest.mark.parametrize("waits", [(), (EffectWait("another", STATE),)], ids=["nothing", "what is known"])
def test_a_run_waits_for_something_that_is_not_known(waits):
    with pytest.raises(LogError) as refused:
        fold(log_of(*CRASHED, RunSuspended(waits)))

    assert refused.value.code == Code.LOG_SUSPENDED


def test_a_run_that_was_not_suspended_cannot_be_resumed():
    with pytest.raises(LogError) as refused:
        fold(log_of(*CRASHED, RunResumed("operator")))

    assert refused.value.code == Code.INVALID_TRANSITION


def test_no_run_is_suspended_within_an_attempt():
    with pytest.raises(LogError) as refused:
        fold(log_of(*CRASHED[:3], RunSuspended((WAIT,))))

    assert refused.value.code == Code.LOG_ATTEMPT_OPEN


def test_a_cancelled_run_closes_its_attempt_and_ends():
    assert decided(*CRASHED[:3], cancel=True) == RecoverOrphan(STATE)
    assert decided(*CRASHED, cancel=True) == CompleteRun(RunStatus.CANCELLED, S0)
    assert decided(*SUSPENDED, cancel=True) == CompleteRun(RunStatus.CANCELLED, S0)
    over = (*SUSPENDED, RunCompleted("cancelled", S0))
    assert (
        decided(*over, cancel=True) == close_open_attempts(fold(log_of(*over))) == Done(RunStatus.CANCELLED)
    )


def test_a_crash_in_the_middle_of_a_cancel_does_not_bring_the_run_back():
    cut = (*CRASHED[:3], StateFailed(STATE, error_of("run_cancelled")))

    assert decided(*cut) == CompleteRun(RunStatus.CANCELLED, S0)


@pytest.mark.parametrize("code", sorted(STOPPED_CODES))
def test_an_attempt_whose_driver_stopped_uses_up_no_retry(code):
    history = fold(log_of(*CRASHED[:2], StateFailed(STATE, error_of(code))))

    assert history.states[STATE].failed.failures == 0
    assert history.states[STATE].failed.cut
    assert decide(ASKS, RunConfig(), history) == EnterState(STATE, 1, S0)


def test_every_attempt_whose_driver_stopped_was_cut():
    assert STOPPED_CODES < CUT_CODES


def test_another_plan_is_a_decision_of_its_own():
    begun = (START, StateEntered(STATE, 0, S0), StateFailed(STATE, error_of("orphan_attempt_recovered")))
    changed = (*begun, RunSuspended((PlanWait(OTHER.plan_id),)), RunResumed("plan_change", OTHER.plan_id))

    assert decided(*begun, plan=OTHER) == ChangePlan(OTHER.plan_id, suspended=False)
    assert decided(*SUSPENDED, answer(), plan=OTHER) == ChangePlan(OTHER.plan_id, suspended=True)
    assert fold(log_of(*changed)).plan_id == OTHER.plan_id
    assert decided(*changed, plan=OTHER) == EnterState(STATE, 1, S0)
    done = (*changed, StateEntered(STATE, 1, S0), StateCompleted(STATE, S1))
    assert decided(*done, plan=OTHER) == CompleteRun(RunStatus.COMPLETED, S1)


def test_what_was_sent_first_under_a_key_is_remembered():
    later = EffectIntended("later", S1, "k", STATE, 1, "http")
    events = (*SUSPENDED, answer(NOT_DONE), RunResumed("operator"), StateEntered(STATE, 1, S0), later)

    assert fold(log_of(*events)).sent == {(STATE, "http", "k"): S0}
