"""`machine resume --all`: every run that nobody drives goes on, and none stops the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from crashes import left_after

from machine import open_store, resolve, run
from machine.cli import resume_all
from machine.stores.lease import owner_here
from machine.target import load

STORE = "sqlite:///.machine/runs.db"
DEADLY = """
import os

from machine import Plan

plan = Plan("deadly")


@plan.state("a.dies")
def dies(ctx, io, rec):
    os._exit(9)
"""
SLOW = """
import pathlib
import time

import anyio

from machine import Plan

plan = Plan("slow")


@plan.state("a.waits")
async def waits(ctx, io, rec):
    await io.uuid()
    if pathlib.Path("wait").exists():
        pathlib.Path(f"at_work_{ctx['n']}").touch()
        await anyio.sleep(60)
"""
ASKS = """
from machine import Plan

plan = Plan("asks")


@plan.state("a.effect", side_effects="apply_side_effect", idempotency="k", on_uncertain="ask")
async def effect(ctx, io, rec):
    ctx["out"] = (await io.exec(["sh", "-c", "echo once >> ledger"])).stdout
"""


@pytest.fixture
def left(recorded):
    """Make so many runs of `prices.py` that a crash has left behind."""

    def leave(*lengths):
        with open_store(STORE) as store:
            return [left_after(store, recorded, length) for length in lengths]

    return leave


def by_id(said):
    return {one["name"]: one for one in said.json["runs"]}


def test_every_run_that_nobody_drives_goes_on_and_others_are_left_alone(machine, left, recorded):
    ids = left(2, 5, 9)
    said = machine("resume", "--all")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[:3] == [f"{run_id}  completed" for run_id in ids], "the oldest first, a line for each"
    assert lines[3].startswith("3 runs: 3 completed in ")
    assert recorded not in said.out
    for run_id in ids:
        assert machine("replay", run_id).code == 0
    again = machine("resume", "--all")
    assert (again.code, again.out) == (0, "")
    assert again.err == "nothing to resume: no run is interrupted\n"


def test_it_is_one_json_object(machine, left, recorded):
    (run_id,) = left(5)
    said = machine("resume", "--all", "--json")
    assert said.code == 0
    assert (said.json["total"], said.json["counts"]["completed"]) == (1, 1)
    (told,) = said.json["runs"]
    assert {
        "name": run_id,
        "verdict": "completed",
        "run_id": run_id,
        "status": "completed",
    }.items() <= told.items()
    nothing = machine("resume", "--all", "--json")
    assert (nothing.code, nothing.json["total"], nothing.json["runs"]) == (0, 0, [])


@pytest.mark.slow
def test_a_run_whose_plan_is_gone_is_told_and_skipped(machine, left, here, write):
    (gone,) = left(5)
    path = here / "prices.py"
    text = path.read_text()
    write("other.py", text)
    other = machine("run", "other.py", "--json").json["run_id"]
    with open_store(STORE) as store:
        there = left_after(store, other, 5)
    path.unlink()
    said = machine("resume", "--all", "--json")
    found = by_id(said)
    assert (found[gone]["verdict"], found[there]["verdict"]) == ("skipped", "completed")
    assert found[gone]["error"]["code"].startswith("target_")
    assert said.code == machine("resume", gone).code == 2
    assert machine("show", gone, "--json").json["status"] == "interrupted"
    path.write_text(text)
    assert machine("resume", "--all").code == 0


def test_a_run_that_is_driven_is_not_taken(machine, left):
    driven, free = left(5, 5)
    with open_store(STORE) as store:
        lease = store.acquire(driven, "somebody else", 60_000)
        said = machine("resume", "--all", "--json")
        assert list(by_id(said)) == [free]
        store.release(lease)


def test_a_run_that_is_taken_meanwhile_is_told_and_skipped(machine, left, monkeypatch):
    taken, free = left(5, 5)
    look = resume_all._undriven

    def look_and_lose(store):
        found = list(look(store))
        store.acquire(taken, owner_here(), 60_000)
        return iter(found)

    monkeypatch.setattr(resume_all, "_undriven", look_and_lose)
    said = machine("resume", "--all", "--json")
    found = by_id(said)
    assert (found[taken]["verdict"], found[taken]["error"]["code"]) == ("skipped", "run_leased")
    assert (found[free]["verdict"], said.code) == ("completed", 1)


@pytest.mark.slow
def test_a_run_that_kills_its_process_stops_no_other_and_ends_at_its_limit(machine, left, write):
    write("deadly.py", DEADLY)
    subprocess.run([sys.executable, "-m", "machine", "run", "deadly.py"], check=False, timeout=60)
    deadly = machine("runs", "--json", "--op", "deadly").json["runs"][0]["run_id"]
    (other,) = left(5)
    told = []
    for _ in range(8):
        said = machine("resume", "--all", "--json")
        found = by_id(said)
        if deadly not in found:
            break
        told.append(found[deadly]["verdict"])
        assert said.code == 1
        if len(told) == 1:
            assert found[other]["verdict"] == "completed"
            error = found[deadly]["error"]
            assert error["code"] == "worker_died"
            assert error["message"] == f"the process that drove {deadly} ended with exit code 9"
            assert error["hint"].startswith(f"machine show {deadly} says how far it came")
            assert machine("show", deadly, "--json").json["status"] == "interrupted"
    assert told == ["error"] * 4 + ["failed"], "the death of the first process counts"
    shown = machine("show", deadly, "--json").json
    assert (shown["status"], shown["error"]["code"]) == ("failed", "recovery_limit")
    assert machine("verify", deadly).code == machine("replay", deadly).code == 0


@pytest.fixture
def cut(write, here):
    """Give a run that died after it had sent an effect."""
    write("asks.py", ASKS)
    loaded = load("asks.py", here)
    with open_store(STORE, create=True) as store:
        done = run(loaded.plan, store=store, target=loaded.target)
        log = [event.data for event in store.read_range(done.run_id)]
        intended = next(at for at, data in enumerate(log, 1) if b'"effect_intended"' in data)
        return left_after(store, done.run_id, intended)


def test_a_suspended_run_goes_on_once_it_has_been_told(machine, here, cut):
    said = machine("resume", "--all", "--json")
    assert (said.code, by_id(said)[cut]["verdict"]) == (4, "suspended")
    assert len(by_id(said)[cut]["waits"]) == 1
    assert machine("resume", "--all", "--json").json["total"] == 0, "nobody has told it"
    with open_store(STORE) as store:
        key = by_id(said)[cut]["waits"][0]["key"]
        resolve(cut, key, store=store, not_done=True)
    again = machine("resume", "--all")
    assert (again.code, again.out.splitlines()[0]) == (0, f"{cut}  completed")
    assert (here / "ledger").read_text().split() == ["once", "once"]


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_who_resolves_an_effect_hears_that_a_lease_is_waited_out(machine, cut, flags):
    key = machine("resume", cut, "--json").json["waits"][0]["key"]
    with open_store(STORE) as store:
        store.acquire(cut, "nobody knows whom", 1_000)
    said = machine("resolve", cut, key, "--not-done", *flags)
    assert said.code == 0
    assert ("cannot be seen from here" in said.err, "waiting 1.1" in said.err) == (not flags, not flags)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "signum", "code"),
    [(os.killpg, signal.SIGINT, 130), (os.kill, signal.SIGINT, 130), (os.kill, signal.SIGTERM, 143)],
    ids=["Ctrl-C on the terminal", "SIGINT", "SIGTERM"],
)
def test_ctrl_c_stops_the_runs_cleanly(machine, here, write, send, signum, code):
    write("slow.py", SLOW)
    (here / "wait").touch()
    loaded = load("slow.py", here)
    ids = []
    with open_store(STORE, create=True) as store:
        (here / "wait").unlink()
        for number in range(2):
            done = run(loaded.plan, store=store, target=loaded.target, input={"n": number})
            ids.append(left_after(store, done.run_id, 2))
        (here / "wait").touch()
    child = subprocess.Popen(
        [sys.executable, "-m", "machine", "resume", "--all", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    deadline = time.monotonic() + 60
    while not all((here / f"at_work_{number}").exists() for number in range(2)):
        assert time.monotonic() < deadline
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    send(child.pid, signum)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code
    assert "Continue with: machine resume --all" in err
    assert "Traceback" not in err
    for run_id in ids:
        shown = machine("show", run_id, "--json").json
        assert shown["status"] == "interrupted"
        assert shown["states"][0]["error"]["code"] == "attempt_interrupted", (
            "not as one whose process has died"
        )
    (here / "wait").unlink()
    assert machine("resume", "--all").code == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [([], "name a run"), (["@last", "--all"], "name a run"), (["@last", "--jobs", "2"], "--jobs is for")],
)
def test_one_run_or_all_of_them_are_named(machine, recorded, words, problem):
    said = machine("resume", *words)
    assert (said.code, problem in said.err) == (2, True)


def test_a_bundle_is_no_place_to_resume_runs_in(machine, recorded, here):
    assert machine("export", recorded, "-o", "one.run").code == 0
    said = machine("resume", "--all", "--store", "one.run")
    assert (said.code, "bundle_read_only" in said.err) == (2, True)
