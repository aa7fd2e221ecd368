"""A sleep that was interrupted goes on with what is left of it, and no recording shows it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

import machine
from machine import Plan, RetryPolicy, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import OtherStoreError
from machine.events import FactRecorded
from machine.io.clock import ClockTransport
from machine.stores import MemoryStore, open_store

HOUR = 3600


@pytest.fixture(autouse=True)
def all_in_place(monkeypatch):
    """Sleep in place whatever the length, as sleeps of up to a minute are slept, and all older recordings were."""
    monkeypatch.setattr("machine.io.waits.SUSPEND_AFTER", float("inf"))


class Slept(ClockTransport):
    """A clock on which a sleep lasts until it is cut, or is over at once when `quick`."""

    def __init__(self, *, quick=False):
        self.quick = quick
        self.begun = []

    async def perform(self, namespace, request):
        if namespace != "clock.sleep":
            return await super().perform(namespace, request)
        self.begun.append(request["seconds"])
        if not self.quick:
            await asyncio.sleep(request["seconds"])
        return None


@pytest.fixture(params=["memory", "sqlite"])
def any_store(request, tmp_path):
    if request.param == "memory":
        with MemoryStore() as store:
            yield store
    else:
        with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
            yield store


@pytest.fixture(params=[None, 2], ids=["sequential", "concurrent"])
def config(request):
    if request.param is None:
        return RunConfig()
    return RunConfig(execution_mode=FanOutJoin(request.param))


def moved(store, seconds):
    """Move the store's clock."""
    clock = store.clock
    store.clock = lambda: clock() + seconds * 1000


async def interrupted(coro, slept, count):
    """Drive until so many sleeps have begun, then stop as Ctrl-C does."""
    task = asyncio.ensure_future(coro)
    while len(slept.begun) < count:  # noqa: ASYNC110 - it is counted in a transport, whatever the loop
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def sleeping(*sleeps, retry=None, fails=0):
    plan, left = Plan("op"), [True] * fails

    @plan.state("step.sleep", retry=retry)
    async def sleep(ctx, io, rec):
        if left:
            left.pop()
            raise machine.Failure("first", retryable=True)
        for seconds in sleeps:
            await io.sleep(seconds)
        ctx["slept"] = True

    return plan


def resumed(plan, store, run_id, slept, within=20):
    async def main():
        with anyio.fail_after(within):
            return await machine.aio.resume(run_id, plan=plan, store=store, transports={"clock": slept})

    return anyio.run(main)


def started(plan, store, slept, count=1, **more):
    run_id = str(machine.new_run_id())
    transports = {"clock": slept}
    driving = machine.aio.run(plan, store=store, run_id=run_id, transports=transports, **more)
    asyncio.run(interrupted(driving, slept, count))
    return run_id


def test_what_is_left_is_slept(any_store, config):
    plan, slept = sleeping(HOUR), Slept()
    run_id = started(plan, any_store, slept, config=config)
    moved(any_store, HOUR - 1)

    result = resumed(plan, any_store, run_id, slept)
    assert result.status == "completed"
    assert slept.begun == [HOUR, HOUR], "what is recorded is the sleep that was asked for"
    assert machine.replay(run_id, plan=plan, store=any_store).identical


def test_it_is_gone_on_with_any_number_of_times(any_store):
    plan, slept = sleeping(HOUR), Slept()
    run_id = started(plan, any_store, slept)
    for count in (2, 3):
        moved(any_store, HOUR // 3)
        driving = machine.aio.resume(run_id, plan=plan, store=any_store, transports={"clock": slept})
        asyncio.run(interrupted(driving, slept, count))
    moved(any_store, HOUR // 3)
    assert resumed(plan, any_store, run_id, slept).status == "completed"
    assert len([m for m in any_store.inbox(run_id) if m.kind == "timer"]) == 1


def test_the_log_is_that_of_a_run_that_slept_whole(any_store):
    plan, quick = sleeping(HOUR, HOUR), Slept(quick=True)
    whole = machine.run(plan, store=any_store, transports={"clock": quick})
    facts = [
        e.event for e, _ in run_reader.entries(any_store, whole.run_id) if isinstance(e.event, FactRecorded)
    ]
    assert [fact.namespace for fact in facts] == ["clock.sleep"] * 2
    assert [entry.info.keys() for entry, _ in run_reader.entries(any_store, whole.run_id)][2:4] == [
        {"run_id", "ts_millis"}
    ] * 2
    with MemoryStore() as other:
        again = machine.run(plan, store=other, transports={"clock": quick})
        assert again.digest == whole.digest


def test_each_sleep_has_its_own_end(any_store, monkeypatch):
    monkeypatch.setattr("machine.engine.sleep_timers.SHORTEST_MS", 1000)
    plan, slept = sleeping(1.5, HOUR), Slept()
    run_id = started(plan, any_store, slept, count=2)
    moved(any_store, 2)
    with pytest.raises(TimeoutError):
        resumed(plan, any_store, run_id, slept, within=0.5)
    moved(any_store, HOUR)
    assert resumed(plan, any_store, run_id, slept).status == "completed"


def test_a_clock_that_went_back_makes_no_sleep_longer(any_store, monkeypatch):
    monkeypatch.setattr("machine.engine.sleep_timers.SHORTEST_MS", 1000)
    plan, slept = sleeping(1.2), Slept()
    run_id = started(plan, any_store, slept)
    moved(any_store, -HOUR)
    assert resumed(plan, any_store, run_id, slept).status == "completed"


def test_a_retry_after_a_failure_sleeps_whole(store):
    plan, slept, lives = Plan("op"), Slept(), []

    @plan.state("step.sleep", retry=RetryPolicy(2))
    async def sleep(ctx, io, rec):
        lives.append(1)
        if len(lives) == 2:
            raise machine.Failure("not yet", retryable=True)
        await io.sleep(HOUR)

    run_id = started(plan, store, slept)
    moved(store, HOUR)
    with pytest.raises(TimeoutError):
        resumed(plan, store, run_id, slept, within=0.5)
    assert len(lives) == 3


def test_a_run_that_polls_is_left_no_note_by_its_short_sleeps(store):
    plan = sleeping(0.01, 1, 9.9, 10)
    result = machine.run(plan, store=store, transports={"clock": Slept(quick=True)})
    (note,) = store.inbox(result.run_id)
    assert (note.kind, note.data["state_id"]) == ("timer", "op.step.sleep")


def test_a_store_that_takes_long_over_a_note_is_not_blamed_on_the_handler(store, monkeypatch):
    held = []

    class Seen(machine.Reporter):
        def held(self, state_id, seconds):
            held.append(state_id)

    def slow(function):
        def slowly(*args):
            time.sleep(1.3)
            return function(*args)

        return slowly

    plan, slept = sleeping(HOUR), Slept()
    monkeypatch.setattr(store, "post", slow(store.post))
    run_id = started(plan, store, slept, reporter=Seen())
    moved(store, HOUR)
    monkeypatch.setattr(store, "inbox", slow(store.inbox))
    transports = {"clock": slept}
    result = machine.resume(run_id, plan=plan, store=store, transports=transports, reporter=Seen())
    assert result.status == "completed"
    assert held == []


def test_where_the_note_cannot_be_made_it_is_slept_all_the_same(store, monkeypatch):
    def failing(*args):
        raise OtherStoreError("busy", code="store_busy")

    monkeypatch.setattr(store, "post", failing)
    slept = Slept(quick=True)
    assert machine.run(sleeping(HOUR), store=store, transports={"clock": slept}).status == "completed"
    assert slept.begun == [HOUR]


SLEEPS = """
import os, signal, sys, threading
from machine import Plan, open_store, resume, run

plan = Plan("sleeps")

@plan.state("step.sleep")
def sleep(ctx, io, rec):
    if sys.argv[1] == "dies":
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
    io.sleep(3600)

if sys.argv[1] == "dies":
    run(plan, store=open_store("sqlite:///runs.db"), run_id=sys.argv[2])
else:
    store = open_store("sqlite:///runs.db")
    clock = store.clock
    store.clock = lambda: clock() + 3599_000
    print(resume(sys.argv[2], plan=plan, store=store).status)
"""


def test_a_process_that_is_killed_in_its_sleep_and_resumed(tmp_path):
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    run_id = str(machine.new_run_id())
    env = {**os.environ, "PYTHONPATH": str(Path(machine.__file__).parents[1])}

    def life(how):
        return subprocess.run(
            [sys.executable, "sleeps.py", how, run_id],
            cwd=tmp_path,
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert life("dies").returncode == -signal.SIGKILL
    time.sleep(0.05)
    said = life("goes on")
    assert said.stdout.strip() == "completed", said.stderr
