"""`machine schedule`: plans that start at set times."""

from __future__ import annotations

import pytest

from machine import open_store
from machine.stores.schedule import CatchUp

STORE = "sqlite:///.machine/runs.db"
NIGHTLY = """
from machine import Plan

plan = Plan("nightly")


@plan.state("a.counts")
def counts(ctx):
    print("counting")
    ctx["counted"] = ctx.get("n", 0) + 1
"""


@pytest.fixture
def nightly(write):
    return write("nightly.py", NIGHTLY)


@pytest.fixture
def added(machine, nightly):
    said = machine(
        "schedule", "add", "n", "nightly.py", "--cron", "* * * * *", "--input", '{"n": 6}', "--json"
    )
    assert said.code == 0, said.err
    return said.json


def test_a_schedule_is_added_listed_paused_resumed_and_removed(machine, nightly, here):
    said = machine(
        *("schedule", "add", "n", "nightly.py", "--cron", "30 2 * * *", "--tz", "Europe/Berlin"),
        *("--catch-up", "one", "--overlap", "queue"),
    )
    assert (said.code, said.err) == (0, "to start its runs: machine schedule run\n")
    lines = said.out.splitlines()
    assert lines[:2] == ["schedule  n", "times     30 2 * * *  Europe/Berlin"]
    assert lines[2].startswith("next      20")
    assert lines[3] == f"target    {here}/nightly.py:plan"
    listed = machine("schedule", "list")
    assert listed.out.splitlines()[0].split() == ["NAME", "CRON", "TZ", "LAST", "NEXT", "TARGET"]
    assert listed.out.splitlines()[1].startswith("n     30 2 * * *  Europe/Berlin  -     20")
    (one,) = machine("schedule", "list", "--json").json["schedules"]
    assert {
        "name": "n",
        "cron": "30 2 * * *",
        "tz": "Europe/Berlin",
        "catch_up": "one",
        "overlap": "queue",
        "input": {},
        "paused": False,
        "last": None,
        "target": {"spec": f"{here}/nightly.py:plan", "directory": str(here)},
    }.items() <= one.items()
    paused = machine("schedule", "pause", "n")
    assert (paused.code, paused.out.splitlines()[2]) == (0, "next      paused")
    assert machine("schedule", "list", "--json").json["schedules"][0]["next"] is None
    assert machine("schedule", "resume", "n", "--json").json["next"] == one["next"]
    assert machine("schedule", "remove", "n").out == "schedule  n\nremoved   its runs stay\n"
    assert machine("schedule", "list").err == "note: there are no schedules yet\n"
    assert machine("schedule", "remove", "n", "--json").json["error"]["code"] == "schedule_not_found"


def missed(store_url=STORE, minutes=5):
    """Let the schedule have been there for some minutes, with nobody to start anything."""
    with open_store(store_url) as store:
        (one,) = store.schedules()
        store._session.conn.execute("UPDATE schedules SET since_ms = since_ms - ?", (minutes * 60_000,))
        return one


def test_its_runs_are_started_and_driven_to_their_end(machine, added):
    missed()
    said = machine("schedule", "run", "--once")
    assert said.code == 0, said.err
    assert said.out.startswith("1 run: 1 completed in ")
    assert "counting\n" in said.err, "what handlers print is no data"
    (row,) = machine("runs", "--json").json["runs"]
    assert row["invocation_key"].startswith("schedule:n:20")
    (one,) = machine("schedule", "list", "--json").json["schedules"]
    assert one["last"] == {"instant": row["invocation_key"][-20:], "run_id": row["run_id"]}
    assert machine("context", row["run_id"], "--json").json["context"] == {"counted": 7, "n": 6}
    assert machine("replay", row["run_id"]).code == 0
    assert machine("schedule", "run", "--once", "--json").json["left_alone"] == 0


def test_all_that_was_missed_is_caught_up(machine, nightly):
    machine("schedule", "add", "n", "nightly.py", "--cron", "* * * * *", "--catch-up", CatchUp.ALL)
    missed(minutes=4)
    said = machine("work", "--until-idle", "--json")
    assert said.code == 0, said.err
    assert said.json["counts"]["completed"] in {4, 5}, "the minute may have changed meanwhile"
    keys = [row["invocation_key"] for row in machine("runs", "--json").json["runs"]]
    assert keys == sorted(keys, reverse=True)


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["two words", "nightly.py", "--cron", "@daily"], "invalid_id", 2),
        (["n", "nightly.py", "--cron", "@never"], "invalid_cron", 2),
        (["n", "nightly.py", "--cron", "0 30 2 * * *"], "invalid_cron", 2),
        (["n", "nightly.py", "--cron", "@daily", "--tz", "Mars/Olympus"], "unknown_time_zone", 2),
        (["n", "nothing.py", "--cron", "@daily"], "target_not_found", 2),
        (["n", "nightly.py", "--cron", "@daily", "--input", "[1]"], "invalid_input", 2),
        (["n", "nightly.py", "--cron", "@daily", "--catch-up", "most"], "usage", 2),
        (["n", "nightly.py"], "usage", 2),
    ],
)
def test_a_mistake_is_a_sentence_with_a_code_and_stores_nothing(machine, nightly, words, code, exit_code):
    said = machine("schedule", "add", *words, "--json")
    assert (said.code, said.json["error"]["code"]) == (exit_code, code)
    plain = machine("schedule", "add", *words)
    assert plain.err.startswith(f"error[{code}]: ")
    assert "Traceback" not in plain.err
    assert machine("schedule", "list", "--json").json.get("schedules", []) == []


def test_a_name_twice_changes_nothing(machine, added):
    said = machine("schedule", "add", "n", "nightly.py", "--cron", "@daily", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "schedule_exists")
    assert machine("schedule", "list", "--json").json["schedules"][0]["cron"] == "* * * * *"


@pytest.mark.parametrize("word", ["pause", "resume", "remove"])
def test_an_unknown_name_is_not_found(machine, added, word):
    said = machine("schedule", word, "other", "--json")
    assert (said.code, said.json["error"]["code"]) == (5, "schedule_not_found")
