"""`fold`: total, incremental, strict about every rule of the envelope; and the digest that identifies a run."""

from __future__ import annotations

import copy

import attrs
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    FAST,
    OTHER_RUN_ID,
    RUN_CONFIGS,
    RUN_ID,
    SCRIPTS,
    entry_of,
    error_of,
    graphs,
    log_of,
    plan_of,
    simulate,
)

from machine import codec
from machine.canonical import artifact_id
from machine.config import RunConfig
from machine.errors import LogError
from machine.events import (
    DomainEventRecorded,
    EffectIntended,
    FactError,
    FactRecorded,
    FactValue,
    RetryScheduled,
    RunCompleted,
    RunResumed,
    RunStarted,
    RunSuspended,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
    seal,
)
from machine.kernel.history import History, fold
from machine.kernel.reuse import answers
from machine.kernel.run_status import RunStatus
from machine.kernel.sealed_facts import REUSED, reused
from machine.kernel.state_history import StateStatus
from machine.waits import (
    EffectWait,
    PlanWait,
)

A, B, C = "op.step.a", "op.step.b", "op.step.c"
S0, S1, S2 = (artifact_id(b"%d" % number) for number in range(3))
START = RunStarted("op", artifact_id(b"manifest"), artifact_id(b"plan"), S0)


def entered(state=A, attempt=0, base=S0):
    return StateEntered(state, attempt, base)


def completed(state=A, snapshot=S1):
    return StateCompleted(state, snapshot)


def failed(code="handler_error", state=A, *, retryable=True):
    return StateFailed(state, error_of(code, retryable=retryable))


def retry(attempt=1, state=A, delay_ms=10):
    return RetryScheduled(state, attempt, delay_ms)


def fact(key="k", state=A, attempt=0, outcome=None):
    return FactRecorded(key, "clock", S0, outcome or FactValue(S1), state, attempt)


def failure(key="k", state=A, attempt=0):
    return fact(key, state, attempt, FactError("transport", error_of()))


def intent(key="k", state=A, attempt=0):
    return EffectIntended(key, S0, "order-7", state, attempt)


def said(state=A, attempt=0):
    return DomainEventRecorded("noted", state, attempt, payload={})


def ended(status="completed", snapshot=S1):
    return RunCompleted(status, snapshot)


# -- total, and the same in one go as in many ----------------------------------------------------------------

STATES = st.sampled_from([A, B, C])
ATTEMPTS = st.integers(-1, 2)
SNAPSHOTS = st.sampled_from([S0, S1])
KEYS = st.sampled_from(["k", "l"])
CODES = st.sampled_from(["handler_error", "orphan_attempt_recovered", "state_timeout"])
FAILURES = st.builds(failed, CODES, STATES, retryable=st.booleans())
OUTCOMES = st.builds(FactValue, SNAPSHOTS) | st.builds(FactError, st.just("transport"), st.builds(error_of))
ANY_EVENT = st.one_of(
    st.just(START),
    st.builds(StateEntered, STATES, ATTEMPTS, SNAPSHOTS),
    st.builds(StateCompleted, STATES, SNAPSHOTS),
    st.builds(StateSkipped, STATES, st.just("because")),
    FAILURES,
    st.builds(RetryScheduled, STATES, ATTEMPTS, st.integers(-1, 5)),
    st.builds(fact, KEYS, STATES, ATTEMPTS, OUTCOMES),
    st.builds(intent, KEYS, STATES, ATTEMPTS),
    st.builds(said, STATES, ATTEMPTS),
    st.builds(RunSuspended, st.lists(st.builds(EffectWait, KEYS, STATES), max_size=2).map(tuple)),
    st.builds(RunResumed, st.just("operator"), st.none() | SNAPSHOTS),
    st.builds(RunCompleted, st.sampled_from([*RunStatus, "odd", ""]), st.none() | SNAPSHOTS),
)


@st.composite
def logs(draw):
    """Draw envelope bytes with their seq: mostly a valid log, with a few blows dealt to it."""
    script = draw(SCRIPTS)
    entries = simulate(draw(graphs()), draw(RUN_CONFIGS), script).entries
    events = [entry.event for entry in entries]
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(events) - 1, 0)))
        match draw(st.sampled_from(["drop", "double", "insert", "cut short", "swap"])):
            case "drop":
                del events[place : place + 1]
            case "double":
                events[place:place] = events[place : place + 1]
            case "insert":
                events.insert(place, draw(ANY_EVENT))
            case "cut short":
                del events[place:]
            case "swap":
                events[place : place + 2] = reversed(events[place : place + 2])
    runs = st.sampled_from([RUN_ID] * 20 + [OTHER_RUN_ID])
    log = [[seq, seal(seq, codec.encode_event(event), draw(runs), 0)] for seq, event in enumerate(events, 1)]
    if log and draw(st.booleans()):
        place = draw(st.integers(0, len(log) - 1))
        blow = draw(st.sampled_from(["garbage", "other seq", "nothing"]))
        if blow == "garbage":
            log[place][1] = draw(st.binary(max_size=20))
        elif blow == "other seq":
            log[place][0] = draw(st.integers(-1, 5))
    return log


@settings(FAST, max_examples=150)
@given(logs())
def test_any_log_gives_a_history_or_a_log_error(log):
    try:
        history = fold(codec.decode_entry(seq, data) for seq, data in log)
    except LogError as exc:
        assert exc.seq in {seq for seq, _ in log}  # noqa: PT017 - either outcome is right
    else:
        assert history.head_seq == len(log)


@settings(FAST, max_examples=150)
@given(st.lists(ANY_EVENT, max_size=8), st.booleans())
def test_any_events_in_any_order_give_a_history_or_a_log_error(events, begin):
    try:
        fold(log_of(*([START] if begin else []), *events))
    except LogError as exc:
        assert exc.code.startswith(("log_", "invalid_transition"))  # noqa: PT017 - either outcome is right


WHOLE = st.integers(-1, 3) | st.sampled_from([10_000, 10_001, 2**53 - 1, 1 - 2**53])
WILD_KEYS = KEYS | st.sampled_from(
    [
        "",
        "@",
        "@a",
        "@a/0/n/d/0",
        "@a/\u00b2/n/d/\u00b2",
        f"@a/{'9' * 5000}/b/1",
        "@a/-1/b/0",
        "@a/0/b/" + "1" * 5000,
    ]
)
WILD_EVENT = st.one_of(
    ANY_EVENT,
    st.builds(RunStarted, st.just("op"), SNAPSHOTS, SNAPSHOTS, SNAPSHOTS, st.none() | WHOLE),
    st.builds(StateEntered, STATES, WHOLE, SNAPSHOTS),
    st.builds(
        StateCompleted, STATES, SNAPSHOTS, st.none() | st.just(("k", "k")), st.none() | st.just(("a", "b"))
    ),
    st.builds(RetryScheduled, STATES, WHOLE, WHOLE),
    st.builds(fact, WILD_KEYS, STATES, WHOLE, OUTCOMES),
    st.builds(intent, WILD_KEYS, STATES, WHOLE),
    st.builds(
        RunSuspended,
        st.lists(st.builds(EffectWait, WILD_KEYS, STATES) | st.builds(PlanWait, SNAPSHOTS), max_size=3).map(
            tuple
        ),
    ),
)


@settings(FAST, max_examples=300)
@given(st.lists(WILD_EVENT, max_size=10), st.sampled_from([None, 1, 2, -1, 0, 10_000]))
def test_whatever_the_fields_say_a_fold_gives_a_history_or_a_log_error(events, most):
    history = History()
    started = RunStarted("op", S0, S0, S0, most)
    for entry in log_of(started, entered(), fact("@a/\u00b2/n/d/\u00b2"), *events):
        try:
            history.advance(entry)
        except LogError as exc:
            assert exc.code.startswith(("log_", "invalid_transition"))  # noqa: PT017 - either outcome is right
            assert exc.seq == entry.seq  # noqa: PT017
            return
        for state_id, state in history.states.items():
            if state.attempts:
                for keeps_all in (True, False):
                    answers(history, state_id, "clock", S0, keeps_all=keeps_all)
            history.uncertain_of(state_id)
        assert history.unanswered == tuple(history.unanswered)
        assert len(history.digest(history.states)) == 64


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS)
def test_every_log_that_decide_leads_to_folds(graph, config, script):
    run = simulate(graph, config, script)
    history = fold(run.entries)

    assert history == run.history
    assert history.final
    assert history.head_seq == len(run.entries)


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS, st.data())
def test_folding_in_two_parts_is_folding_the_whole(graph, config, script, data):
    entries = simulate(graph, config, script).entries
    cut = data.draw(st.integers(0, len(entries)))
    first = fold(entries[:cut])
    continued = fold(entries[cut:], first)

    assert continued is first
    assert continued == fold(entries)
    assert continued.digest(graph.order) == fold(entries).digest(graph.order)


def test_an_empty_log_says_nothing():
    assert fold([]) == History()
    assert History().status is RunStatus.PENDING
    assert not History().final


# -- every rule of the envelope ------------------------------------------------------------------------------

RULES = {
    "log_first_event": [
        [entered()],
        [ended()],
        [said()],
    ],
    "log_second_start": [
        [START, START],
        [START, entered(), START],
        [START, ended("failed", None), START],
    ],
    "log_after_end": [
        [START, ended("failed", S0), entered()],
        [START, ended("cancelled", None), ended("cancelled", None)],
        [START, ended("completed", S0), said()],
    ],
    "log_attempt_open": [
        [START, entered(), entered(attempt=1)],
        [START, entered(), entered(B)],
        [START, entered(), StateSkipped(B, "why")],
        [START, entered(), StateSkipped(A, "why")],
        [START, entered(), ended("failed", S0)],
    ],
    "log_no_open_attempt": [
        [START, completed()],
        [START, failed()],
        [START, entered(), completed(B)],
        [START, entered(), failed(state=B)],
        [START, entered(), completed(), completed()],
        [START, entered(), failed(), failed()],
        [START, fact()],
        [START, entered(), fact(state=B)],
        [START, entered(), fact(attempt=1)],
        [START, entered(), completed(), fact()],
        [START, intent()],
        [START, entered(), intent(attempt=1)],
        [START, said()],
        [START, entered(), said(B)],
    ],
    "log_attempt_number": [
        [START, entered(attempt=1)],
        [START, entered(attempt=-1)],
        [START, entered(), failed(), retry(), entered()],
        [START, entered(), failed(), retry(), entered(attempt=2)],
        [START, entered(), failed("orphan_attempt_recovered"), entered(attempt=0)],
    ],
    "log_state_settled": [
        [START, entered(), completed(), entered(attempt=1, base=S1)],
        [START, StateSkipped(A, "why"), entered()],
        [START, StateSkipped(A, "why"), StateSkipped(A, "why")],
        [START, entered(), completed(), StateSkipped(A, "why")],
        [START, entered(), failed(), StateSkipped(A, "why")],
    ],
    "log_base_snapshot": [
        [START, entered(base=S1)],
        [START, entered(), completed(), entered(B, base=S0)],
        [START, entered(), failed(), retry(), entered(attempt=1, base=S1)],
    ],
    "log_retry": [
        [START, retry()],
        [START, entered(), retry()],
        [START, entered(), failed(), entered(attempt=1)],
        [START, entered(), failed(), retry(0)],
        [START, entered(), failed(), retry(2)],
        [START, entered(), failed(), retry(), retry()],
        [START, entered(), completed(), retry()],
        [START, StateSkipped(A, "why"), retry(0)],
        [START, entered(), failed(), retry(delay_ms=-1)],
        [START, entered(), failed(), retry(delay_ms=366 * 24 * 3600 * 1000)],
    ],
    "log_bad_event": [
        [attrs.evolve(START, max_concurrency=-1)],
        [attrs.evolve(START, max_concurrency=0)],
        [attrs.evolve(START, max_concurrency=10_001)],
    ],
    "log_duplicate_fact": [
        [START, entered(), fact(), fact()],
        [START, entered(), fact(), failure()],
        [START, entered(), failure(), fact()],
        [START, entered(), failure(), failure()],
        [START, entered(), fact(), failed(), retry(), entered(attempt=1), fact(attempt=1)],
        [START, entered(), fact(), completed(), entered(B, base=S1), fact(state=B)],
    ],
    "invalid_transition": [
        [START, ended("running")],
        [START, ended("pending")],
        [START, ended("suspended")],
        [START, ended("odd")],
        [START, ended("")],
    ],
    "log_end_snapshot": [
        [START, ended("completed", S1)],
        [START, entered(), completed(), ended("completed", S0)],
        [START, entered(), completed(), ended("completed", "")],
    ],
}


@pytest.mark.parametrize(
    ("code", "events"),
    [
        pytest.param(code, log, id=f"{code}-{n}")
        for code, broken in RULES.items()
        for n, log in enumerate(broken)
    ],
)
def test_a_broken_rule_of_the_envelope_has_its_code_and_names_the_event(code, events):
    fold(log_of(*events[:-1]))
    with pytest.raises(LogError) as caught:
        fold(log_of(*events))

    assert caught.value.code == code
    assert caught.value.seq == len(events)
    assert str(caught.value).startswith(f"event {len(events)}: ")


@pytest.mark.parametrize("seqs", [[2], [0], [1, 1], [1, 3], [1, 2, 2], [1, 2, 4], [1, 2, 1], [1, -1]])
def test_a_gap_or_a_repetition_in_the_numbers_is_refused(seqs):
    events = [START, entered(), said(), said()]
    with pytest.raises(LogError) as caught:
        fold(entry_of(seq, event) for seq, event in zip(seqs, events, strict=False))

    assert caught.value.code == "log_seq_gap"
    assert caught.value.seq == seqs[-1]


def test_an_event_of_another_run_is_refused():
    with pytest.raises(LogError) as caught:
        fold([entry_of(1, START), entry_of(2, entered(), run_id=OTHER_RUN_ID)])

    assert (caught.value.code, caught.value.seq) == ("log_wrong_run", 2)


def test_an_intent_for_what_has_its_outcome_already_is_refused():
    with pytest.raises(LogError) as caught:
        fold(log_of(START, entered(), intent(), fact(), intent()))

    assert caught.value.seq == 5


# -- what a history says -------------------------------------------------------------------------------------


def test_a_history_follows_the_run():
    history = fold(log_of(START))
    assert (history.status, history.checkpoint, history.started_ms) == ("running", S0, 1_700_000_000_000)

    fold([entry_of(2, entered())], history)
    assert [(one.state_id, one.attempt, one.seq) for one in history.open.values()] == [(A, 0, 2)]

    fold([entry_of(3, fact()), entry_of(4, completed())], history)
    assert history.open == {}
    assert (history.checkpoint, history.settled, set(history.facts)) == (S1, [A], {"k"})
    assert (history.states[A].status, history.states[A].snapshot_id) == (StateStatus.COMPLETED, S1)

    fold([entry_of(5, StateSkipped(B, "skip_tag:report")), entry_of(6, ended())], history)
    assert (history.states[B].status, history.states[B].reason) == (StateStatus.SKIPPED, "skip_tag:report")
    assert (history.status, history.final_snapshot_id, history.settled) == ("completed", S1, [A, B])


def test_a_retry_that_waits_remembers_since_when_until_it_begins():
    entries = [entry_of(1, START), entry_of(2, entered()), entry_of(3, failed())]
    history = fold([*entries, entry_of(4, retry(delay_ms=250), ts_millis=99)])
    state = history.states[A]
    assert (state.status, state.failed.retry_delay_ms) == (StateStatus.WAITING, 250)
    assert state.failed.retry_ts_millis == 99

    fold([entry_of(5, entered(attempt=1))], history)
    assert (state.status, state.failed.retry_delay_ms) == (StateStatus.OPEN, None)
    assert state.failed.retry_ts_millis is None


@pytest.mark.parametrize(
    ("code", "failures", "cut"),
    [("handler_error", 1, False), ("state_timeout", 1, True), ("orphan_attempt_recovered", 0, True)],
)
def test_only_a_crash_leaves_the_retry_budget_alone(code, failures, cut):
    state = fold(log_of(START, entered(), failed(code))).states[A]

    assert (state.attempts, state.failed.failures, state.failed.cut) == (1, failures, cut)


def test_a_failed_call_may_be_tried_again_by_a_later_attempt_only():
    history = fold(
        log_of(START, entered(), failure(), failed(), retry(), entered(attempt=1), fact(attempt=1))
    )

    assert history.facts["k"].outcome == FactValue(S1)


def test_an_intent_is_uncertain_until_its_fact():
    events = [START, entered(), intent("mail"), intent("pay")]
    assert set(fold(log_of(*events)).uncertain) == {"mail", "pay"}

    history = fold(log_of(*events, fact("pay"), failure("mail")))
    assert history.uncertain == {}


def test_an_intent_without_outcome_stays_uncertain_after_a_crash():
    history = fold(log_of(START, entered(), intent(), failed("orphan_attempt_recovered"), entered(attempt=1)))

    assert history.uncertain == {"k": intent()}


@FAST
@given(st.lists(st.sampled_from(["handler_error", "state_timeout", "orphan_attempt_recovered"]), max_size=5))
def test_a_later_attempt_reuses_what_was_fetched_since_the_last_failure(codes):
    events = [START]
    for attempt, code in enumerate(codes):
        events += [
            entered(attempt=attempt),
            fact(f"@{A}/{attempt}/clock/{S0}/0", attempt=attempt),
            failed(code),
            retry(attempt + 1),
        ]
    history = fold(log_of(*events, entered(attempt=len(codes))))
    fresh = max((n + 1 for n, code in enumerate(codes) if code == "handler_error"), default=0)

    def reused(*, keeps_all):
        return [answer.attempt for answer in answers(history, A, "clock", S0, keeps_all=keeps_all)]

    assert reused(keeps_all=True) == [*range(len(codes))]
    assert reused(keeps_all=False) == [*range(fresh, len(codes))]


def test_what_failed_or_asks_to_try_again_is_never_reused():
    outcomes = [FactError("transport", error_of()), FactValue(S1, again=True), FactValue(S1)]
    facts = [fact(f"@{A}/0/clock/{S0}/{number}", outcome=outcome) for number, outcome in enumerate(outcomes)]
    history = fold(log_of(START, entered(), *facts, failed("orphan_attempt_recovered"), entered(attempt=1)))

    assert answers(history, A, "clock", S0, keeps_all=True) == [facts[2]]


# -- the digest ----------------------------------------------------------------------------------------------


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS)
def test_the_digest_knows_nothing_of_run_ids_times_and_info(graph, config, script):
    digests = {
        simulate(graph, config, script, **informational).history.digest(graph.order)
        for informational in (
            {},
            {"run_id": OTHER_RUN_ID},
            {"ts_millis": 5},
            {"info": {"trace": "x.py:3 in f", "provenance_id": S0}},
        )
    }

    assert len(digests) == 1
    assert len(digests.pop()) == 64


@FAST
@given(st.permutations(range(4)), st.data())
def test_the_digest_knows_nothing_of_how_lanes_interleave(order, data):
    ids = [f"op.step.s{number}" for number in range(4)]

    def lane(number):
        state = ids[number]
        if number == 3:
            return [StateSkipped(state, "why")]
        return [entered(state), said(state), fact(f"k{number}", state), completed(state, S0)]

    straight = fold(
        log_of(START, *(event for number in range(4) for event in lane(number)), ended("completed", S0))
    )
    mixed = fold(
        log_of(START, *(event for number in order for event in lane(number)), ended("completed", S0))
    )

    assert mixed.digest(ids) == straight.digest(ids)


@FAST
@given(graphs(), RUN_CONFIGS, SCRIPTS, st.data())
def test_any_event_that_says_something_else_makes_another_digest(graph, config, script, data):
    entries = simulate(graph, config, script).entries
    changed = copy.copy(entries)
    place = data.draw(
        st.sampled_from([n for n, e in enumerate(entries) if isinstance(e.event, FactRecorded)] or [0])
    )
    event = entries[place].event
    other = (
        fact(event.key, event.state_id, event.attempt, FactValue(S2))
        if isinstance(event, FactRecorded)
        else RunStarted("other", S1, S1, event.initial_snapshot_id)
    )
    changed[place] = entry_of(place + 1, other)

    assert fold(changed).digest(graph.order) != fold(entries).digest(graph.order)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([entered(), fact("k"), fact("l")], [entered(), fact("l"), fact("k")]),
        ([entered(), said()], [entered()]),
        ([entered(), completed()], [entered(B), completed(B)]),
        ([entered(), said()], [entered(), said(), said()]),
        ([ended("failed", S0)], [ended("failed", None)]),
        ([ended("failed", S0)], [ended("cancelled", S0)]),
        ([StateSkipped(A, "x")], [StateSkipped(A, "y")]),
        ([], [entered()]),
    ],
)
def test_runs_that_differ_have_different_digests(one, other):
    assert fold(log_of(START, *one)).digest([A, B]) != fold(log_of(START, *other)).digest([A, B])


def test_the_digest_is_a_chain_of_bodies_per_lane_taken_in_the_order_of_the_plan():
    def chain(*events):
        value = bytes(32)
        for event in events:
            value = blake3(value + codec.encode_event(event)).digest()
        return value

    lanes = {"": [START, ended()], A: [entered(), fact(), completed()], B: [StateSkipped(B, "why")], C: []}
    history = fold(log_of(START, *lanes[A], *lanes[B], ended()))

    assert history.digest([A, B, C]) == blake3(b"".join(chain(*lane) for lane in lanes.values())).hexdigest()
    assert history.digest([B, A, C]) != history.digest([A, B, C])


def test_the_digest_of_a_run_is_this_and_stays_this():
    graph = plan_of(2, [(0, 1)]).graph
    run = simulate(graph, RunConfig(), ["complete"])

    assert (
        run.history.digest(graph.order) == "93289d20e2f59b9b8fcce84b3cc3ef4f0bd1e97305cee6de08476aac3f9d6be5"
    )


def test_a_call_that_was_given_up_leaves_its_intent_uncertain():
    given_up = FactError("other", error_of("call_cancelled"))
    history = fold(log_of(START, entered(), intent(), fact(outcome=given_up)))

    assert history.uncertain == {"k": intent()}


@pytest.mark.parametrize("said", ["", "nonsense", "[]", "1", '{"a":["b"]}', '{"a":1}'])
def test_nonsense_about_reused_facts_says_nothing(said):
    entry = log_of(START, entered())[1]
    assert reused(entry._replace(info={**entry.info, REUSED: said})) == {}


def test_a_failure_lets_the_run_go_on_with_a_skip_that_names_it():
    skip = StateSkipped(A, "failed:known_after_apply")
    begun = [START, entered(), failed("known_after_apply", retryable=False)]
    history = fold(log_of(*begun, skip, entered(B, base=S0)))
    state = history.states[A]
    assert (state.status, state.reason, state.failed.failures) == (StateStatus.SKIPPED, skip.reason, 1)
    assert (history.settled, history.stopped, [*history.open]) == ([A], {}, [B])
    for events in (
        [*begun, StateSkipped(A, "failed:handler_error")],  # not the error it had
        [*begun, StateSkipped(A, "skip_tag:report")],
        [*begun, skip, skip],
        [START, entered(), skip],
        [*begun, skip, entered(attempt=1)],
    ):
        with pytest.raises(LogError) as caught:
            fold(log_of(*events))
        assert caught.value.code in {"log_state_settled", "log_attempt_open"}
