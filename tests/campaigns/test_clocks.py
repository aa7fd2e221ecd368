"""One driver and nothing twice, whatever the clocks say: real processes, stepped clocks, drivers that stand still.

Each case has one run with two effects, and others that try to take it over. MACHINE_CAMPAIGN=full tries every
case as often as it takes to meet the instants between two steps of a driver.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest
from campaign import FULL

from machine import process_identity
from machine.stores import open_store

ROUNDS = 10 if FULL else 1
LEASE = 3.0

pytestmark = pytest.mark.skipif(not process_identity.sees_itself(), reason="needs a /proc of its own")

# The wall clock is stepped by what a file says, and the boot id may be that of another machine.
DRIVER = """
import pathlib, sys, time

way, boot, lease = sys.argv[1:4]
really, true = time.time_ns, time.time

def step():
    try:
        return int(pathlib.Path("step").read_text() or 0)
    except FileNotFoundError:
        return 0

time.time_ns = lambda: really() + step() * 10**9
time.time = lambda: true() + step()

from machine import process_identity
if boot != "here":
    process_identity.boot_id = lambda: boot

import anyio
import machine
from machine import Plan, open_store
from machine.errors import ConcurrencyError

plan = Plan("p")

@plan.state("a.first", side_effects="apply_side_effect", idempotency="first")
async def first(ctx, io, rec):
    ctx["first"] = (await io.exec(["sh", "-c", "echo first >> effects"])).returncode

@plan.state("a.waits", after=[first])
async def waits(ctx, io, rec):
    pathlib.Path("waiting").write_text("")
    while not pathlib.Path("go").exists():
        await anyio.sleep(0.05)  # no fact: who is stopped while it writes keeps the file locked as well

@plan.state("a.second", after=[waits], side_effects="apply_side_effect", idempotency="second")
async def second(ctx, io, rec):
    ctx["second"] = (await io.exec(["sh", "-c", "echo second >> effects"])).returncode

if __name__ == "__main__":
    with open_store("sqlite:///runs.db") as store:
        try:
            if way == "run":
                config = machine.RunConfig(undeclared_io="allow")
                print(machine.run(plan, store=store, config=config, lease=float(lease)).status)
            else:
                (row,) = store.list_runs().rows
                print(machine.resume(row.run_id, plan=plan, store=store, lease=float(lease)).status)
        except ConcurrencyError as exc:
            print(exc.code)
"""


def until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(way, boot="here"):
        (tmp_path / "driver.py").write_text(DRIVER)
        process = subprocess.Popen(
            [sys.executable, "driver.py", way, boot, str(LEASE)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def stand_still(driver, folder):
    """Stop a driver between two writes: within one it would keep the lock of SQLite, and nobody could go on."""
    while True:
        driver.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, driver.pid, os.WSTOPPED | os.WNOWAIT)
        with contextlib.closing(sqlite3.connect(folder / "runs.db", timeout=0)) as conn:
            try:
                conn.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                driver.send_signal(signal.SIGCONT)
                time.sleep(random.random() / 50)
            else:
                conn.rollback()
                return


def said(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (process.returncode, err)
    return out.strip()


def sound(tmp_path):
    """See that each effect was applied once, and that the run says so."""
    effects = Counter((tmp_path / "effects").read_text().split())
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        (row,) = store.list_runs().rows
        assert row.status == "completed"
        assert store.lease_of(row.run_id) is None
    print(f"effects {dict(effects)}")
    assert effects == {"first": 1, "second": 1}


@pytest.mark.slow
@pytest.mark.parametrize("step", [3600, -3600, 20, -20] if FULL else [3600, -20])
@pytest.mark.parametrize("boot", ["here", "another"])
def test_a_live_driver_is_refused_to_others_whose_clock_was_stepped(start, tmp_path, boot, step):
    """The clock of both is stepped while they run; "another" cannot see whether the driver is alive."""
    driver = start("run")
    until((tmp_path / "waiting").exists)
    (tmp_path / "step").write_text(str(step))
    others = [start("resume", boot) for _ in range(3 if FULL else 1)]
    assert [said(other) for other in others] == ["run_leased"] * len(others)
    (tmp_path / "step").write_text(str(-step))
    assert said(start("resume", boot)) == "run_leased"
    (tmp_path / "go").touch()
    assert said(driver) == "completed"
    sound(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("step", [3600, -3600])
@pytest.mark.parametrize("boot", ["here", "another"])
def test_a_dead_driver_is_followed_whatever_the_clock(start, tmp_path, boot, step):
    driver = start("run")
    until((tmp_path / "waiting").exists)
    driver.kill()
    driver.wait()
    (tmp_path / "step").write_text(str(step))
    (tmp_path / "go").touch()
    assert said(start("resume", boot)) == "completed"
    sound(tmp_path)


@pytest.mark.long
def test_a_driver_that_stands_still_on_this_machine_keeps_its_run(start, tmp_path):
    driver = start("run")
    until((tmp_path / "waiting").exists)
    stand_still(driver, tmp_path)
    until(lambda: os.waitid(os.P_PID, driver.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None)
    time.sleep(LEASE * 1.5)  # past its lease
    assert said(start("resume")) == "run_leased"
    (tmp_path / "go").touch()
    driver.send_signal(signal.SIGCONT)
    assert said(driver) == "completed"
    sound(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize("step", [0, 3600, -3600])
def test_a_driver_that_stood_still_on_another_machine_does_nothing_more(start, tmp_path, step, turn):
    """It is taken over after its lease's time, and finds that out before it sends anything."""
    driver = start("run", "another")
    until((tmp_path / "waiting").exists)
    time.sleep(random.random() / 5)
    stand_still(driver, tmp_path)
    (tmp_path / "step").write_text(str(step))
    other = start("resume")
    (tmp_path / "go").touch()
    assert said(other) == "completed"
    driver.send_signal(signal.SIGCONT)
    assert said(driver) == "lease_lost"
    sound(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(ROUNDS))
def test_of_many_that_want_to_follow_one_does(start, tmp_path, turn):
    driver = start("run", "another")
    until((tmp_path / "waiting").exists)
    driver.kill()
    driver.wait()
    (tmp_path / "go").touch()
    ended = Counter(said(each) for each in [start("resume", f"machine {number}") for number in range(3)])
    assert ended["completed"] >= 1
    assert set(ended) <= {"completed", "run_leased"}
    sound(tmp_path)
