"""An owner is gone only when that is certain: to take a run from a living driver would do its effects twice."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from machine import process_identity
from machine.stores import lease as module
from machine.stores.lease import Driver, HeldLease, driver_of, lease_is_held, leased, owner_here

SAY = "from machine.stores.lease import owner_here; print(owner_here(), flush=True); input()"

pytestmark = pytest.mark.skipif(
    "-" in owner_here().split("/")[1:], reason="/proc is not that of this process"
)


@pytest.fixture(autouse=True)
def _named_anew(monkeypatch):
    """Let each test see what the system says now."""
    monkeypatch.setattr(module, "_known_processes", {})


@pytest.fixture
def child():
    """Start a process, and ask it which owner it is."""
    process = subprocess.Popen(
        [sys.executable, "-c", SAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def with_part(owner, index, value):
    parts = owner.split("/")
    parts[index] = value
    return "/".join(parts)


HOST, BOOT, NAMESPACES, PID, START, ONCE = range(6)
ALIVE, DEAD, UNKNOWN = Driver.ALIVE, Driver.DEAD, Driver.UNKNOWN


def test_an_owner_names_this_thread_and_one_use_of_it():
    one, other = owner_here().split("/"), owner_here().split("/")
    assert one[:ONCE] == other[:ONCE]
    assert one[ONCE].split(".")[:2] == other[ONCE].split(".")[:2]
    assert one[ONCE] != other[ONCE]
    assert one[PID] == str(os.getpid())
    assert one[ONCE].startswith(f"{threading.get_native_id()}.")
    assert "/".join(one).isprintable()


def test_a_living_process_is_alive(child):
    _, owner = child
    assert driver_of(owner) is driver_of(owner_here()) is ALIVE
    assert owner.split("/")[:PID] == owner_here().split("/")[:PID]


def test_a_process_that_ended_is_dead(child):
    process, owner = child
    process.communicate("\n", timeout=60)
    assert driver_of(owner) is DEAD


def test_a_process_that_was_killed_is_dead_before_it_is_reaped(child):
    process, owner = child
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}").exists()
    assert driver_of(owner) is DEAD


def test_a_process_that_stands_still_is_alive(child):
    process, owner = child
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert driver_of(owner) is ALIVE


def test_another_process_under_its_pid_is_not_it(child):
    _, owner = child
    assert driver_of(with_part(owner, START, "1")) is DEAD


def test_a_driver_that_ended_in_a_process_that_lives_on_is_dead():
    owners, stop = [], threading.Event()
    thread = threading.Thread(target=lambda: (owners.append(owner_here()), stop.wait()))
    thread.start()
    while not owners:
        time.sleep(0.001)
    assert driver_of(owners[0]) is ALIVE
    stop.set()
    thread.join()
    while driver_of(owners[0]) is not DEAD:  # Python says it has ended a little before the kernel does
        time.sleep(0.001)


def test_another_thread_under_its_number_is_not_it():
    thread, _, once = owner_here().split("/")[ONCE].split(".")
    assert driver_of(with_part(owner_here(), ONCE, f"{thread}.1.{once}")) is DEAD


def test_the_owner_that_an_older_version_wrote_is_judged_by_its_process(child):
    process, owner = child
    for each in (owner, owner_here()):
        assert driver_of(with_part(each, ONCE, "0123456789abcdef")) is ALIVE
    process.communicate("\n", timeout=60)
    assert driver_of(with_part(owner, ONCE, "0123456789abcdef")) is DEAD


def test_a_process_of_another_user_is_known_to_live(monkeypatch):
    def refuse(pid, signal):
        raise PermissionError

    owner = owner_here()
    monkeypatch.setattr(os, "kill", refuse)
    assert driver_of(owner) is ALIVE
    assert driver_of(with_part(owner, START, "1")) is DEAD


def test_of_a_process_that_proc_hides_nothing_is_known(monkeypatch):
    owner = owner_here()
    monkeypatch.setattr(process_identity, "stat_of", lambda pid, thread=None: None)
    assert driver_of(owner) is driver_of(with_part(owner, START, "1")) is UNKNOWN


def test_want_of_descriptors_kills_nobody(monkeypatch, child):
    """A file that cannot be opened just now is no proof of anything."""

    def refuse(*args, **options):
        raise OSError(errno.EMFILE, "too many open files")

    _, owner = child
    for missing in ("stat", "task"):
        with monkeypatch.context() as patched:
            really = Path.read_text
            patched.setattr(
                Path,
                "read_text",
                lambda path, missing=missing, really=really, **options: (
                    refuse() if missing in str(path) else really(path, **options)
                ),
            )
            assert driver_of(owner) is UNKNOWN, missing


def test_of_another_boot_of_a_host_of_this_name_nothing_is_known():
    """Two machines may share a name, an image and so a machine id: nothing but the boot tells them apart."""
    assert driver_of(with_part(owner_here(), BOOT, "another")) is UNKNOWN


def test_the_machine_id_itself_stands_in_no_owner(monkeypatch, tmp_path):
    machine_id = tmp_path / "machine-id"
    machine_id.write_text("0123456789abcdef\n")
    monkeypatch.setattr(module, "_MACHINE_ID", machine_id)
    assert driver_of(owner_here()) is ALIVE
    assert "0123456789abcdef" not in owner_here()
    monkeypatch.setattr(module, "_MACHINE_ID", tmp_path / "missing")
    monkeypatch.setattr(module, "_known_processes", {})
    assert driver_of(owner_here()) is ALIVE
    assert driver_of(with_part(owner_here(), START, "1")) is DEAD


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (HOST, "another:0123"),
        (NAMESPACES, "1.1"),
        (BOOT, "-"),
        (START, "-"),
        (PID, "0"),
        (PID, "-1"),
        (PID, "x"),
        (PID, "9" * 30),
    ],
)
def test_what_cannot_be_known_is_unknown(index, value):
    for owner in (owner_here(), with_part(owner_here(), START, "1")):
        assert driver_of(with_part(owner, index, value)) is UNKNOWN


@pytest.mark.parametrize("once", ["", "-.-.x", "x.1.y", "1.-.x", "..", "a.b.c.d"])
def test_without_a_thread_the_process_counts(once):
    assert driver_of(with_part(owner_here(), ONCE, once)) is ALIVE


@pytest.mark.parametrize("owner", ["", "somebody", "/////", "a/b/c/1/1/x", "a/b/c"])
def test_of_an_owner_of_another_form_nothing_is_known(owner):
    assert driver_of(owner) is UNKNOWN


def test_without_a_proc_of_its_own_a_process_proves_nothing(monkeypatch, tmp_path, child):
    process, owner = child
    process.communicate("\n", timeout=60)
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "sys").symlink_to("/proc/sys")
    monkeypatch.setattr(process_identity, "_PROC", proc)
    assert driver_of(owner) is UNKNOWN
    assert owner_here().split("/")[NAMESPACES] == owner_here().split("/")[START] == "-"
    # that of another pid namespace, as a sandbox leaves it
    (proc / "self").symlink_to("/proc/1")
    assert driver_of(owner) is UNKNOWN
    assert owner_here().split("/")[START] == "-"


def test_on_another_system_nothing_is_known(monkeypatch, child):
    process, owner = child
    process.communicate("\n", timeout=60)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "kill", None)  # it would end the process on some
    assert driver_of(owner) is UNKNOWN
    assert owner_here().split("/")[START] == "-"
    assert process_identity.boot_clock() <= process_identity.boot_clock()


def test_a_lease_that_keeps_others_out_says_who_has_it_and_what_to_do():
    error = leased(HeldLease("r", 1, owner_here(), 5_500, 10_000), None)
    assert f"process {os.getpid()} on " in str(error)
    assert "is alive" in str(error)
    assert "end that process" in error.hint
    error = leased(HeldLease("r", 1, "somebody", 5_500, 10_000), 4_500)
    assert "'somebody'" in str(error)
    assert "4.5 s" in str(error)


@pytest.mark.parametrize(
    ("now", "held"), [(0, True), (-100, False), (299, True), (300, False), (9_999, False), (-9_999, False)]
)
def test_at_a_glance_a_lease_nobody_can_judge_is_held_for_about_its_time(now, held):
    assert lease_is_held(HeldLease("r", 1, "somebody", 200, 100), now) is held


def test_at_a_glance_the_clock_says_nothing_of_a_driver_that_is_known(child):
    process, owner = child
    assert lease_is_held(HeldLease("r", 1, owner, 0, 1))
    process.communicate("\n", timeout=60)
    assert not lease_is_held(HeldLease("r", 1, owner, 2**60, 1))
    assert not lease_is_held(None)
