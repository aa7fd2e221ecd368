"""`--label`: runs are labelled when they are started, and found by it."""

from __future__ import annotations

import pytest

PLAN = 'from machine import Plan\nplan = Plan("one")\n@plan.state("a.b")\ndef b(ctx): ...\n'


@pytest.fixture
def runs(machine, write):
    write("one.py", PLAN)
    labels = (("team=search", "env=test"), ("team=shop",), ())
    options = [[part for label in each for part in ("--label", label)] for each in labels]
    return [machine("run", "one.py", "--json", *each).json["run_id"] for each in options]


def test_runs_are_found_by_their_labels(machine, runs):
    found = machine("runs", "--label", "team=search", "--json").json["runs"]
    assert [(row["run_id"], row["labels"]) for row in found] == [(runs[0], {"env": "test", "team": "search"})]
    assert machine("runs", "--label", "team=search", "--label", "env=prod", "--json").json["runs"] == []
    said = machine("runs")
    assert "LABELS" in said.out
    assert "env=test team=search" in said.out
    none = machine("runs", "--label", "team=none")
    assert (none.code, none.out) == (0, "")
    assert "there is no such run" in none.err


def test_show_has_them(machine, runs):
    assert machine("show", runs[0], "--json").json["labels"] == {"env": "test", "team": "search"}
    assert "labels    env=test team=search" in machine("show", runs[0]).out
    assert machine("show", runs[2], "--json").json["labels"] == {}
    assert "labels" not in machine("show", runs[2]).out


def test_a_list_of_runs_without_labels_has_no_column_for_them(machine, write):
    write("one.py", PLAN)
    machine("run", "one.py")
    assert "LABELS" not in machine("runs").out


@pytest.mark.parametrize("label", ["team", "=x", "a b=c", "team="])
@pytest.mark.parametrize("command", [("run", "one.py"), ("runs",)])
def test_a_mistake_gives_one_sentence(machine, write, command, label):
    write("one.py", PLAN)
    said = machine(*command, "--label", label)
    assert said.code == 2
    assert "error[invalid_label]" in said.err
    assert "Traceback" not in said.err
