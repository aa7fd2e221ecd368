"""`diff`, through the real entry point."""

from __future__ import annotations

import pytest


@pytest.fixture
def two(machine, recorded, monkeypatch):
    """Record two runs that learned something else, and give their ids."""
    monkeypatch.setenv("MACHINE_TEST_HOME", "/home/other")
    other = machine("run", "prices.py", "--json", "--input", '{"add": 1}')
    return recorded, other.json["run_id"]


def test_identical_runs_end_with_0_and_others_with_1(machine, two, monkeypatch):
    one, other = two
    monkeypatch.delenv("MACHINE_TEST_HOME")
    again = machine("run", "prices.py", "--json", "--input", '{"add": 1}').json["run_id"]
    said = machine("diff", one, again)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0] == "the runs: identical"
    said = machine("diff", one, other)
    assert (said.code, said.err) == (1, "")
    assert said.out.splitlines()[0] == "the runs: different"


def test_what_differs_stands_under_its_pointer_a_above_b(machine, two):
    lines = machine("diff", *two).out.splitlines()
    assert "first difference: fetch.data, attempt 0, A event 4, B event 4" in lines
    assert "  fact env, A event 4, B event 4: same request, another outcome" in lines
    at = lines.index("    /response/value")
    assert lines[at + 1 : at + 3] == ["      A  null", '      B  "/home/other"']
    at = lines.index("the last contexts")
    assert lines[at + 1 : at + 4] == ["  /home", "    A  null", '    B  "/home/other"']


def test_the_whole_difference_is_one_json_object(machine, two):
    said = machine("diff", *two, "--json")
    assert (said.code, said.err) == (1, "")
    assert said.json["identical"] is False
    assert [said.json[side]["run_id"] for side in "ab"] == list(two)
    assert [state["identical"] for state in said.json["states"]] == [False, False, False]


def test_one_state_alone(machine, two):
    said = machine("diff", *two, "--state", "compute.total")
    assert said.code == 1
    assert said.out.splitlines()[0] == "compute.total: different"
    assert "began on another context" in said.out
    assert machine("diff", *two, "--state", "no.such").code == 2


def test_a_run_that_is_not_there_ends_with_5(machine, recorded):
    said = machine("diff", recorded, "zzz")
    assert said.code == 5
    assert "error[run_not_found]" in said.err
