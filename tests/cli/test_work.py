"""`machine work`: workers as processes, which stop when they are asked to and whose death loses nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from crashes import left_after

from machine import open_store

STORE = "sqlite:///.machine/runs.db"
LONG = 40

HOLDS = """
import pathlib
import time

from machine import Plan

plan = Plan("holds")


@plan.state("a.holds")
async def holds(ctx, io):
    await io.uuid()
    if ctx.get("free"):
        return
    pathlib.Path("begun").touch()
    while not pathlib.Path("released").exists():
        time.sleep(0.01)
"""

TIMER = """
import os
import pathlib

import anyio

from machine import Plan
from machine.errors import WaitTimeoutError

plan = Plan("timer")


@plan.state("a.waits")
async def waits(ctx, io):
    try:
        await io.approval("well?", timeout=ctx["seconds"])
    except WaitTimeoutError:
        pathlib.Path(f"fired_{os.getpid()}").touch()
    while not pathlib.Path("killed").exists():
        await anyio.sleep(0.01)


@plan.state("b.tells", after=[waits], side_effects="apply_side_effect", idempotency="k")
async def tells(ctx, io):
    await io.exec(["sh", "-c", "echo once >> ledger"])
"""


@pytest.fixture
def left(machine, recorded):
    """Make runs of `prices.py` that a crash has left behind."""

    def leave(*lengths):
        with open_store(STORE) as store:
            return [left_after(store, recorded, length) for length in lengths]

    return leave


def until(there):
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + LONG
    while not (found := there()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


def test_it_drives_what_is_left_and_says_so(machine, left):
    ids = left(2, 5, 9)
    said = machine("work", "--until-idle")
    assert said.code == 0, said.err
    assert sorted(said.err.splitlines()) == sorted(f"{run_id}  completed" for run_id in ids)
    assert said.out.startswith("3 runs: 3 completed in ")
    for run_id in ids:
        assert machine("replay", run_id).code == 0
    assert machine("work", "--once", "--json").json == {"counts": {}, "left_alone": 0}


def test_a_run_whose_plan_is_gone_is_told_once_and_left_alone(machine, left, here):
    (run_id,) = left(5)
    (here / "prices.py").unlink()
    said = machine("work", "--until-idle")
    assert said.code == 0
    (line,) = said.err.splitlines()
    assert line.startswith(f"{run_id}  left alone  error[target_not_found]: ")
    assert said.out.startswith("0 runs: none in ")
    assert said.out.endswith("; 1 left alone\n")


def test_a_run_that_dies_too_often_is_told_with_who_else_may_be_at_fault(machine, recorded, write):
    write("once.json", '{"recoveries": 1}')
    run_id = machine("run", "prices.py", "--config", "once.json", "--json").json["run_id"]
    with open_store(STORE) as store:
        left_behind = left_after(store, run_id, 2)
    said = machine("work", "--until-idle")
    assert f"{left_behind}  failed  error[recovery_limit]: " in said.err
    assert (
        "note: a worker drives several runs in one process: what killed it may be a handler of another"
        in said.err
    )


def test_targets_and_options_are_checked_before_anything_is_driven(machine, left):
    (run_id,) = left(5)
    for words, code in (
        (["nothing.py"], "target_not_found"),
        (["prices.py", "prices.py:plan"], "usage"),
        (["--once", "--until-idle"], "usage"),
        (["--concurrency", "0"], "usage"),
        (["--grace", "-1"], "usage"),
    ):
        said = machine("work", *words, "--json", *(["--until-idle"] if words == ["nothing.py"] else []))
        assert (said.code, said.json["error"]["code"]) == (2, code)
    assert machine("show", run_id, "--json").json["status"] == "interrupted"
    assert machine("work", "prices.py", "--once").code == 0
    assert machine("show", run_id, "--json").json["status"] == "completed"


def test_a_store_that_does_not_exist_is_made_and_named_unless_a_target_is_wrong(machine, write, here):
    wrong = machine("work", "nothing.py", "--store", "sqlite:///new.db", "--once")
    assert (wrong.code, (here / "new.db").exists()) == (2, False)
    said = machine("work", "--store", "sqlite:///new.db", "--once")
    assert said.code == 0
    assert "there was no store at sqlite:///" in said.err
    assert "new.db: it was made, and has no runs yet" in said.err
    assert machine("runs", "--store", "sqlite:///new.db").code == 0
    assert machine("work", "--store", "sqlite:///new.db", "--once").err == ""


@pytest.mark.slow
def test_asked_to_stop_it_lets_the_run_in_hand_end_and_takes_no_more(machine, write, here):
    write("holds.py", HOLDS)
    first = machine("run", "holds.py", "--input", '{"free": true}', "--json").json["run_id"]
    (here / "released").touch()
    held = machine("run", "holds.py", "--json").json["run_id"]
    (here / "released").unlink()
    (here / "begun").unlink()
    with open_store(STORE) as store:
        in_hand = left_after(store, held, 1)
        words = [sys.executable, "-m", "machine", "work", "--grace", str(LONG)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
            try:
                until((here / "begun").exists)
                one.send_signal(signal.SIGTERM)
                late = left_after(store, first, 1)
                (here / "released").touch()
                out, err = one.communicate(timeout=LONG)
            finally:
                one.kill()
        assert (one.returncode, err.splitlines()[-1]) == (0, f"{in_hand}  completed")
        assert out.startswith("1 run: 1 completed in ")
        assert store.run_row(late).status == "interrupted"


FOUR = """
import os

import machine
from machine import open_store


def work():
    with open_store("sqlite:///.machine/runs.db") as store:
        return machine.work(store=store).counts.get("completed", 0)


machine.work, machine.replay  # loaded once, before there are threads
workers = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        os._exit(work())
    workers.append(pid)
print(*workers, flush=True)
print(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers), flush=True)
"""
"""Four workers as processes that import once; each ends with the number of runs that it has completed."""


@pytest.mark.slow
def test_of_four_workers_one_is_killed_when_a_timer_is_due_and_it_fires_once(machine, write, here):
    write("timer.py", TIMER)
    run_id = machine("run", "timer.py", "--input", '{"seconds": 0.5}', "--json").json["run_id"]
    with (
        subprocess.Popen([sys.executable, "-c", FOUR], stdout=subprocess.PIPE, text=True) as parent,
        open_store(STORE) as store,
    ):
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        try:
            (fired,) = until(lambda: list(here.glob("fired_*")))
            victim = int(fired.name.removeprefix("fired_"))
            os.kill(victim, signal.SIGKILL)
            (here / "killed").touch()
            until(lambda: store.run_row(run_id).status == "completed")
        finally:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        ends = dict(zip(workers, map(int, parent.stdout.readline().split()), strict=True))
        log = [event.data for event in store.read_range(run_id)]
    assert ends.pop(victim) == -signal.SIGKILL
    assert list(ends.values()).count(1) == 1
    assert set(ends.values()) <= {1, 0, -signal.SIGTERM}, "on a busy machine one may not have begun"
    assert len([data for data in log if b"wait.approval" in data and b'"fact_recorded"' in data]) == 1
    assert (here / "ledger").read_text() == "once\n"
    assert machine("verify", run_id).code == 0
