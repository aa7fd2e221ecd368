"""`--undeclared-io`: what a handler does without io is one line on stderr for each place, or fails the run."""

from __future__ import annotations

import pytest

PLAN = """
import time

from machine import Plan

plan = Plan("clocks")

@plan.state("read.clock")
async def clock(ctx, io, rec):
    for _ in range(3):
        time.time()
    time.time(); time.monotonic()
"""
FIRST = (
    'warning: clocks.read.clock reads the clock (time.time) without io at clocks.py:11; use "await io.now()"'
)


@pytest.fixture
def clocks(write):
    """Write a plan that reads the clock at two lines: `clocks.py`."""
    return write("clocks.py", PLAN)


def test_a_run_warns_once_for_each_place(machine, clocks):
    said = machine("run", "clocks.py")
    assert said.code == 0
    warnings = [line for line in said.err.splitlines() if line.startswith("warning:")]
    assert warnings == [FIRST, FIRST.replace(":11;", ":12;")]


def test_quiet_and_json_leave_the_warnings_out_and_json_lists_them(machine, clocks):
    assert "warning" not in machine("run", "clocks.py", "--quiet").err
    said = machine("run", "clocks.py", "--json")
    assert said.err == ""
    found = said.json["undeclared_io"]
    assert [(one["state_id"], one["event"], one["line"]) for one in found] == [
        ("clocks.read.clock", "time.time", 11),
        ("clocks.read.clock", "time.time", 12),
    ]
    assert machine("replay", "@last", "--json").json["undeclared_io"] == found


def test_a_replay_warns_and_can_be_told_to_refuse_or_not_to_look(machine, clocks):
    machine("run", "clocks.py")
    said = machine("replay", "@last")
    assert (said.code, said.err.splitlines()[0]) == (0, FIRST)
    assert machine("replay", "@last", "--undeclared-io", "allow").err == ""
    said = machine("replay", "@last", "--undeclared-io", "error")
    assert said.code == 1
    assert "undeclared io at event 3" in said.out


def test_a_run_can_be_told_to_refuse_or_not_to_look(machine, clocks, write):
    said = machine("run", "clocks.py", "--undeclared-io", "error")
    assert said.code == 1
    assert (
        "error[undeclared_io]: clocks.read.clock reads the clock (time.time) without io at clocks.py:11"
        in (said.err)
    )
    assert "warning" not in machine("run", "clocks.py", "--undeclared-io", "allow").err
    write("config.json", '{"undeclared_io": "error"}')
    assert machine("run", "clocks.py", "--config", "config.json").code == 1
    assert machine("run", "clocks.py", "--config", "config.json", "--undeclared-io", "warn").code == 0
    assert machine("run", "clocks.py", "--undeclared-io", "refuse").code == 2
