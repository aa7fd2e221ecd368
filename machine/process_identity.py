"""The identity of processes and threads, from the kernel of this machine, and the time since its boot.

A pid alone is no identity: it is reused, and each pid namespace counts separately. Only certain knowledge of the
system counts here; otherwise the answer is None or UNKNOWN, never a guess.
"""

# An owner is named at the start of every run, and pathlib takes longer than the kernel.
# ruff: noqa: PTH115, PTH116, PTH123

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

UNKNOWN: Final = "-"
"""The value of a part that the system does not provide."""

_PROC: Final = Path("/proc")


def boot_clock() -> int:
    """Return the milliseconds since this machine was started, its sleep included; nobody can set this clock."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    return time.monotonic_ns() // 1_000_000


def boot_id() -> str:
    """Return an id that distinguishes this boot of this machine from every other."""
    return read(f"{_PROC}/sys/kernel/random/boot_id") or UNKNOWN


def namespaces() -> str:
    """Return an id of the namespaces in which a pid and a start time are counted."""
    try:
        pids = os.stat(f"{_PROC}/self/ns/pid").st_ino
    except OSError:
        return UNKNOWN
    times = 0
    with contextlib.suppress(OSError):  # a kernel before 5.6 has one time for all
        times = os.stat(f"{_PROC}/self/ns/time").st_ino
    return f"{pids}.{times}"


def sees_itself() -> bool:
    """Say whether /proc is that of our own pid namespace; a sandbox may have left another's there."""
    if sys.platform != "linux":
        return False
    try:
        return os.readlink(f"{_PROC}/self") == str(os.getpid())
    except OSError:
        return False


class Stat(NamedTuple):
    """The kernel's data of a process or a thread: `start` is in its ticks since boot."""

    parent: int
    group: int
    session: int
    start: str
    ended: bool
    """True for a process that waits to be reaped."""


def stat_of(pid: int, thread: int | None = None) -> Stat | None:
    """Return the kernel's data of a process, or of one of its threads; None when there is none."""
    return _parsed(read(_stat_path(pid, thread)), alone=thread is not None)


def start_of(pid: int, thread: int | None = None) -> str | None:
    """Return the start of a process or of one of its threads, in the kernel's ticks since boot, or None."""
    stat = stat_of(pid, thread)
    return stat.start if stat is not None else None


def has_ended(pid: int, start: str) -> bool | None:
    """Say whether the process that began at `start` has ended; None when that cannot be known."""
    # /proc may hide the processes of others, so only an explicit answer of the kernel is proof
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return _is_over(stat_of(pid), start)


def thread_has_ended(pid: int, thread: int, start: str) -> bool | None:
    """Say whether a thread of a living process has ended; None when that cannot be known."""
    try:
        text = Path(_stat_path(pid, thread)).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return None
    return _is_over(_parsed(text, alone=True), start)


def _is_over(stat: Stat | None, start: str) -> bool | None:
    return None if stat is None else stat.ended or stat.start != start


def _stat_path(pid: int, thread: int | None) -> str:
    return f"{_PROC}/{pid}/stat" if thread is None else f"{_PROC}/{pid}/task/{thread}/stat"


def _parsed(text: str, *, alone: bool) -> Stat | None:
    # proc(5): the name stands in brackets and may hold anything; the state is the field after it
    fields = text.rpartition(")")[2].split()
    try:
        parent, group, session = map(int, fields[1:4])
        ended = fields[0] in {"Z", "X"} and (alone or int(fields[17]) <= 1)
        return Stat(parent, group, session, fields[19], ended)
    except (IndexError, ValueError):
        return None


def read(path: Path | str) -> str:
    """Return the stripped text of a small file, empty when it cannot be read."""
    try:  # with neither a buffer nor a decoder, which take longer than the kernel
        with open(path, "rb", buffering=0) as file:
            return file.readall().decode("utf-8", "replace").strip()
    except OSError:
        return ""
