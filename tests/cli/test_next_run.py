"""Runs that go on as another, on the command line: driven on to the last, and one row in the list."""

from __future__ import annotations

import json

import pytest

PLAN = """
from machine import Plan, StateOutcome

plan = Plan("loop", version="1")


@plan.state("count.up")
async def up(ctx, io):
    if ctx["n"] == ctx["waits"]:
        ctx["heard"] = await io.wait_signal("go")
    if ctx["n"] < 2:
        return StateOutcome(next_run={"n": ctx["n"] + 1, "waits": ctx["waits"]})
"""


@pytest.fixture
def loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.py").write_text(PLAN)
    return "loop.py:plan"


def asked(machine, *words):
    return json.loads(machine(*words, "--json").out)


def test_a_run_is_driven_on_and_listed_as_one(machine, loop):
    found = machine("run", loop, "--input", '{"n": 0, "waits": -1}')
    assert found.code == 0
    assert "segment  3, the last of runs that continue each other" in found.out
    assert found.err.count("loop version 1") == 3, "each has its progress"
    (row,) = asked(machine, "runs")["runs"]
    assert (row["segment"], row["next_run_id"]) == (3, None)
    rows = asked(machine, "runs", "--segments")["runs"]
    assert [each["segment"] for each in rows] == [3, 2, None]
    assert [each["next_run_id"] for each in rows] == [None, rows[0]["run_id"], rows[1]["run_id"]]
    assert {each["first_run_id"] for each in rows} == {None, rows[2]["run_id"]}
    assert "loop, segment 3" in machine("runs").out
    assert machine("runs").out.count("loop") == 1
    assert machine("runs", "--segments").out.count("loop") == 3
    assert machine("verify", "--all").code == machine("replay", "--all").code == 0


def test_show_names_the_runs_before_and_after(machine, loop):
    machine("run", loop, "--input", '{"n": 0, "waits": -1}')
    last, middle, first = (each["run_id"] for each in asked(machine, "runs", "--segments")["runs"])
    chains = {run_id: asked(machine, "show", run_id)["chain"] for run_id in (first, middle, last)}
    assert [each["previous"] for each in chains.values()] == [None, first, middle]
    assert [each["next"] for each in chains.values()] == [middle, last, None]
    assert [each["next_input"] for each in chains.values()] == [
        {"n": 1, "waits": -1},
        {"n": 2, "waits": -1},
        None,
    ]
    assert {(each["first"], each["last"]) for each in chains.values()} == {(first, last)}
    text = machine("show", middle).out
    assert f"continues   {first}" in text
    assert f'goes on as  {last}, with {{"n": 2, "waits": -1}}' in text
    assert f"machine show {last}" in machine("show", first).err
    machine("export", first, "-o", "first.run")
    alone = machine("show", "first.run")
    assert f"goes on as  {middle}" in alone.out
    assert "the last segment" not in alone.err + machine("show", middle).err
    assert "next run with" in machine("events", first).out
    assert asked(machine, "run", loop, "--input", '{"n": 9, "waits": -1}')["next_input"] is None
    assert asked(machine, "show", "@last")["chain"] is None
    assert "segment" not in machine("show", "@last").out


def test_commands_take_any_segment(machine, loop):
    assert machine("run", loop, "--input", '{"n": 0, "waits": 1}', "--wait", "0").code == 4
    rows = asked(machine, "runs", "--segments")["runs"]
    first, second = rows[1]["run_id"], rows[0]["run_id"]
    assert asked(machine, "runs")["runs"][0]["status"] == "suspended"
    assert machine("signal", first, "go", "7").code == 0
    assert machine("resume", first).code == 0
    assert asked(machine, "show", second)["status"] == "completed"
    assert machine("resume", first).code == 0, "which says that it has ended"
    assert machine("cancel", first).code == 1


def test_a_cancel_reaches_the_last_segment(machine, loop):
    machine("run", loop, "--input", '{"n": 0, "waits": 1}', "--wait", "0")
    rows = asked(machine, "runs", "--segments")["runs"]
    assert machine("cancel", rows[1]["run_id"]).code == 0
    assert [each["status"] for each in asked(machine, "runs", "--segments")["runs"]] == [
        "cancelled",
        "completed",
    ]


def test_a_dry_run_says_that_it_would_go_on_and_begins_nothing(machine, loop):
    found = machine("run", loop, "--input", '{"n": 0, "waits": -1}', "--dry-run")
    assert 'goes on  as a run that was not begun, with {"n": 1, "waits": -1}' in found.out
    assert len(asked(machine, "runs", "--segments")["runs"]) == 1
    assert "a run that was not begun" in machine("show", "@last").out
