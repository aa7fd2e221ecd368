"""Child runs on the command line: `show`, `@last`, `resume`, `replay --deep`."""

from __future__ import annotations

import pytest

from machine import open_store

FAMILY = """
from machine import Plan

child = Plan("child", version="1")
plan = Plan("family", version="1")


@child.state("ask.it")
async def ask(ctx, io):
    ctx["by"] = (await io.approval("Go on?", key="ask")).by


@plan.state("begin.child")
async def begin(ctx, io):
    ctx["status"] = (await io.run_child(child, {"n": 1}, key="the child")).status
"""


@pytest.fixture
def family(machine, write):
    write("family.py", FAMILY)
    said = machine("run", "family.py:plan", "--json")
    assert said.code == 4, said.err
    return said.json["run_id"]


def child_of(family):
    with open_store("sqlite:///.machine/runs.db") as store:
        (row,) = store.list_runs(op="child").rows
    return row.run_id


def test_the_last_run_is_the_one_that_was_started_and_no_child_of_it(machine, family):
    assert machine("show", "@last", "--json").json["run_id"] == family


def test_show_lists_the_children_and_the_run_that_began_one(machine, family):
    child = child_of(family)
    shown = machine("show", family)
    assert f"{child}  suspended  child  begin.child" in shown.out
    assert f"the end of run {child}" in shown.out
    assert f"child: machine show {child}" in shown.err
    as_json = machine("show", family, "--json").json
    assert as_json["children"] == [
        {
            "run_id": child,
            "op_id": "child",
            "status": "suspended",
            "state_id": "family.begin.child",
            "key": "the child",
        }
    ]
    assert as_json["child_of"] is None
    assert f"child of  {family}" in machine("show", child).out
    assert machine("show", child, "--json").json["child_of"] == {"run_id": family, "key": "the child"}


def test_an_answer_to_the_child_lets_its_parent_go_on(machine, family):
    child = child_of(family)
    assert machine("approve", child, "--by", "ada").code == 0
    said = machine("resume", family, "--json")
    assert (said.code, said.json["status"]) == (0, "completed")
    assert machine("context", family).out.strip().endswith('"status": "completed"\n}')
    shown = machine("show", family)
    assert f"{child}  completed  child  begin.child" in shown.out
    assert "which nothing waits for" not in shown.out


def test_a_child_alone_cannot_be_resumed_and_the_way_is_named(machine, family):
    child = child_of(family)
    said = machine("resume", child)
    assert said.code == 2
    assert f"hint: it is a child of run {family}: machine resume {family} drives it" in said.err
    assert machine("resume", child, "--target", "family.py:child").code == 4


LEFT = FAMILY.replace('key="the child"', 'key="the child", on_parent_end="leave"')


@pytest.mark.parametrize("apart", [False, True], ids=["in the same file", "in a module of its own"])
def test_a_child_that_was_left_to_itself_knows_its_plan_and_a_worker_drives_it(machine, write, apart):
    source = LEFT
    if apart:
        child, begin = LEFT.replace("run_child(child", "run_child(apart.child").split("@plan.state")
        declared = 'plan = Plan("family", version="1")\n'
        write("apart.py", child.replace(declared, ""))
        source = f"import apart\nfrom machine import Plan\n\n{declared}\n\n@plan.state{begin}"
    write("left.py", source)
    family = machine("run", "left.py:plan", "--json").json["run_id"]
    child = child_of(family)
    assert machine("cancel", family).code in {0, 130}
    assert machine("show", child, "--json").json["status"] == "suspended"
    assert machine("approve", child, "--by", "ada").code == 0
    said = machine("work", "--until-idle", "--json")
    assert said.json == {"counts": {"completed": 1}, "left_alone": 0}
    assert machine("replay", child).code == 0


def test_replay_deep_replays_the_children_too(machine, family, write):
    child = child_of(family)
    said = machine("replay", family, "--deep")
    assert said.code == 0, said.err
    assert f"identical  child {child}" in said.out
    assert machine("replay", family, "--deep", "--json").json["children"][0]["run_id"] == child
    write("changed.py", FAMILY.replace("Go on?", "Really go on?"))
    assert machine("replay", family, "--target", "changed.py:plan").code == 0
    said = machine("replay", family, "--target", "changed.py:plan", "--deep")
    assert said.code == 1
    assert f"in the child run {child} of child" in said.out


def test_replay_deep_of_a_bundle_says_what_it_needs(machine, family):
    machine("export", family, "-o", "family.run")
    assert machine("replay", "family.run", "--target", "family.py:plan").code == 0
    said = machine("replay", "family.run", "--target", "family.py:plan", "--deep")
    assert said.code == 5
    assert said.err.startswith("error[run_not_found]: ")
    assert "import those of its children and its own into one store" in said.err


def test_deep_takes_a_single_run(machine, family):
    said = machine("replay", family, family, "--deep")
    assert (said.code, said.err.splitlines()[0]) == (
        2,
        "error[usage]: --deep takes a single run, and no --schedules",
    )


def test_a_cancel_goes_down(machine, family):
    assert machine("cancel", family).code in {0, 130}
    assert machine("show", child_of(family), "--json").json["status"] == "cancelled"
