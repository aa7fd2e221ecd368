"""No program outlives its driver: not by a moment that counts, and never beside a second copy of itself."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from machine import process_identity
from machine.errors import Code, RunError
from machine.io import orphaned_programs, running_programs
from machine.io.child_process import run_process
from machine.io.orphaned_programs import Left, end_all, folders, left_by, left_in

pytestmark = pytest.mark.skipif(not process_identity.sees_itself(), reason="needs a /proc of its own")

DRIVER = """
import sys
import machine
from machine import Plan, open_store

plan = Plan("p")

@plan.state("a.async")
async def starts(ctx, io, rec):
    ctx["code"] = (await io.exec(["sh", "-c", sys.argv[2]], timeout=600)).returncode

blocking = Plan("q")

@blocking.state("a.plain")
def plain(ctx, io, rec):
    ctx["code"] = io.exec(["sh", "-c", sys.argv[2]], timeout=600).returncode

if __name__ == "__main__":
    chosen = {"async": plan, "plain": blocking}[sys.argv[1]]
    with open_store("sqlite:///runs.db") as store:
        if len(sys.argv) > 3:
            print(machine.resume(sys.argv[3], plan=chosen, store=store).status)
        else:
            run_id = str(machine.new_run_id())
            print(run_id, flush=True)
            machine.run(chosen, store=store, run_id=run_id)
"""


def processes(marker):
    """Return the living processes with a word on their command lines, but for drivers and shells that wait."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - the names alone
        if name.isdecimal() and int(name) != os.getpid():
            stat = process_identity.stat_of(int(name))
            command = process_identity.read(Path(f"/proc/{name}/cmdline"))
            if stat is not None and not stat.ended and marker in command and "driver.py" not in command:
                found[int(name)] = command
    return found


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def watcher_of(pid):
    (found,) = [each for each, command in processes("program_watcher").items() if f"\0{pid}\0" in command]
    return found


@pytest.fixture
def marker():
    """Give a time to sleep that no other process sleeps; whoever still does in the end is killed."""
    text = f"600.{secrets.randbelow(10**9):09}"
    yield text
    for pid in processes(text):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(*args):
        (tmp_path / "driver.py").write_text(DRIVER)
        process = subprocess.Popen(
            [sys.executable, "driver.py", *args], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


SCRIPTS = {
    "alone": ("exec sleep MARK", 1),
    "children": ("sleep MARK & sleep MARK & wait", 2),
    "pipeline": ("sleep MARK | sleep MARK | cat", 2),
    "orphan in the group": ("(sleep MARK >/dev/null 2>&1 &) ; exec sleep MARK", 2),
    "session of its own": ("setsid sleep MARK & sleep MARK & wait", 2),
    "quiet session of its own": ("setsid sleep MARK >/dev/null 2>&1 & sleep MARK & wait", 2),
    "deaf": ("trap '' TERM INT HUP; sleep MARK & wait; sleep MARK", 1),
    "leader gone": ("sleep MARK & sleep MARK & exit 0", 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("kind", ["async", pytest.param("plain", marks=pytest.mark.long)])
def test_nothing_outlives_a_driver_that_was_killed(start, marker, kind, script):
    text, count = SCRIPTS[script]
    driver = start(kind, text.replace("MARK", marker))
    until(lambda: len([line for line in processes(marker).values() if "sh\0-c" not in line]) >= count)
    driver.kill()
    driver.wait()
    until(lambda: not processes(marker))
    until(lambda: not processes(f"\0{driver.pid}\0"))  # nor does its watcher, nor a note of it
    assert not [left for folder in folders() for left in left_by(folder, driver.pid, "-")]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT, signal.SIGQUIT])
def test_however_the_whole_group_of_the_driver_is_killed(tmp_path, marker, how):
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, "driver.py", "async", f"exec sleep {marker}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(lambda: processes(marker))
    os.killpg(driver.pid, how)
    driver.wait()
    until(lambda: not processes(marker))


COUNT = "for i in 1 2 3 4 5 6; do echo $$ >> rows; sleep 0.3; done; sleep 0 # MARK"


@pytest.mark.slow
@pytest.mark.parametrize("script", [COUNT, "sh -c '" + COUNT.replace("# MARK", "") + "' & wait # MARK"])
def test_the_next_driver_ends_the_old_copy_before_it_starts_a_new_one(start, tmp_path, marker, script):
    """Though the watcher was killed with the first driver."""
    script, rows = script.replace("MARK", marker), tmp_path / "rows"
    driver = start("async", script)
    run_id = driver.stdout.readline().strip()
    until(rows.exists)
    os.kill(watcher_of(driver.pid), signal.SIGKILL)
    driver.kill()
    driver.wait()
    assert processes(marker)
    again = start("async", script, run_id)
    assert again.communicate(timeout=120)[0] == "completed\n"
    order = rows.read_text().split()
    assert len(dict.fromkeys(order)) == 2
    assert order == sorted(order, key=order.index)  # not one line of the first after one of the second
    assert order.count(order[-1]) == 6
    assert left_in(run_id) == []


def note(folder, *, pid, start, driver=None, outputs=(), run="run"):
    driver = driver or (2**22 + 1, "1")  # which is no pid
    here = [process_identity.boot_id(), process_identity.namespaces()]
    head = {"here": here, "driver": driver[0], "driver_start": driver[1], "outputs": list(outputs)}
    file = folder / f"{run}.{driver[0]}.0"
    file.write_text(json.dumps(head) + "\n" + (f"{pid} {start}\n" if pid is not None else ""))
    return file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give the folder of notes that this process, and none but this, looks at."""
    place = tmp_path / f"machine-{os.getuid()}"
    place.mkdir(0o700)
    monkeypatch.setattr(orphaned_programs, "folders", lambda: iter([place]))
    monkeypatch.setattr(running_programs, "folders", lambda: iter([place]))
    monkeypatch.setattr(running_programs, "_process", running_programs._Process())
    return place


@pytest.fixture
def sleeper():
    """Give a process in a session of its own."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def start_of(process):
    return process_identity.start_of(process.pid)


def test_a_program_that_a_dead_driver_left_is_ended(folder, sleeper):
    file = note(folder, pid=sleeper.pid, start=start_of(sleeper))
    (left,) = left_in("run")
    assert (left.pid, left.start) == (sleeper.pid, start_of(sleeper))
    assert end_all([left]) == []
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not file.exists()


def test_nobody_else_is_ended_under_a_pid_that_is_used_again(folder, sleeper):
    for start in ("1", "ended", "-"):
        file = note(folder, pid=sleeper.pid, start=start)
        for at_once in (False, True):
            assert end_all(left_in("run"), at_once=at_once) == []
        assert sleeper.poll() is None
        assert not file.exists()  # there is nothing left of the program


def test_a_group_whose_leader_is_gone_may_be_anothers(folder):
    """Unless the driver was alive a moment ago. What holds the program's outputs is its own in any case."""
    script = "sleep 600 >/dev/null & echo $!; exit 0"
    process = subprocess.Popen(
        ["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    start = start_of(process)
    process.communicate()
    note(folder, pid=process.pid, start=start)
    assert end_all(left_in("run")) == []
    assert not process_identity.stat_of(child).ended
    note(folder, pid=process.pid, start=start)
    assert end_all(left_in("run"), at_once=True) == []
    until(lambda: (stat := process_identity.stat_of(child)) is None or stat.ended)


@pytest.mark.parametrize("which", ["0", "1", "-1", "me", "my group", "my session"])
def test_nothing_is_done_to_what_must_not_be_touched(folder, monkeypatch, which):
    mine = {"me": os.getpid(), "my group": os.getpgrp(), "my session": os.getsid(0)}
    pid = mine[which] if which in mine else int(which)  # a container may show its session as 0
    killed = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: signum and killed.append(pid))
    monkeypatch.setattr(os, "killpg", lambda pid, signum: killed.append(pid))
    monkeypatch.setattr(orphaned_programs, "_SECONDS_TO_END", 0.05)
    file = note(folder, pid=pid, start=process_identity.start_of(pid) or "1")
    end_all([Left(file, 1, "1", (), pid, process_identity.start_of(pid) or "1")], at_once=True)
    assert killed == []


def test_the_programs_of_a_living_driver_are_left_alone(folder, sleeper):
    me = os.getpid(), process_identity.start_of(os.getpid())
    note(folder, pid=sleeper.pid, start=start_of(sleeper), driver=me)
    assert left_in("run") == []
    assert len(left_by(folder, *me)) == 1


@pytest.mark.parametrize("here", [["another boot", None], [None, "1.1"]])
def test_the_programs_of_another_boot_or_container_are_nobody_here(folder, sleeper, here):
    file = note(folder, pid=sleeper.pid, start=start_of(sleeper))
    head, line, _ = file.read_text().split("\n")
    value = json.loads(head)
    value["here"] = [mine if each is None else each for mine, each in zip(value["here"], here, strict=True)]
    file.write_text(f"{json.dumps(value)}\n{line}\n")
    assert left_in("run") == []


@pytest.mark.parametrize("text", ["", "{", "[]\n", "{}\n", '{"here": 1}\n1 2\n', "\0\n"])
def test_a_note_that_cannot_be_read_says_nothing(folder, text):
    (folder / "run.1.0").write_text(text)
    assert left_in("run") == []


def test_a_program_whose_driver_died_while_it_started_it_is_known_by_its_outputs(folder):
    ours, theirs = os.pipe()
    process = subprocess.Popen(["sleep", "600"], stdout=theirs, start_new_session=True)
    inode = os.fstat(theirs).st_ino
    os.close(theirs)
    note(folder, pid=None, start=None, outputs=[inode])
    assert end_all(left_in("run")) == []  # and this process, which reads them, is not one of them
    assert process.wait(10) == -signal.SIGKILL
    os.close(ours)


def test_a_program_that_does_not_end_is_told(folder, sleeper, monkeypatch):
    monkeypatch.setattr(orphaned_programs, "_SECONDS_TO_END", 0.05)
    monkeypatch.setattr(orphaned_programs, "_kill", lambda how, number: None)
    note(folder, pid=sleeper.pid, start=start_of(sleeper))
    with pytest.raises(RunError) as failure:
        anyio.run(running_programs.end_left, "run")
    assert failure.value.code == Code.PROGRAM_LEFT
    assert failure.value.info.details["pids"] == [sleeper.pid]


def test_a_program_that_takes_long_to_end_is_not_looked_for_all_the_time(folder, sleeper, monkeypatch):
    """A look reads every descriptor of every process."""
    looks, now = [], [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(orphaned_programs, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(orphaned_programs, "_is_gone", lambda left, at_once: looks.append(now[0]) is not None)
    note(folder, pid=sleeper.pid, start=start_of(sleeper))
    assert len(end_all(left_in("run"))) == 1
    assert looks[:2] == [0.0, 0.01], "most end at once"
    assert len(looks) < 60


def ran(argv):
    async def run():
        return await run_process(
            argv, stdin=b"", env=dict(os.environ), cwd=None, timeout=60, max_output=1_000_000
        )

    return anyio.run(run)


def test_while_a_program_runs_there_is_a_note_and_then_there_is_none(folder):
    seen = ran(["sh", "-c", f"sleep 0.2; cat {folder}/*; ls -l {folder}; echo $$"]).stdout.decode()
    head, line, *_, pid = seen.strip().split("\n")
    assert json.loads(head)["driver"] == os.getpid()
    assert line.split()[0] == pid
    assert "-rw-------" in seen
    assert list(folder.iterdir()) == []
    with pytest.raises(OSError, match="no-such-program"):
        ran(["/no-such-program"])
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_may_enter_or_own_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    mine = tmp_path / f"machine-{os.getuid()}"
    mine.mkdir(0o700)
    assert mine in folders()
    mine.chmod(0o755)
    assert mine not in folders()
    mine.rmdir()
    (tmp_path / "elsewhere").mkdir(0o700)
    mine.symlink_to(tmp_path / "elsewhere")
    assert mine not in folders()


def test_where_no_note_can_be_kept_a_program_runs_all_the_same(monkeypatch):
    def refuse():
        raise PermissionError

    monkeypatch.setattr(running_programs, "folders", lambda: iter(()))
    monkeypatch.setattr(running_programs, "_made", refuse)
    monkeypatch.setattr(running_programs, "_process", running_programs._Process())
    assert ran(["echo", "hello"]).stdout == b"hello\n"


def test_the_watcher_is_no_child_and_ends_with_its_driver(tmp_path):
    script = """
import anyio, os, sys, time
from machine.io.child_process import run_process
async def main():
    await run_process(["true"], stdin=b"", env={}, cwd=None, timeout=60, max_output=1)
anyio.run(main)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child", os.getpid(), flush=True)
pid = os.fork()
if pid == 0:
    os.close(1)
    time.sleep(600)
    os._exit(0)
print(pid, flush=True)
sys.stdin.readline()
os._exit(0)
"""
    driver = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout.readline() == f"no child {driver.pid}\n"
    copy = int(driver.stdout.readline())
    until(lambda: watcher_of(driver.pid))
    driver.stdin.write("\n")
    driver.stdin.flush()
    driver.wait(60)
    # a copy that it has forked lives on and must not keep the watcher in the dark
    until(lambda: not [line for line in processes("program_watcher").values() if f"\0{driver.pid}\0" in line])
    os.kill(copy, signal.SIGKILL)
    driver.communicate()
