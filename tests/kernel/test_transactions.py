"""Units of transactions: which may answer a later attempt, and whom."""

from __future__ import annotations

import pytest

from machine.errors import ErrorCategory, ErrorInfo
from machine.events import EffectIntended, FactError, FactRecorded, FactValue
from machine.io.transaction_answers import Place, TransactionAnswers
from machine.kernel.transactions import COMMITTED, ENDS, READ_ONLY, UNIT, Transactions

STATE = "op.one.state"


def fact(digest, unit, attempt=0, *, code=None):
    outcome = FactValue("p" + digest)
    if code is not None:
        outcome = FactError("other", ErrorInfo(code, ErrorCategory.OFF_CHAIN, retryable=False, message="no"))
    return FactRecorded(f"@{STATE}/{attempt}/sql/{unit}-{digest}", "sql", digest, outcome, STATE, attempt)


def recorded(*units):
    """Fold units, each a name, its digests, and how it ended; a digest with `!` failed."""
    found = Transactions()
    for name, digests, ends in units:
        for at, digest in enumerate(digests):
            event = fact(digest.strip("!"), name, code="sql_error" if "!" in digest else None)
            info = {UNIT: name, **({ENDS: ends} if at == len(digests) - 1 and ends else {})}
            if ends == COMMITTED and at == len(digests) - 1:
                found.intend(EffectIntended(event.key, event.request_digest, "k", STATE, 0, "sql"), info)
            found.note(event, info)
    return found


def ended(found):
    return {unit.name: unit.ended for unit in found.of(STATE, range(9)) if unit.ended}


@pytest.mark.parametrize(
    ("unit", "answers"),
    [
        (("0.1", ["a", "b", "commit"], COMMITTED), {"0.1": COMMITTED}),
        (("0.1", ["a", "!b", "commit"], COMMITTED), {"0.1": COMMITTED}),
        (("0.1", ["a", "b", "!commit"], COMMITTED), {}),
        (("0.1", ["a", "b"], ""), {}),
        (("0.1", ["a", "rollback"], ""), {}),
        (("0.1", ["a", "rollback"], READ_ONLY), {"0.1": READ_ONLY}),
        (("0.1", ["!a", "rollback"], READ_ONLY), {}),
    ],
)
def test_a_unit_answers_once_its_end_is_recorded(unit, answers):
    assert ended(recorded(unit)) == answers


def test_a_commit_that_is_found_out_later_ends_its_unit():
    found = recorded(("0.1", ["a"], ""))
    commit = fact("commit", "0.1")
    intent = EffectIntended(commit.key, "commit", "k", STATE, 0, "sql")
    found.intend(intent, {UNIT: "0.1", "effect_key": "run/0.1"})
    assert (ended(found), found.effect_keys) == ({}, {commit.key: "run/0.1"})
    unknown = FactRecorded(
        commit.key, "sql", "commit", fact("x", "0", code="effect_uncertain").outcome, STATE, 0
    )
    found.note(unknown, {UNIT: "0.1"})
    assert (ended(found), found.effect_keys) == ({}, {commit.key: "run/0.1"})
    found.note(commit, {})
    assert (ended(found), found.effect_keys) == ({"0.1": COMMITTED}, {})


def answered(units, *calls):
    """Return the units that answer calls, each a place and a digest."""
    answers = TransactionAnswers()
    found = []
    for name, number, digest in calls:
        fact = answers.answer(units.of(STATE, range(9)), Place(name, number), digest)
        found.append(None if fact is None else fact.key.rpartition("/")[2])
    return found


def test_the_unit_in_the_same_place_answers():
    units = recorded(("0.1", ["a", "b", "c"], COMMITTED), ("1.1", ["a", "d", "c"], COMMITTED))
    assert answered(units, ("1.1", 0, "a"), ("1.1", 1, "d"), ("1.1", 2, "c")) == ["1.1-a", "1.1-d", "1.1-c"]


def test_one_that_was_dropped_is_not_answered_by_another_like_it():
    units = recorded(("0.1", ["a", "rollback"], ""), ("0.2", ["a", "commit"], COMMITTED))
    assert answered(units, ("0.1", 0, "a"), ("0.1", 1, "rollback"), ("0.2", 0, "a")) == [None, None, "0.2-a"]


def test_another_order_of_connections_finds_the_same_transactions():
    units = recorded(("0.1", ["a", "commit"], COMMITTED), ("1.1", ["b", "commit"], COMMITTED))
    assert answered(units, ("0.1", 0, "b"), ("1.1", 0, "a"), ("0.1", 1, "commit")) == [
        "1.1-b",
        "0.1-a",
        "1.1-commit",
    ]


def test_no_unit_answers_twice_and_none_answers_what_differs():
    units = recorded(("0.1", ["a", "commit"], COMMITTED))
    assert answered(units, ("0.1", 0, "a"), ("0.2", 0, "a"), ("0.1", 1, "other")) == ["0.1-a", None, None]


def test_what_was_committed_under_another_name_is_noticed():
    units = recorded(("0.1", ["a", "commit"], COMMITTED))
    answers = TransactionAnswers()
    assert answers.has_committed(units.of(STATE, range(9)), ["a"])
    assert not answers.has_committed(units.of(STATE, range(9)), ["b"])
    answers.answer(units.of(STATE, range(9)), Place("0.1", 0), "a")
    assert not answers.has_committed(units.of(STATE, range(9)), ["a"])
