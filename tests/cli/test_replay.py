"""`replay` and `verify`, through the real entry point."""

from __future__ import annotations

import pytest


def test_a_run_replays_identical(machine, kept):
    said = machine("replay", "@last")
    assert said.code == 0
    assert said.out.startswith("identical  ")
    assert said.err == ""
    result = machine("replay", kept, "--json").json
    assert result["identical"] is True
    assert result["divergence"] is None
    assert result["events"] == machine("show", kept, "--json").json["head_seq"]
    assert result["digest"] == machine("verify", kept, "--json").json["digest"]


def test_an_edited_line_makes_it_diverge_and_names_the_state(machine, recorded, plan_file):
    plan_file.write_text(plan_file.read_text().replace('ctx["n"] * 2', 'ctx["n"] * 3'))
    said = machine("replay", "@last")
    assert said.code == 1
    lines = said.out.splitlines()
    assert lines[0].startswith("diverged  after ")
    assert "prices.compute.total" in lines[1]
    assert "    RECORDED  25" in lines
    assert "    NOW       37" in lines
    assert "  cause  the code of prices.compute.total has changed since the recording" in lines
    result = machine("replay", "@last", "--json")
    assert result.code == 1
    assert result.json["divergence"]["state_id"] == "prices.compute.total"
    assert machine("verify", "@last").code == 0


@pytest.mark.parametrize(
    "change",
    [
        ('"12"', '"13"', "/request/argv/1"),
        ('await io.env("MACHINE_TEST_HOME")', "None", "call missing"),
        ('tags=["report"]', 'tags=["mail"]', "plan changed"),
        ('ctx["n"] * 2', "1 / 0", "ZeroDivisionError"),
    ],
)
def test_each_kind_of_change_is_told_in_its_own_words(machine, recorded, plan_file, change):
    old, new, words = change
    plan_file.write_text(plan_file.read_text().replace(old, new))
    said = machine("replay", "@last")
    assert said.code == 1
    assert words in said.out
    assert "RECORDED" in said.out
    assert "NOW" in said.out


def test_a_replay_touches_nothing(machine, recorded, here):
    (here / "out.txt").unlink()
    before = machine("events", "@last", "--json").json
    assert machine("replay", "@last").code == 0
    assert not (here / "out.txt").exists()
    assert machine("events", "@last", "--json").json == before


def test_verify_says_that_a_run_is_sound(machine, kept):
    said = machine("verify", "@last")
    assert said.code == 0
    assert said.out.startswith("sound  ")
    assert machine("verify", "@last", "--json").json["ok"] is True
