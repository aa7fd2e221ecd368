"""Which waits are answered by now: at most once each, in order, and the same however often somebody looks."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from strategies import FAST

from machine.events import WaitBegun
from machine.kernel.open_waits import OpenWait, OpenWaits
from machine.kernel.wait_answers import ANSWER, CHILD_ENDED, SIGNAL, due_answers

STATE = "op.step.a"
YES = {"approved": True}


class Mail(NamedTuple):
    """A message, as a store gives it."""

    number: int
    kind: str
    data: Any
    ts_millis: int


class Post(NamedTuple):
    """A signal by correlation, as a store gives it."""

    number: int
    name: str
    correlation: str
    value: Any
    ts_millis: int


def wait(key, kind, digest="", due=None):
    begun = WaitBegun(key, f"wait.{kind}", digest or key, STATE, 0)
    return OpenWait(begun, 0, due, None)


def waits_of(*waits):
    return OpenWaits({each.begun.key: each for each in waits})


def requests(digest):
    """Return the request of a wait for a signal, which these tests spell in its digest."""
    name, _, correlation = digest.partition("/")
    return {"name": name, **({"correlation": correlation} if correlation else {})}


def answers(waits, messages=(), now=0, children=None, signals=()):
    found = due_answers(waits, requests, messages, now, children or {}, signals=signals)
    return {each.wait.begun.key: each.payload for each in found}


def test_an_approval_is_answered_by_its_key_alone():
    waits = waits_of(wait("a", "approval"), wait("b", "approval"))
    said = {"approved": False, "by": "bo", "value": 3, "at_ms": 9, "more": 1}
    found = answers(waits, [Mail(1, ANSWER, {"key": "b", "answer": said}, 5)])
    assert found == {"b": {"approved": False, "by": "bo", "comment": None, "value": 3, "at_ms": 5}}


def test_a_message_that_says_nothing_answers_nothing():
    waits = waits_of(wait("a", "approval"), wait("s", "signal", "paid"), wait("c", "child"))
    wrong = [
        *(None, 3, {}, {"key": "a"}, {"key": "a", "answer": {"approved": 1}}, {"key": "s", "answer": YES}),
        *({"name": "paid"}, {"name": "lost", "value": 1}, {"key": ["a"]}),
    ]
    for kind in (ANSWER, SIGNAL, CHILD_ENDED, "cancel"):
        assert answers(waits, [Mail(number, kind, data, 0) for number, data in enumerate(wrong, 1)]) == {}


def test_signals_go_to_the_waits_for_them_in_the_order_they_were_begun():
    waits = waits_of(wait("a", "signal", "paid"), wait("b", "signal", "other"), wait("c", "signal", "paid"))
    mail = [Mail(n, SIGNAL, {"name": "paid", "value": n}, n) for n in (4, 7, 9)]
    assert answers(waits, mail) == {
        "a": {"number": 4, "value": 4, "at_ms": 4},
        "c": {"number": 7, "value": 7, "at_ms": 7},
    }


def test_a_signal_by_correlation_is_no_message_of_the_run():
    waits = waits_of(wait("a", "signal", "paid/7"), wait("b", "signal", "paid"))
    message = Mail(1, SIGNAL, {"name": "paid", "value": 1}, 1)
    assert set(answers(waits, [message])) == {"b"}
    signals = [Post(3, "paid", "8", "no", 2), Post(4, "paid", "7", "yes", 2), Post(5, "paid", "7", "no", 2)]
    assert answers(waits, signals=signals) == {"a": {"number": 4, "value": "yes", "at_ms": 2}}


def test_a_message_after_the_time_limit_finds_it_over_and_goes_to_the_next_wait():
    waits = waits_of(wait("a", "signal", "paid", due=10), wait("b", "signal", "paid", due=11))
    mail = [Mail(1, SIGNAL, {"name": "paid", "value": 1}, 10)]
    assert answers(waits, mail) == {
        "a": {"timed_out": True, "at_ms": 10},
        "b": {"number": 1, "value": 1, "at_ms": 10},
    }


def test_times_that_passed_come_last_and_the_earliest_first():
    waits = waits_of(
        wait("late", "timer", due=20), wait("a", "approval", due=15), wait("early", "timer", due=10)
    )
    found = answers(waits, [Mail(1, ANSWER, {"key": "a", "answer": YES}, 14)], now=20)
    assert list(found) == ["a", "early", "late"]
    assert found["early"] == {"at_ms": 20}
    assert answers(waits, now=9) == {}


def test_a_clock_that_goes_back_makes_no_timer_early():
    assert answers(waits_of(wait("a", "timer", due=20)), now=19) == {}
    found = answers(waits_of(wait("a", "timer", due=20)), now=20)
    assert found["a"]["at_ms"] >= 20


def test_the_end_of_a_child_run_is_its_result():
    waits = waits_of(wait("c", "child"))
    mail = [Mail(1, CHILD_ENDED, {"key": "c", "run_id": "r"}, 1)]
    assert answers(waits, mail) == {}
    assert answers(waits, mail, children={"c": {"status": "completed"}}) == {"c": {"status": "completed"}}


NAMES = st.sampled_from(["a", "b", "c"])
DUE = st.none() | st.integers(0, 20)
WAITS = st.lists(
    st.tuples(st.sampled_from(["approval", "signal", "timer"]), NAMES, DUE),
    max_size=6,
    unique_by=lambda w: w[:2],
)
MAIL = st.lists(st.tuples(st.sampled_from([ANSWER, SIGNAL]), NAMES, st.integers(0, 20)), max_size=8)


@FAST
@given(WAITS, MAIL, st.integers(0, 25))
def test_however_often_somebody_looks_the_same_waits_get_the_same_answers(begun, sent, now):
    def fresh():
        return waits_of(
            *(
                wait(f"{kind}-{name}", kind, name, due if kind != "timer" else due or 0)
                for kind, name, due in begun
            )
        )

    sent = sorted(sent, key=lambda each: each[2])
    mail = [
        Mail(
            number,
            kind,
            {"key": f"approval-{name}", "answer": YES} if kind == ANSWER else {"name": name, "value": number},
            ts,
        )
        for number, (kind, name, ts) in enumerate(sent, 1)
    ]
    now = max([now, *(message.ts_millis for message in mail)])
    at_once = due_answers(fresh(), requests, mail, now, {})
    keys = [each.wait.begun.key for each in at_once]
    assert len(keys) == len(set(keys))
    numbers = [each.message for each in at_once if each.message is not None]
    assert numbers == sorted(set(numbers))
    left, looked = fresh(), []
    for count, message in enumerate([*mail, Mail(0, "", None, now)], 1):
        for each in due_answers(left, requests, mail[:count], message.ts_millis, {}):
            looked.append(each)
            del left.by_key[each.wait.begun.key]
            if each.message is not None:
                left.heard[each.message] = now

    def told(found):
        return {
            each.wait.begun.key: (each.message, each.payload.get("timed_out"), each.payload.get("value"))
            for each in found
        }

    assert told(looked) == told(at_once)
    assert not due_answers(left, requests, mail, now, {})
