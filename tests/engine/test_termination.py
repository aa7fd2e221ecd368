"""SIGTERM and SIGHUP cut a run as Ctrl-C does, in a plain program too; the second one kills."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import machine
from machine import Plan, codec, open_store
from machine.events import StateFailed
from machine.stores import MemoryStore

PROGRAM = """
import signal, sys, threading, time
import machine
from machine import Plan, open_store

plan = Plan("p")

@plan.state("a.first")
async def first(ctx, io, rec):
    ctx["first"] = (await io.random_bytes(4)).hex()

@plan.state("a.waits", after=[first])
async def waits(ctx, io, rec):
    # said when the handler waits: what a signal raises in its own code would be an error of its own
    threading.Timer(0.3, lambda: open("waiting", "w").close()).start()
    {wait}

{before}
try:
    with open_store("sqlite:///runs.db") as store:
        machine.run(plan, store=store)
finally:
    print("cleaned up", flush=True)
"""

ASLEEP = "await io.sleep(59)"
DEAF = """
    while True:
        try:
            await io.sleep(59)
        except BaseException:
            open("deaf", "w").close()
"""


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(wait=ASLEEP, before="", **options):
        (tmp_path / "program.py").write_text(PROGRAM.format(wait=wait, before=before))
        process = subprocess.Popen(
            [sys.executable, "program.py"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(process)
        until((tmp_path / "waiting").exists)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def last_event(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        (row,) = store.list_runs().rows
        assert store.lease_of(row.run_id) is None
        *_, last = store.read_range(row.run_id)
        return codec.decode_entry(last.seq, last.data).event


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_plain_program_cuts_its_run_cleans_up_and_ends(start, tmp_path, how):
    program = start()
    program.send_signal(how)
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (128 + how, "cleaned up\n")
    assert "Traceback" not in err
    event = last_event(tmp_path)
    assert isinstance(event, StateFailed)
    assert event.error.code == "attempt_interrupted"


def test_it_does_not_matter_that_ctrl_c_is_ignored(start, tmp_path):
    """As a shell does for what it starts in the background."""
    program = start(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    program.terminate()
    program.communicate(timeout=60)
    assert program.returncode == 143


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP])
def test_the_second_signal_kills(start, tmp_path, second):
    program = start(DEAF)
    program.terminate()
    until((tmp_path / "deaf").exists)
    program.send_signal(second)
    program.communicate(timeout=60)
    assert program.returncode == -second


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", 7),
        ("signal.signal(signal.SIGTERM, signal.SIG_DFL)", 143),
    ],
)
def test_what_the_program_says_itself_comes_first(start, before, code):
    program = start(before=before)
    program.terminate()
    program.communicate(timeout=60)
    assert program.returncode == code


def test_a_program_that_ignores_the_signal_goes_on(start):
    program = start(before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    program.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        program.communicate(timeout=1)


def quick():
    plan, seen = Plan("p"), []

    @plan.state("a.looks")
    async def looks(ctx, io, rec):
        seen.append(signal.getsignal(signal.SIGTERM))

    return plan, seen


def test_afterwards_the_signal_means_what_it_meant():
    plan, seen = quick()
    with MemoryStore() as store:
        machine.run(plan, store=store)
    assert callable(seen[0])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_that_is_put_in_meanwhile_stays():
    plan = Plan("p")

    def mine(*_):
        """Do nothing."""

    @plan.state("a.sets")
    async def sets(ctx, io, rec):
        signal.signal(signal.SIGTERM, mine)

    try:
        with MemoryStore() as store:
            machine.run(plan, store=store)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_in_another_thread_signals_are_left_alone():
    plan, seen = quick()
    with MemoryStore() as store:
        thread = threading.Thread(target=lambda: machine.run(plan, store=store))
        thread.start()
        thread.join()
    assert seen == [signal.SIG_DFL]


def wakeup_fd():
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd


def test_a_signal_wakes_a_loop_that_has_just_begun_to_wait():
    """Python sees it between two instructions only, and the wait for files is one."""
    plan, seen = Plan("p"), []

    @plan.state("a.looks")
    async def looks(ctx, io, rec):
        seen.append(wakeup_fd())

    machine.run(plan, store=MemoryStore())
    assert seen[0] != -1
    assert wakeup_fd() == -1


def test_a_program_that_is_woken_by_signals_itself_stays_so():
    plan, seen = Plan("p"), []

    @plan.state("a.looks")
    async def looks(ctx, io, rec):
        seen.append(wakeup_fd())

    read, write = socket.socketpair()
    with read, write:
        write.settimeout(0)
        signal.set_wakeup_fd(write.fileno())
        try:
            machine.run(plan, store=MemoryStore())
            assert seen == [write.fileno()] == [wakeup_fd()]
        finally:
            signal.set_wakeup_fd(-1)
