"""Goldens of runs that wait: recorded with answers in advance and without patience, replayed with nobody there."""

from __future__ import annotations

import pytest
from golden_suite import empty_suite, said

PLAN = """
from machine import Plan

plan = Plan("refunds", version="1")


@plan.state("ask.person")
async def ask(ctx, io):
    decision = await io.approval("Refund?", key="refund")
    ctx["by"] = decision.by
    await io.sleep(7 * 86400)
    ctx["at"] = await io.now()
    ctx["paid"] = await io.wait_signal("paid")
"""

TEST = """
from refunds import plan

CLOCK = 1_700_000_000_000


def test_refunds(golden):
    result = golden.check(plan, clock=CLOCK, answers={"refund": {"approved": True, "by": "ada"}, "paid": 7})
    assert result.context == {"at": CLOCK + 7 * 86_400_000, "by": "ada", "paid": 7}
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    made = empty_suite(pytester, monkeypatch)
    made.write("refunds.py", PLAN)
    made.write("test_refunds.py", TEST)
    return made


def test_a_golden_of_a_run_that_waits_is_recorded_at_once_and_replays_alone(suite):
    assert "1 passed" in said(suite.run("--golden=record-missing"))
    suite.change(
        'answers={"refund": {"approved": True, "by": "ada"}, "paid": 7}', "answers={}", "test_refunds.py"
    )
    assert "1 identical" in said(suite.run())
    suite.golden("test_refunds").unlink()
    found = said(suite.run("--golden=record-missing"))
    assert "give it the answers that it waits for: check(..., answers={'refund': ...})" in found


def test_changed_code_is_accepted_on_the_recorded_answers(suite):
    suite.run("--golden=record-missing")
    suite.change('ctx["by"] = decision.by', 'ctx["by"] = decision.by.upper()', "refunds.py")
    suite.change('"by": "ada", "paid"', '"by": "ADA", "paid"', "test_refunds.py")
    suite.change(
        'answers={"refund": {"approved": True, "by": "ada"}, "paid": 7}', "answers={}", "test_refunds.py"
    )
    assert "1 failed" in said(suite.run())
    assert "1 passed" in said(suite.run("--golden-accept"))
    assert "1 identical" in said(suite.run())
