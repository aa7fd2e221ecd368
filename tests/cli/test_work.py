"""`machine work`: workers as processes, which stop when they are asked to and whose death loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


@pytest.fixture
def worker(here):
    """Start workers as processes of their own, and end all of them at the end."""
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "machine", "work", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


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
    assert machine("work", "--store", "sqlite:///nowhere.db", "--once").code == 5
    assert machine("work", "prices.py", "--once").code == 0
    assert machine("show", run_id, "--json").json["status"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_lets_the_run_in_hand_end_and_takes_no_more(machine, write, worker, here, signum):
    write("holds.py", HOLDS)
    first = machine("run", "holds.py", "--input", '{"free": true}', "--json").json["run_id"]
    (here / "released").touch()
    held = machine("run", "holds.py", "--json").json["run_id"]
    (here / "released").unlink()
    (here / "begun").unlink()
    with open_store(STORE) as store:
        in_hand = left_after(store, held, 1)
        one = worker("--grace", str(LONG))
        until((here / "begun").exists)
        one.send_signal(signum)
        late = left_after(store, first, 1)
        (here / "released").touch()
        out, err = one.communicate(timeout=LONG)
        assert (one.returncode, err.splitlines()[-1]) == (0, f"{in_hand}  completed")
        assert out.startswith("1 run: 1 completed in ")
        assert store.run_row(late).status == "interrupted"


@pytest.mark.slow
def test_asked_twice_it_interrupts_the_run_in_hand_which_can_be_resumed(machine, write, worker, here):
    write("holds.py", HOLDS.replace("time.sleep(0.01)", "await io.sleep(0.01)"))
    (here / "released").touch()
    held = machine("run", "holds.py", "--json").json["run_id"]
    (here / "released").unlink()
    (here / "begun").unlink()
    with open_store(STORE) as store:
        run_id = left_after(store, held, 1)
        one = worker("--json", "--grace", str(LONG))
        until((here / "begun").exists)
        one.send_signal(signal.SIGTERM)
        one.send_signal(signal.SIGINT)
        out, _ = one.communicate(timeout=LONG)
        assert (one.returncode, out) == (0, '{"counts": {"interrupted": 1}, "left_alone": 0}\n')
        assert store.run_row(run_id).status == "interrupted"
        assert store.lease_of(run_id) is None
    (here / "released").touch()
    assert machine("work", "--once", "--json").json["counts"] == {"completed": 1}


@pytest.mark.slow
def test_of_four_workers_one_is_killed_when_a_timer_is_due_and_it_fires_once(machine, write, worker, here):
    write("timer.py", TIMER)
    workers = [worker() for _ in range(4)]
    said = machine("run", "timer.py", "--input", '{"seconds": 0.2}', "--json")
    assert said.code == 4, said.err
    run_id = said.json["run_id"]
    (first,) = until(lambda: list(here.glob("fired_*")))
    victim = next(one for one in workers if first.name == f"fired_{one.pid}")
    victim.kill()
    victim.wait(LONG)
    Path("killed").touch()
    with open_store(STORE) as store:
        until(lambda: store.run_row(run_id).status == "completed")
        log = [event.data for event in store.read_range(run_id)]
    fired = [data for data in log if b"wait.approval" in data and b'"fact_recorded"' in data]
    assert len(fired) == 1
    assert (here / "ledger").read_text() == "once\n"
    for one in workers:
        if one is not victim:
            os.kill(one.pid, signal.SIGTERM)
    ends = [one.communicate(timeout=LONG)[0] for one in workers if one is not victim]
    assert sorted(text.partition(":")[0] for text in ends) == ["0 runs", "0 runs", "1 run"]
    assert machine("verify", run_id).code == 0
