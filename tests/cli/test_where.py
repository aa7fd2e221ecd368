"""`--where` on the command line: runs are listed, cancelled and signalled by a filter."""

from __future__ import annotations

import pytest

from machine import open_store, run
from machine.target import load

PLAN = """
from machine import Failure, Plan

plan = Plan("op")


@plan.state("work.only")
async def only(ctx, io):
    if ctx["do"] == "fail":
        raise Failure("no", code="out_of_stock")
    if ctx["do"] == "wait":
        ctx["paid"] = await io.wait_signal("paid")
"""
STORE = "sqlite:///.machine/runs.db"


@pytest.fixture
def names(write):
    """Return the names of the runs of a store by their ids: one completed, one failed and two that wait."""
    write("plan.py", PLAN)
    loaded = load("plan.py:plan")
    with open_store(STORE) as store:
        return {
            run(loaded.plan, target=loaded.target, store=store, input={"do": do, "n": n}).run_id: f"{do}{n}"
            for n, do in enumerate(("done", "fail", "wait", "wait"))
        }


def test_runs_lists_what_a_filter_selects(machine, names):
    said = machine("runs", "--where", "error.code = out_of_stock or waiting >= 0s", "--json")

    assert [names[row["run_id"]] for row in said.json["runs"]] == ["wait3", "wait2", "fail1"]
    assert (said.json["more"], said.json["unreadable"]) == (False, [])
    fewer = machine("runs", "--where", "age >= 0s", "--status", "suspended", "--limit", "1", "--json")
    assert (len(fewer.json["runs"]), fewer.json["more"]) == (1, True)
    assert "there is no such run" in machine("runs", "--where", "age > 100d").err


def test_a_dry_run_says_which_runs_it_would_take_and_does_nothing(machine, names):
    for command in (["cancel"], ["signal", "paid"]):
        said = machine(*command, "--where", "op = op", "--dry-run", "--json")
        assert said.code == 0
        assert [names[row["run_id"]] for row in said.json["runs"]] == ["wait2", "wait3"]
        assert said.json["dry_run"] is True
    assert "nothing was done" in machine("cancel", "--where", "op = op", "--dry-run").err
    with open_store(STORE) as store:
        assert len(store.list_runs(status="suspended").rows) == 2


def test_cancel_ends_every_run_that_a_filter_selects(machine, names):
    said = machine("cancel", "--where", "wait = signal", "--json")

    assert (said.code, said.json["total"], said.json["failed"]) == (0, 2, 0)
    assert {row["status"] for row in said.json["runs"]} == {"cancelled"}
    again = machine("cancel", "--where", "wait = signal")
    assert (again.code, again.out) == (0, "")
    assert "there is no such run" in again.err


def test_signal_reaches_every_run_that_a_filter_selects(machine, names):
    said = machine("signal", "--where", "wait = signal and state = work.only", "paid", "7", "--json")

    assert (said.code, said.json["total"]) == (0, 2)
    assert all(row["key"] for row in said.json["runs"])
    assert machine("resume", "--all", "--jobs", "1").code == 0


def test_runs_are_paused_and_go_on_by_filter_and_by_name(machine, names):
    dry = machine("pause", "--where", "wait = signal", "--dry-run", "--json")
    assert (dry.code, dry.json["total"]) == (0, 2)
    said = machine("pause", "--where", "wait = signal", "--json")
    assert (said.code, said.json["failed"]) == (0, 0)
    last = next(run_id for run_id, name in names.items() if name == "wait3")
    machine("signal", last, "paid", "7")
    resumed = machine("resume", last)
    assert resumed.code == 4
    assert f"machine continue {last}" in resumed.err
    assert "it is paused" in machine("waiting").out
    assert "somebody to let it go on" in machine("events", last).out
    assert [row["run_id"] for row in machine("runs", "--where", "wait = pause", "--json").json["runs"]] == [
        last
    ]

    assert "machine resume" in machine("continue", last).err
    assert machine("resume", last).code == 0
    assert machine("continue", last).code == 1
    assert machine("continue", "--where", "state = work.only", "--json").json["total"] == 1


def test_what_fails_stops_no_other_and_is_the_exit_code(machine, names, monkeypatch):
    import machine as library

    broken = next(run_id for run_id, name in names.items() if name == "wait2")
    cancel = library.cancel

    def failing(run_id, **given):
        if run_id == broken:
            raise library.errors.RunError("its driver does not answer", code="cancel_pending")
        return cancel(run_id, **given)

    monkeypatch.setattr(library, "cancel", failing)
    said = machine("cancel", "--where", "status = suspended", "--json")

    assert (said.code, said.json["failed"]) == (1, 1)
    assert [row.get("error", {}).get("code") for row in said.json["runs"]] == ["cancel_pending", None]


@pytest.mark.parametrize(
    "command",
    [
        ["cancel"],
        ["cancel", "@last", "--where", "op = x"],
        ["cancel", "@last", "--dry-run"],
        ["cancel", "--where", "nope = x"],
        ["runs", "--where", "status = nope"],
        ["signal", "--where", "op = x"],
        ["signal", "paid", "--dry-run", "--correlation", "x"],
        ["signal", "paid", "--where", "op = x", "--correlation", "x"],
    ],
)
def test_what_means_nothing_is_refused(machine, names, command):
    assert machine(*command).code == 2
