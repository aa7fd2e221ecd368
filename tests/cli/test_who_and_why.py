"""`show` says who cancelled a run and why, who answered, and who drove it."""

from __future__ import annotations

import os

import pytest

ASKS = """
from machine import Plan

plan = Plan("asks")


@plan.state("ask.it")
async def it(ctx, io):
    await io.approval("Go?")
"""


@pytest.fixture
def asking(machine, write):
    write("asks.py", ASKS)
    return machine("run", "asks.py", "--json").json["run_id"]


def test_a_reason_is_shown(machine, asking):
    assert machine("cancel", asking, "--reason", "not needed", "--by", "ada").code == 0
    said = machine("show", asking)
    assert "cancelled  by ada" in said.out
    assert "reason     not needed" in said.out
    found = machine("show", asking, "--json").json
    assert (found["reason"], found["cancelled_by"]) == ("not needed", "ada")
    last = machine("events", asking, "--json").json["events"][-1]
    assert (last["info"]["reason"], last["info"]["cancelled_by"]) == ("not needed", "ada")


def test_who_answered_is_shown(machine, asking):
    assert machine("approve", asking, "--by", "ada", "--comment", "fine").code == 0
    assert machine("resume", asking).code == 0
    said = machine("show", asking)
    assert "ask.it approved by ada, " in said.out
    assert ": fine" in said.out
    (answer,) = machine("show", asking, "--json").json["answers"]
    assert (answer["state_id"], answer["approved"], answer["by"], answer["comment"]) == (
        "asks.ask.it",
        True,
        "ada",
        "fine",
    )


def test_who_drove_is_in_the_json(machine, asking):
    (state,) = machine("show", asking, "--json").json["states"]
    assert state["driver"].endswith(f":{os.getpid()}")


def test_an_empty_reason_gives_one_sentence(machine, asking):
    said = machine("cancel", asking, "--reason", "")
    assert said.code == 2
    assert "the reason is a text of 1 to 1024" in said.err
    assert machine("show", asking, "--json").json["status"] == "suspended"
