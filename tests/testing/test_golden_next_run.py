"""A golden of a run that goes on as another is one segment, like its replay."""

from __future__ import annotations

from golden_suite import empty_suite, said

PLAN = """
from machine import Plan, StateOutcome

plan = Plan("loop", version="1")


@plan.state("count.up")
async def up(ctx, io):
    ctx["id"] = str(await io.uuid())
    return StateOutcome(next_run={"n": ctx.get("n", 0) + 1})
"""

TEST = """
from loop import plan


def test_loop(golden):
    result = golden.check(plan)
    assert result.status == "completed"
"""


def test_a_golden_is_one_segment_of_a_run_that_would_go_on_for_ever(pytester, monkeypatch):
    suite = empty_suite(pytester, monkeypatch)
    suite.write("loop.py", PLAN)
    suite.write("test_loop.py", TEST)
    assert "1 passed" in said(suite.run("--golden=record-missing"))
    text = suite.golden("test_loop").read_text()
    assert '"version":9' in text
    assert not [word for word in ("next_input_id", "previous_run", "first_run", '"segment"') if word in text]
    assert "1 identical" in said(suite.run())
    suite.change("+ 1}", "+ 2}", "loop.py")
    found = said(suite.run())
    assert "the run goes on as another with a different input" in found
    assert "1 passed" in said(suite.run("--golden-accept"))
    assert "1 identical" in said(suite.run())
