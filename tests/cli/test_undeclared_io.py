"""`--undeclared-io`: what a handler does without io is one line on stderr for each place, or fails the run."""

from __future__ import annotations

import pytest

from machine import RunConfig, export_run, open_store, run
from machine.target import load

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


def test_where_no_call_of_io_does_it_the_option_is_named(machine, write):
    write(
        "clocks.py",
        PLAN.replace("time.time(); time.monotonic()", "time.process_time(); import os; os.getpid()"),
    )
    said = machine("run", "clocks.py")
    remedy = 'or allow it: --undeclared-io allow, from Python undeclared_io="allow"'
    assert any(line.endswith(remedy) for line in said.err.splitlines()), said.err
    allowed = machine("run", "clocks.py", "--undeclared-io", "allow")
    assert (allowed.code, "warning" in allowed.err) == (0, False)


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


def test_show_tells_of_a_run_that_was_told_not_to_look(machine, clocks):
    assert machine("run", "clocks.py", "--undeclared-io", "allow").code == 0
    said = machine("show", "@last")
    assert (said.code, '{"undeclared_io":"allow"}' in said.out.replace(" ", "")) == (0, True), (
        said.out + said.err
    )
    assert machine("run", "clocks.py").code == 0
    assert "\nconfig " not in machine("show", "@last").out


def test_show_tells_of_a_golden_that_was_imported(machine, clocks):
    golden = "golden.run"
    with open_store("memory://") as store:  # a golden is recorded so
        done = run(load(str(clocks)).plan, store=store, config=RunConfig(undeclared_io="error"))
        export_run(done.run_id, golden, store=store)
    imported = machine("import", golden)
    assert imported.code == 0, imported.err
    for name in (imported.out.strip(), golden):
        said = machine("show", name)
        assert (said.code, '"undeclared_io"' in said.out) == (0, True), said.out + said.err
