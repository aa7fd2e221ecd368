"""Waits of runs on the command line: listed, shown at the end of a run, and answered by the commands shown."""

from __future__ import annotations

import contextlib
import math
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from signal import SIGINT

import pytest

from machine import MachineError, open_store, signal, waiting
from machine.cli import main, run_and_resume
from machine.cli.command_session import Session

PLAN = """
from machine import Plan

plan = Plan("refund", version="1")


@plan.state("ask.approval")
async def ask(ctx, io):
    answer = await io.approval("Refund 7 EUR?", data={"amount": 7}, timeout=86400)
    ctx["answer"] = [answer.approved, answer.by, answer.comment, answer.value]


@plan.state("wait.payment", after=[ask])
async def payment(ctx, io):
    ctx["paid"] = await io.wait_signal("paid")


keyed = Plan("keyed", version="1")


@keyed.state("wait.payment")
async def by_key(ctx, io):
    ctx["paid"] = await io.wait_signal("paid", correlation="order 7")


"""
ONE = """
from machine import Plan

plan = Plan("one")


@plan.state("a.write")
def write(ctx):
    ctx["x"] = 1
"""
STORE = "sqlite:///.machine/runs.db"


@pytest.fixture
def plan_file(write):
    return write("refund.py", PLAN)


@pytest.fixture
def asked(machine, plan_file):
    said = machine("run", "refund.py:plan", "--json")
    assert said.code == 4, said.err
    return said.json["run_id"]


def shown_commands(text):
    """Return the commands that a command has printed, by the words before them."""
    pairs = [line.split(": ", 1) for line in text.splitlines() if ": machine " in line]
    return {name: shlex.split(command)[1:] for name, command in pairs}


def waits_lines(text):
    """Return the lines that say what a run waits for."""
    return [line for line in text.splitlines() if line.startswith("waits: ")]


def test_the_end_of_a_run_says_what_it_waits_for_and_how_to_answer(machine, plan_file):
    said = machine("run", "refund.py:plan")
    assert said.code == 4
    assert waits_lines(said.err) == waits_lines(machine("show", "@last").out)
    assert "all that waits: machine waiting\n" in said.err
    progress = [line.split() for line in said.err.splitlines() if line.startswith("  1/2")]
    assert [line[1:3] + line[4:] for line in progress] == [["ask.approval", "waits", "for", "an", "approval"]]
    said = machine("show", "@last")
    waits, data = said.out.splitlines()[-2:]
    assert waits.startswith("waits: ask.approval for approval: Refund 7 EUR?, since ")
    assert ", until " in waits
    assert data.strip() == '{"amount": 7}'
    commands = shown_commands(said.err)
    assert machine(*commands["to approve"]).code == 0
    assert commands["next"] == ["resume", machine("show", "@last", "--json").json["run_id"]]
    said = machine(*commands["next"], "--quiet")
    assert said.code == 4
    assert "wait.payment for signal paid" in said.err
    assert machine(*shown_commands(said.err)["to send it"], '{"amount": 7}').code == 0
    assert machine(*commands["next"], "--quiet").code == 0
    assert machine("context", "@last").json["paid"] == {"amount": 7}
    assert machine("replay", "@last").code == 0


def test_an_approval_is_told_and_the_second_one_is_refused(machine, asked):
    said = machine("approve", asked[:18], "--by", "Ada", "--comment", "fine", "--value", "[1]")
    assert (said.code, said.out.split()[-3:]) == (0, ["approved", "by", "Ada"])
    assert said.err == f"next: machine resume {asked}\n"
    late = machine("reject", "@last")
    assert late.code == 1
    assert "is answered already: Ada has approved it" in late.err
    late = machine("reject", "@last", "--json")
    assert (late.code, late.json["error"]["code"]) == (1, "wait_answered")
    assert late.json["error"]["details"]["answer"]["by"] == "Ada"
    machine("resume", "@last", "--quiet")
    assert machine("context", "@last").json["answer"] == [True, "Ada", "fine", [1]]


def test_a_rejection_as_json(machine, asked):
    said = machine("reject", "@last", "--by", "Bob", "--json").json
    assert (said["run_id"], said["state_id"], said["status"]) == (asked, "refund.ask.approval", "suspended")
    assert (said["answer"]["approved"], said["answer"]["by"]) == (False, "Bob")


def test_waiting_lists_each_wait_with_the_commands_that_answer_it(machine, plan_file, asked):
    assert machine("run", "refund.py:keyed", "--quiet").code == 4
    said = machine("waiting")
    header, keyed, approval = said.out.splitlines()
    assert header.split() == ["RUN", "STATE", "SINCE", "UNTIL", "WAITS", "FOR"]
    assert "wait.payment" in keyed
    assert keyed.endswith("signal paid with correlation order 7")
    assert approval.startswith(asked[:18])
    assert approval.endswith("approval: Refund 7 EUR?")
    assert f"to approve: machine approve {asked}\n" in said.err
    assert "to send it: machine signal --correlation 'order 7' paid\n" in said.err
    first, second = machine("waiting", "--json").json["waiting"]
    assert (first["kind"], first["correlation"], first["name"]) == ("signal", "order 7", "paid")
    assert (second["run_id"], second["prompt"], second["data"]) == (asked, "Refund 7 EUR?", {"amount": 7})
    assert second["due_ms"] - second["since_ms"] == 86_400_000
    assert second["commands"] == [["approve", asked], ["reject", asked]]


def test_nothing_to_wait_for(machine, write):
    write("one.py", ONE)
    assert machine("run", "one.py", "--quiet").code == 0
    said = machine("waiting")
    assert (said.code, said.out, said.err) == (0, "", "note: no run waits for anything\n")
    assert machine("waiting", "--json").json == {"waiting": []}


def test_a_run_whose_log_cannot_be_read_hides_no_other(machine, asked):
    assert machine("run", "refund.py:keyed", "--quiet").code == 4
    with open_store(STORE) as store:
        conn = store._session.conn
        conn.execute("DROP TRIGGER events_never_change")
        conn.execute("UPDATE events SET data = x'00' WHERE seq = 2 AND run = 1")
    said = machine("waiting")
    assert said.code == 0
    assert "its log cannot be read" in said.out.splitlines()[2]
    assert "order 7" in said.out
    assert machine("waiting", "--json").json["waiting"][1]["error"]["code"].startswith("log_")


def test_show_says_what_a_run_waits_for_and_what_nothing_waits_for(machine, asked):
    assert machine("signal", "@last", "shipped", "7").code == 0
    said = machine("show", "@last")
    lines = said.out.splitlines()
    assert any(line.startswith("waits: ask.approval for approval: Refund 7 EUR?, since ") for line in lines)
    assert lines[-1].startswith("message 1: signal shipped, which nothing waits for, since ")
    assert f"to reject: machine reject {asked}\n" in said.err
    shown = machine("show", "@last", "--json").json
    assert [wait["prompt"] for wait in shown["waits"]] == ["Refund 7 EUR?"]
    assert [(each["number"], each["data"]) for each in shown["unconsumed"]] == [
        (1, {"name": "shipped", "value": 7})
    ]


def test_a_signal_by_correlation_goes_to_the_run_that_waits(machine, plan_file):
    assert machine("run", "refund.py:keyed", "--quiet").code == 4
    said = machine("signal", "--correlation", "order 8", "paid")
    assert (said.code, "no run waits for the signal" in said.err) == (1, True)
    said = machine("signal", "--correlation", "order 8", "paid", "1", "--keep", "60")
    assert (said.code, said.err) == (0, "note: it is kept until a run takes it\n")
    said = machine("signal", "--correlation", "order 7", "paid", '{"amount": -1}', "--json")
    assert said.json == {"number": 2, "run_id": None, "key": None}
    assert machine("resume", "@last", "--quiet").code == 0
    assert machine("context", "@last").json["paid"] == {"amount": -1}
    assert machine("replay", "@last").code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("signal", 2),
        ("signal @last", 2),
        ("signal @last paid 1 2", 2),
        ("signal --correlation 7", 2),
        ("signal --correlation 7 paid 1 2", 2),
        ("signal @last paid {", 2),
        ("signal @last paid 1 --keep 5", 2),
        ("signal --correlation 7 paid --keep 0", 2),
        ("signal 00000000 paid", 5),
        ("approve @last --value {", 2),
        ("approve @last other", 1),
        ("approve 00000000", 5),
        ("reject @last --by ''", 2),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(machine, asked, words, code):
    with open_store(STORE) as store:
        before = store.latest_seq(asked)
    said = machine(*shlex.split(words))
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("error[")
    assert "Traceback" not in said.err
    with open_store(STORE) as store:
        assert (store.latest_seq(asked), store.inbox(asked), store.signals()) == (before, [], [])


def test_a_negative_number_is_a_value(machine, asked):
    assert machine("approve", "@last", "--value", "-7").code == 0
    assert machine("signal", "@last", "paid", "--", "-7").code == 0
    assert machine("resume", "@last", "--quiet").code == 0
    context = machine("context", "@last").json
    assert (context["answer"][3], context["paid"]) == (-7, -7)


def test_what_was_answered_is_resumed_with_all(machine, asked, plan_file):
    machine("run", "refund.py:keyed", "--quiet")  # which has no answer
    machine("approve", asked, "--by", "Ada")
    said = machine("resume", "--all", "-j", "1")
    assert f"{asked}  suspended  waits for 1 answer" in said.out
    assert said.out.splitlines()[-1].startswith("1 run: 0 completed, 1 suspended")


def in_process(url=STORE):
    """Return the id of the run whose attempt has been put away, once there is one."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(MachineError), open_store(url, create=False) as store:
            for row in store.list_runs().rows:
                if any(b"attempt_suspended" in stored.data for stored in store.read_range(row.run_id)):
                    return row.run_id
        time.sleep(0.02)
    raise AssertionError("no run waits")


def test_a_run_can_wait_here_for_its_answer(machine, plan_file):
    with ThreadPoolExecutor(1) as pool:
        driven = pool.submit(main, ["run", "refund.py:keyed", "--quiet", "--wait", "inf"])
        in_process()
        with open_store(STORE) as store:
            signal(None, "paid", 5, correlation="order 7", store=store)
        assert driven.result(timeout=30) == 0
    assert machine("context", "@last").json["paid"] == 5
    events = [event["event"]["type"] for event in machine("events", "@last", "--json").json["events"]]
    assert "run_suspended" not in events


def test_a_run_waits_no_longer_than_it_is_told(machine, asked):
    assert machine("resume", asked, "--wait", "0.05", "--quiet").code == 4
    assert machine("resume", asked, "--wait", "-1").code == 2
    assert machine("resume", asked, "--wait", "nan").code == 2
    assert machine("show", asked, "--json").json["status"] == "suspended"


def test_only_a_person_at_a_terminal_waits_without_being_asked(monkeypatch):
    for terminal, as_json, given, waits in (
        (True, False, None, None),
        (True, True, None, 0),
        (False, False, None, 0),
        (True, False, 0.0, 0.0),
        (False, False, math.inf, None),
    ):
        monkeypatch.setattr(run_and_resume, "on_terminal", lambda _, terminal=terminal: terminal)
        assert run_and_resume.seconds_to_wait(Session(as_json=as_json), given) == waits


def test_a_run_that_is_stopped_while_it_waits_is_suspended(machine, plan_file):
    command = [sys.executable, "-m", "machine", "run", "refund.py:plan", "--wait", "inf"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as waiting:
        run_id = in_process()
        waiting.send_signal(SIGINT)
        _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert f"machine resume {run_id}" in err
    assert machine("show", run_id, "--json").json["status"] == "suspended"
    assert machine("approve", run_id).code == 0


def test_a_run_that_waits_is_moved_by_import(machine, asked):
    machine("export", asked, "-o", "waiting.run")
    said = machine("import", "waiting.run", "--store", "sqlite:///other.db")
    assert (said.code, said.err.startswith("error[bundle_waits]: waiting.run: run ")) == (1, True)
    assert machine("import", "waiting.run", "--from", STORE, "--store", "sqlite:///other.db").code == 2
    said = machine("import", "waiting.run", "--take-over", "--from", STORE, "--store", "sqlite:///other.db")
    assert (said.code, said.out) == (0, f"{asked}\n")
    said = machine("approve", asked)
    assert (said.code, said.err.startswith(f"error[run_moved]: run {asked} has moved to sqlite:///")) == (
        1,
        True,
    )
    assert machine("approve", asked, "--store", "sqlite:///other.db").code == 0
    assert machine("resume", asked, "--quiet", "--store", "sqlite:///other.db").code == 4


def test_a_run_that_waits_is_forked_by_import_with_the_answers_that_it_had_not_read(machine, asked):
    with open_store(STORE) as store:
        (wait,) = waiting(store=store)
        store.post(asked, "answer", {"key": wait.key, "answer": {"approved": True, "by": "ada"}})
    machine("export", asked, "-o", "waiting.run")
    other = ("--store", "sqlite:///other.db")
    for wrong in (("--take-over",), ("--recipient-key", "k")):
        assert machine("import", "waiting.run", "--fork", *wrong, *other).code == 2
    assert machine("import", "waiting.run", "--target", "refund.py:plan", *other).code == 2
    said = machine("import", "waiting.run", "--fork", "--json", *other)
    ((fork,), status) = said.json["imported"], "suspended"
    assert (said.code, fork["forked_from"], fork["status"]) == (0, asked, status)
    assert fork["run_id"] != asked
    assert machine("resume", fork["run_id"], "--quiet", *other).code == 4
    facts = machine("facts", fork["run_id"], "--json", *other).json["facts"]
    assert [fact["namespace"] for fact in facts].count("wait.approval") == 1
    assert machine("show", asked, "--json").json["status"] == "suspended", "the original is as it was"


WAITING = """
from machine import Plan

plan = Plan("tried")


@plan.state("step.wait")
async def wait(ctx, io):
    ctx["by"] = (await io.approval("Go on?", key="go")).by
    await io.sleep(86400)
    ctx["paid"] = await io.wait_signal("paid")
"""


def test_a_plan_is_tried_with_answers_in_advance(machine, write):
    write("tried.py", WAITING)
    options = ("--clock", "skip", "--answer", 'go={"approved": true, "by": "ada"}', "--answer", "paid=7")
    for dry in ((), ("--dry-run",)):
        result = machine("run", "tried.py", *options, *dry)
        assert result.code == 0, result.err
    result = machine("run", "tried.py", "--dry-run")
    assert (result.code, "waits for an approval" in result.out) == (0, True), result.out


@pytest.mark.parametrize("answer", ["go", "=1", "go=yes", "go=1"])
def test_a_bad_answer_in_advance_is_refused(machine, write, answer):
    write("tried.py", WAITING)
    result = machine("run", "tried.py", "--answer", answer)
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
