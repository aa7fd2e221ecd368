"""The status machine: exactly the transitions of the contract."""

from __future__ import annotations

import itertools

import pytest

from machine.kernel.run_status import FINAL_STATUSES, RunStatus, may_follow

# written from the contract, not taken from the code
ALLOWED = {
    ("pending", "running"),
    ("running", "suspended"),
    ("running", "completed"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "limit_exceeded"),
    ("suspended", "running"),
    ("suspended", "cancelled"),
}


@pytest.mark.parametrize(("current", "status"), [*itertools.product(RunStatus, RunStatus)])
def test_a_status_follows_another_exactly_when_the_contract_says_so(current, status):
    assert may_follow(current, status) == ((current.value, status.value) in ALLOWED)


def test_what_is_final_has_no_successor_and_the_rest_has_one():
    final = {current for current in RunStatus if not any(may_follow(current, status) for status in RunStatus)}

    assert final == FINAL_STATUSES == {"completed", "failed", "cancelled", "limit_exceeded"}
