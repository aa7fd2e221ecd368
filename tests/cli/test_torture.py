"""`machine torture`: the table of unsafe boundaries, and what it says to a script."""

from __future__ import annotations

import re

PRICES = """
from machine import Plan

plan = Plan("small", version="1")


@plan.state("read.clock")
async def clock(ctx, io, rec):
    print("a handler prints")
    ctx["at"] = await io.now()


@plan.state("write.out", after=[clock], tags=["report"], side_effects="apply_side_effect", idempotency="once")
async def out(ctx, io, rec):
    await io.write_file("out.txt", str(ctx["at"]))
"""

LEAKY = """
from machine import Plan

plan = Plan("leaky", version="1")
begun = []


@plan.state("count.lives", tags=["compute"])
async def lives(ctx, io, rec):
    begun.append(1)
    at = await io.now()
    ctx["lives"] = len(begun)
    begun.clear()
"""

TWICE = """
from machine import Plan

plan = Plan("twice", version="1")


@plan.state("send.mail", side_effects="apply_side_effect", idempotency="mail")
async def mail(ctx, io, rec):
    await io.exec(["true"])
"""

FAILING = """
from machine import Plan

plan = Plan("failing", version="1")


@plan.state("only.one")
async def one(ctx, io, rec):
    raise ValueError("no")
"""


def test_a_safe_plan_is_said_to_be_safe(machine, write):
    write("small.py", PRICES)
    said = machine("torture", "small.py", "--fault", "killed_after_append", "--fault", "torn_write")
    assert (said.code, said.out) == (0, "9 boundaries x 2 faults: all safe\n")
    assert "a handler prints" in said.err


def test_what_is_unsafe_is_a_table_and_exit_code_one(machine, write):
    write("leaky.py", LEAKY)
    said = machine("torture", "leaky.py", "--fault", "killed_before_append")
    assert said.code == 1
    head, columns, *rows = said.out.splitlines()
    assert head == "5 boundaries x 1 faults: 1 unsafe"
    assert columns.split() == ["SEQ", "EVENT", "STATE", "FAULT", "REASON"]
    (row,) = rows
    assert row.split() == [
        *("3", "fact_recorded", "leaky.count.lives", "killed", "before", "append"),
        *("the", "final", "context", "is", "another"),
    ]
    stopped = machine("torture", "leaky.py", "--fault", "eio", "--stop-at-first")
    # how late a run hears of an append that failed behind it is a matter of the moment
    assert re.match(r"5 boundaries x 1 faults: 1 unsafe, [1-4] not tried\n", stopped.out)


def test_a_program_run_twice_is_unsafe_until_it_is_said_to_be_harmless(machine, write):
    write("twice.py", TWICE)
    said = machine("torture", "twice.py", "--fault", "killed_before_append")
    assert said.code == 1
    assert said.out.endswith("an effect of exec was sent twice, and its receiver cannot tell\n")
    said = machine("torture", "twice.py", "--fault", "killed_before_append", "--idempotent", "exec")
    assert (said.code, said.out) == (0, "6 boundaries x 1 faults: all safe\n")


def test_json_has_every_cell(machine, write):
    write("small.py", PRICES)
    said = machine("torture", "small.py", "--json", "--fault", "eio", "--skip-tag", "report")
    assert said.code == 0
    assert (said.json["safe"], said.json["op_id"], said.json["faults"]) == (True, "small", ["eio"])
    assert [cell["boundary"] and cell["boundary"]["event"] for cell in said.json["cells"]] == [
        None,
        "run_started",
        "state_entered",
        "fact_recorded",
        "state_completed",
        "state_skipped",
        "run_completed",
    ]


def test_a_run_that_fails_is_tortured_all_the_same(machine, write):
    write("failing.py", FAILING)
    said = machine("torture", "failing.py", "--fault", "killed_after_append")
    assert said.code == 0, said.out
    assert "the run itself ended failed" in said.err


def test_a_fault_there_is_not_is_a_mistake_in_the_command(machine, write):
    write("small.py", PRICES)
    said = machine("torture", "small.py", "--fault", "flood")
    assert said.code == 2
    assert "killed_before_append" in said.err


CLOCK = """
import time

from machine import Plan

plan = Plan("clock", version="1")


@plan.state("read.clock")
async def clock(ctx, io, rec):
    time.time()
    ctx["at"] = await io.now()
"""


def test_what_a_handler_does_without_io_is_told_by_the_first_run_alone(process, write):
    write("clock.py", CLOCK)
    said = process("torture", "clock.py", "--fault", "killed_before_append")
    assert said.code == 0, said.err
    assert said.err.count("clock.read.clock reads the clock (time.time) without io at clock.py:11") == 1


WAITS = """
from machine import Plan

plan = Plan("waits", version="1")


@plan.state("ask.one")
async def one(ctx, io):
    ctx["by"] = (await io.approval("Refund?", key="refund")).by
    await io.sleep(86400)
"""


def test_a_plan_that_waits_is_answered_in_advance(machine, write):
    write("waits.py", WAITS)
    answered = ["--answer", 'refund={"approved": true, "by": "ada"}', "--clock", "skip"]
    said = machine("torture", "waits.py", *answered, "--fault", "killed_after_append")
    assert (said.code, said.out) == (0, "12 boundaries x 1 faults: all safe\n")


def test_a_plan_that_waits_and_has_no_answers_is_refused_with_what_it_waits_for(machine, write):
    write("waits.py", WAITS)
    said = machine("torture", "waits.py")
    assert said.code == 2
    assert "the run is suspended and waits for approval refund" in said.err
    assert "--answer KEY=JSON, --clock skip" in said.err
