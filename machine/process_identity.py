"""The identity of processes and threads, as the kernel of this machine tells it, and the time since its boot.

A pid alone is no identity: it is used again, and each pid namespace counts by itself. Only what the system says
for certain counts here; where it does not tell, the answer is None or UNKNOWN, never a guess.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Final

__all__ = [
    "UNKNOWN",
    "boot_clock",
    "boot_id",
    "has_ended",
    "namespaces",
    "read",
    "sees_itself",
    "start_of",
    "thread_has_ended",
]

UNKNOWN: Final = "-"
"""What stands for a part that the system does not tell."""

_PROC: Final = Path("/proc")


def boot_clock() -> int:
    """Return the milliseconds since this machine was started, its sleep included; nobody can set this clock."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    return time.monotonic_ns() // 1_000_000


def boot_id() -> str:
    """Return what tells this start of this machine from every other."""
    return read(_PROC / "sys/kernel/random/boot_id") or UNKNOWN


def namespaces() -> str:
    """Return what tells the namespaces apart that a pid and a start time are counted in."""
    try:
        pids = (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return UNKNOWN
    times = 0
    with contextlib.suppress(OSError):  # a kernel before 5.6 has one time for all
        times = (_PROC / "self/ns/time").stat().st_ino
    return f"{pids}.{times}"


def sees_itself() -> bool:
    """Say whether /proc is that of our own pid namespace; a sandbox may have left another's there."""
    if sys.platform != "linux":
        return False
    try:
        return os.readlink(_PROC / "self") == str(os.getpid())  # noqa: PTH115 - the text, not a path
    except OSError:
        return False


def start_of(pid: int, thread: int | None = None) -> str | None:
    """Return when a process, or one thread of it, began, in the kernel's ticks since boot.

    "ended" of a process that waits to be reaped; None when the system does not tell.
    """
    return _start_in(read(_stat_of(pid, thread)), alone=thread is not None)


def has_ended(pid: int, start: str) -> bool | None:
    """Say whether the process that began at `start` has ended; None when that cannot be known."""
    # /proc may hide the processes of others, so only the kernel's word that there is none is proof
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    known = start_of(pid)
    return None if known is None else known != start


def thread_has_ended(pid: int, thread: int, start: str) -> bool | None:
    """Say whether a thread of a living process has ended; None when that cannot be known."""
    try:
        known = _start_in(_stat_of(pid, thread).read_text(encoding="utf-8", errors="replace"), alone=True)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return None
    return None if known is None else known != start


def _stat_of(pid: int, thread: int | None) -> Path:
    return _PROC / str(pid) / "stat" if thread is None else _PROC / f"{pid}/task/{thread}/stat"


def _start_in(stat: str, *, alone: bool) -> str | None:
    # proc(5): the name stands in brackets and may hold anything; the state is the field after it
    fields = stat.rpartition(")")[2].split()
    try:
        state, threads, start = fields[0], int(fields[17]), fields[19]
    except (IndexError, ValueError):
        return None
    return "ended" if state in {"Z", "X"} and (alone or threads <= 1) else start


def read(path: Path) -> str:
    """Return the text of a small file without the blanks around it, empty when it cannot be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
