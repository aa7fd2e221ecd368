"""Functions as steps in goldens: recorded once, and not called by the test from then on."""

from __future__ import annotations

from tests.golden_suite import said

STEPS = """
import os
from pathlib import Path

import machine
from machine import Plan

plan = Plan("prices", version="1")


@machine.step
def read_world() -> tuple[str, float]:
    return Path("world.txt").read_text(), 2.0


def number(text):
    return int(text)


@plan.state("fetch.data", side_effects="read_only_io")
async def data(ctx):
    text, factor = read_world()
    assert type(factor) is float
    ctx["text"] = text


@plan.state("compute.total", after=[data], side_effects="read_only_io")
def total(ctx, io):
    ctx["total"] = io.step(number, ctx["text"]) * 2 + ctx.get("add", 0)
"""


def test_steps_are_not_called_by_a_golden(suite):
    suite.write("prices.py", STEPS)
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    suite.unplug()
    suite.run().assert_outcomes(passed=1)
    suite.change("* 2 +", "* 3 +")
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "NOW       37" in said(result)


def test_a_step_without_its_mark_goes_outside_and_is_refused(suite):
    suite.write("prices.py", STEPS)
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    suite.change("@machine.step\n", "")
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "call missing" in said(result) or "without io" in said(result)
