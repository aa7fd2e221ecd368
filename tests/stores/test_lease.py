"""An owner is gone only when that is certain: to take a run from a living driver would do its effects twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from machine.stores import lease as module
from machine.stores.lease import HeldLease, is_alive, is_gone, leased, owner_here

SAY = "from machine.stores.lease import owner_here; print(owner_here(), flush=True); input()"

pytestmark = pytest.mark.skipif(
    "-" in owner_here().split("/")[1:], reason="/proc is not that of this process"
)


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


HOST, BOOT, NAMESPACES, PID, START, RANDOM = range(6)


def test_an_owner_names_this_process_and_one_use_of_it():
    one, other = owner_here().split("/"), owner_here().split("/")
    assert one[:RANDOM] == other[:RANDOM]
    assert one[RANDOM] != other[RANDOM]
    assert one[PID] == str(os.getpid())
    assert "/".join(one).isprintable()


def test_a_living_process_is_not_gone(child):
    _, owner = child
    assert not is_gone(owner)
    assert not is_gone(owner_here())
    assert owner.split("/")[:PID] == owner_here().split("/")[:PID]


def test_a_process_that_ended_is_gone(child):
    process, owner = child
    process.communicate("\n", timeout=60)
    assert is_gone(owner)


def test_a_process_that_was_killed_is_gone_before_it_is_reaped(child):
    process, owner = child
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}").exists()
    assert is_gone(owner)


def test_another_process_under_its_pid_is_not_it(child):
    _, owner = child
    assert is_gone(with_part(owner, START, "1"))


def test_a_process_of_another_user_is_known_to_live(monkeypatch):
    def refuse(pid, signal):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not is_gone(owner_here())
    assert is_gone(with_part(owner_here(), START, "1"))


def test_a_process_that_proc_hides_is_not_gone(monkeypatch):
    monkeypatch.setattr(module, "_start_of", lambda pid: None)
    assert not is_gone(with_part(owner_here(), START, "1"))


def test_an_earlier_boot_of_this_host_is_gone(monkeypatch, tmp_path):
    machine_id = tmp_path / "machine-id"
    machine_id.write_text("0123456789abcdef\n")
    monkeypatch.setattr(module, "_MACHINE_ID", machine_id)
    assert is_gone(with_part(owner_here(), BOOT, "another"))
    assert "0123456789abcdef" not in owner_here()


def test_of_a_host_that_is_known_by_its_name_alone_another_boot_may_be_another_host(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_MACHINE_ID", tmp_path / "missing")
    assert not is_gone(with_part(owner_here(), BOOT, "another"))
    assert is_gone(with_part(owner_here(), START, "1"))


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
def test_what_cannot_be_known_is_not_gone(index, value):
    assert not is_gone(with_part(with_part(owner_here(), START, "1"), index, value))


@pytest.mark.parametrize("owner", ["", "somebody", "/////", "a/b/c/1/1/x", "a/b/c"])
def test_an_owner_of_another_form_is_not_gone(owner):
    assert not is_gone(owner)


def test_without_a_proc_of_its_own_a_process_proves_nothing(monkeypatch, tmp_path, child):
    process, owner = child
    process.communicate("\n", timeout=60)
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "sys").symlink_to("/proc/sys")
    monkeypatch.setattr(module, "_PROC", proc)
    assert not is_gone(owner)
    assert owner_here().split("/")[NAMESPACES] == owner_here().split("/")[START] == "-"
    # that of another pid namespace, as a sandbox leaves it
    (proc / "self").symlink_to("/proc/1")
    assert not is_gone(owner)
    assert owner_here().split("/")[START] == "-"


def test_on_another_system_nothing_is_known(monkeypatch, child):
    process, owner = child
    process.communicate("\n", timeout=60)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "kill", None)  # it would end the process on some
    assert not is_gone(owner)
    assert owner_here().split("/")[START] == "-"


def test_a_lease_that_keeps_others_out_says_who_has_it():
    error = leased(HeldLease("r", 1, owner_here(), 5_500, 10_000), 1_000)
    assert f"process {os.getpid()} on " in str(error)
    assert "4.5 s" in str(error)
    assert "'somebody'" in str(leased(HeldLease("r", 1, "somebody", 5_500, 10_000), 1_000))


@pytest.mark.parametrize(
    ("now", "alive"), [(0, False), (99, False), (100, True), (199, True), (200, False), (9_999, False)]
)
def test_a_lease_is_alive_for_its_own_time_and_no_longer(now, alive):
    assert is_alive(HeldLease("r", 1, "somebody", 200, 100), now) is alive
