"""States side by side on the command line: the options of `run`, what is shown, and `replay --schedules`."""

from __future__ import annotations

import json

import pytest

BRANCHES = """
from machine import Plan, StateOutcome

plan = Plan("fan")


@plan.state("a.choose")
async def choose(ctx, io, rec):
    return StateOutcome(goto=["a.left"])


@plan.state("a.left", after=[choose])
async def left(ctx, io, rec):
    ctx["left"] = 1


@plan.state("a.right", after=[choose])
async def right(ctx, io, rec):
    ctx["right"] = 1


@plan.state("a.beyond", after=[right])
async def beyond(ctx, io, rec):
    ctx["beyond"] = 1


@plan.state("b.tagged", tags=["slow"])
async def tagged(ctx, io, rec):
    ctx["tagged"] = 1
"""
CLASHES = """
from machine import Plan

plan = Plan("fan")
plan.state("s.a")(lambda ctx, io, rec: ctx.update(total=1))
plan.state("s.b")(lambda ctx, io, rec: ctx.update(total=2))
plan.state("s.join", after=["s.a", "s.b"])(lambda ctx, io, rec: None)
"""
FAILS = """
from machine import Plan

plan = Plan("fan")


@plan.state("s.fails")
async def fails(ctx, io, rec):
    await io.sleep(0.1)
    raise ValueError("no")


@plan.state("s.slow")
async def slow(ctx, io, rec):
    await io.sleep(0.5)
"""
COUNTS = """
from machine import Plan

plan = Plan("fan")
taken = []


def count(name):
    @plan.state(f"s.{name}")
    async def handler(ctx, io, rec):
        print("counts")
        if name in "bd":
            taken.append(name)
            ctx[name] = len(taken)


for name in "abcde":
    count(name)
"""


@pytest.fixture
def fan(write, machine):
    """Write a plan, run it with some options and give what was said."""

    def run(text, *options):
        write("fan.py", text)
        return machine("run", "fan.py", *options)

    return run


def mode_of(machine):
    return machine("show", "@last", "--json").json["config"]["execution_mode"]


def test_concurrency_is_set_over_what_the_configuration_says(fan, machine, write):
    mode = {"type": "fan_out_join", "max_concurrency": 2, "on_failure": "cancel"}
    write("config.json", json.dumps({"execution_mode": mode}))
    assert fan(BRANCHES, "--concurrency", 7, "--config", "config.json").code == 0
    assert mode_of(machine) == {**mode, "max_concurrency": 7}
    assert fan(BRANCHES, "--on-failure", "finish", "--config", "config.json").code == 0
    assert mode_of(machine) == {**mode, "on_failure": "finish"}
    assert fan(BRANCHES, "--concurrency", 3).code == 0
    assert mode_of(machine) == {"type": "fan_out_join", "max_concurrency": 3, "on_failure": "finish"}
    assert fan(BRANCHES).code == 0
    assert mode_of(machine) == {"type": "sequential"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--concurrency", "0"], "max_concurrency must be a whole number from 1"),
        (["--on-failure", "cancel"], "--concurrency N"),
        (["--concurrency", "2", "--on-failure", "stop"], '"finish", "cancel"'),
    ],
)
def test_what_cannot_work_is_refused(fan, options, words):
    said = fan(BRANCHES, *options)
    assert said.code == 2
    assert words in said.err


@pytest.mark.parametrize(("on_failure", "status"), [("finish", "completed"), ("cancel", "failed")])
def test_a_failure_lets_what_runs_finish_or_cuts_it(fan, machine, on_failure, status):
    said = fan(FAILS, "--concurrency", 2, "--on-failure", on_failure)
    assert said.code == 1
    (error,) = [line for line in said.err.splitlines() if line.startswith("error[")]
    assert "ValueError: no (" in error  # and where it was raised
    states = machine("show", "@last", "--json").json["states"]
    assert [state["status"] for state in states] == ["failed", status]
    assert machine("replay", "@last", "--schedules", 3).code == 0


@pytest.mark.parametrize("options", [(), ("--concurrency", 4)], ids=["sequential", "side by side"])
def test_a_branch_is_told_in_words(fan, machine, options):
    said = fan(BRANCHES, "--skip-tag", "slow", *options)
    assert said.code == 0
    told = {
        "a.choose": "did not go on to a.right",
        "a.right": "a.choose did not go on to it",
        "a.beyond": "it follows a.right, which was skipped",
        "b.tagged": "it has the tag slow",
    }
    for name, words in told.items():
        assert any(
            name in line and line.endswith(words) for line in machine("show", "@last").out.splitlines()
        )
        assert any(
            name in line and line.endswith(words) for line in machine("events", "@last").out.splitlines()
        )
        if name != "a.choose":
            assert any(name in line and line.endswith(words) for line in said.err.splitlines())
    states = {state["state_id"]: state for state in machine("show", "@last", "--json").json["states"]}
    assert states["fan.a.choose"]["not_taken"] == ["fan.a.right"]
    assert states["fan.a.beyond"]["reason"] == "unreachable:fan.a.right"


def test_a_conflict_is_told_wherever_the_run_is(fan, machine):
    said = fan(CLASHES, "--concurrency", 2)
    assert said.code == 1
    words = "fan.s.a and fan.s.b wrote different values to 'total'"
    assert f"error[context_conflict]: {words}" in said.err
    assert "let one follow the other" in said.err
    assert f"error[context_conflict]: {words}" in machine("show", "@last").out
    assert f"failed: context_conflict: {words}" in machine("events", "@last").out
    error = machine("show", "@last", "--json").json["error"]
    assert error["details"] == {"key": "total", "states": ["fan.s.a", "fan.s.b"]}


# -- replay --schedules ----------------------------------------------------------------------------------------


def test_one_digest_under_every_schedule(fan, machine):
    result = fan(BRANCHES, "--concurrency", 4, "--json").json
    said = machine("replay", "@last", "--schedules", 4)
    assert (said.code, said.err) == (0, "")
    assert said.out == f"identical  under 5 schedules  digest {result['digest'][:12]}\n"
    found = machine("replay", "@last", "--schedules", 4, "--seed", 9, "--json").json
    assert (found["identical"], found["schedules"], found["seed"]) == (True, 4, 9)
    assert (found["digest"], found["race"], found["divergence"]) == (result["digest"], None, None)


def test_who_raced_is_named_with_the_key(fan, machine):
    assert fan(COUNTS, "--concurrency", 1).code == 0
    said = machine("replay", "@last", "--schedules", 20)
    assert (said.code, said.err) == (1, "")
    lines = said.out.splitlines()
    assert lines[0] == "raced  fan.s.d and fan.s.b"
    assert lines[1] == "  it shows in fan.s.d: the context, /d"
    assert lines[lines.index("  /d") + 1 :][:2] == ["    RECORDED  2", "    NOW       1"]
    assert lines[-1].strip().startswith("next   keep it in the context, or let one follow the other")
    found = machine("replay", "@last", "--schedules", 20, "--json")
    assert found.code == 1
    assert found.json["race"]["states"] == ["fan.s.d", "fan.s.b"]
    assert found.json["race"]["pointer"] == "/d"
    assert found.json["divergence"]["cause"] == "states_raced"


def test_a_bundle_is_replayed_under_other_schedules_too(fan, machine, here):
    assert fan(BRANCHES, "--concurrency", 4).code == 0
    assert machine("export", "@last", "--output", "fan.run").code == 0
    assert machine("replay", "fan.run", "--schedules", 2).out.startswith("identical  under 3 schedules")


def test_code_that_has_changed_is_no_race(fan, machine, write):
    assert fan(BRANCHES, "--concurrency", 4).code == 0
    write("fan.py", BRANCHES.replace('ctx["left"] = 1', 'ctx["left"] = 2'))
    said = machine("replay", "@last", "--schedules", 2)
    assert said.code == 1
    assert said.out.startswith("diverged  already under the recorded schedule")
    assert "the code of fan.a.left has changed" in said.out


def test_where_the_plan_allows_fewer_schedules_it_says_so(fan, machine):
    assert fan(CLASHES.replace("total=2", "total=1"), "--concurrency", 2).code == 0
    said = machine("replay", "@last", "--schedules", 9)
    assert said.out.startswith("identical  under 2 schedules")
    assert "the plan allows 1 other than the recorded one" in said.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--schedules", "0"], "must be a whole number from 1"),
        (["--schedules", "-3"], "must be a whole number from 1"),
        (["--schedules", "many"], "--schedules"),
        (["--seed", "3"], "--schedules N"),
        (["@last", "--schedules", "3"], "--schedules takes a single run"),
    ],
)
def test_options_that_cannot_work_are_refused(fan, machine, options, words):
    assert fan(BRANCHES, "--concurrency", 4).code == 0
    said = machine("replay", "@last", *options)
    assert said.code == 2
    assert words in said.err


def test_a_run_of_one_state_at_a_time_has_one_schedule(fan, machine):
    assert fan(BRANCHES).code == 0
    said = machine("replay", "@last", "--schedules", 3)
    assert said.code == 2
    assert "was recorded in sequential mode" in said.err
    assert "--concurrency N" in said.err
