"""Who drives a run: a lease of limited time, fenced by an epoch, and the text that names its owner.

The epoch is what keeps two drivers apart: a store refuses the append of an older one, whatever the clocks
say. Time and the owner's death only decide when somebody else may take over; they are never the fence.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Final

import attrs
from blake3 import blake3

from machine.errors import Code, Concurrency, UsageError
from machine.ids import RunId

__all__ = [
    "MAX_TTL_MS",
    "HeldLease",
    "Lease",
    "check_acquire",
    "is_alive",
    "is_gone",
    "leased",
    "lost",
    "owner_here",
    "wall_clock",
]

MAX_TTL_MS: Final = 24 * 60 * 60 * 1000
"""The longest time a lease may be taken for at once: a day."""

_MAX_OWNER: Final = 512
_PARTS: Final = 6
_UNKNOWN: Final = "-"
_PROC: Final = Path("/proc")
_MACHINE_ID: Final = Path("/etc/machine-id")


@attrs.frozen
class Lease:
    """The right to append to a run, as `acquire` returned it; `epoch` is never given twice for a run."""

    run_id: str
    epoch: int
    owner: str
    ttl_ms: int


@attrs.frozen
class HeldLease:
    """What a store tells about a lease that is held; `expires_at_ms` is of the wall clock."""

    run_id: str
    epoch: int
    owner: str
    expires_at_ms: int
    ttl_ms: int


def wall_clock() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


# rules every store keeps


def check_acquire(run_id: str, owner: str, ttl_ms: int) -> str:
    """Return the run id of a lease that may be asked for. Raises `IdError` or `UsageError`."""
    if not isinstance(owner, str) or not 1 <= len(owner) <= _MAX_OWNER or not owner.isprintable():
        raise UsageError(
            f"the owner of a lease is {owner!r}: it must be 1 to {_MAX_OWNER} printable characters"
        )
    if type(ttl_ms) is not int or not 1 <= ttl_ms <= MAX_TTL_MS:
        raise UsageError(f"ttl_ms is {ttl_ms!r}: it must be a whole number from 1 to {MAX_TTL_MS}")
    return str(RunId(run_id))


def is_alive(held: HeldLease, now_ms: int) -> bool:
    """Say whether a lease keeps others out: it has not expired, and its owner is not known to be dead.

    One that expires later than its own time from now was written by a clock that was ahead; it would block
    the run for as long as that clock was wrong, so it counts as expired.
    """
    return now_ms < held.expires_at_ms <= now_ms + held.ttl_ms and not is_gone(held.owner)


def leased(held: HeldLease, now_ms: int) -> Concurrency:
    """Return the error for a run that another lease keeps."""
    left = held.expires_at_ms - now_ms
    return Concurrency(
        f"run {held.run_id} is driven by {_name_of(held.owner)}; its lease expires in {left / 1000:g} s",
        code=Code.RUN_LEASED,
        retryable=True,
        details={"run_id": held.run_id, "owner": held.owner, "expires_in_ms": left},
        hint="wait until it has finished, or stop it: the run is free when it has ended or its lease expires",
    )


def lost(lease: Lease, epoch: int) -> Concurrency:
    """Return the error for the use of a lease that is not the run's any more; `epoch` is the run's current."""
    why = "somebody else took the run over" if epoch > lease.epoch else "it was released"
    return Concurrency(
        f"the lease {lease.epoch} on run {lease.run_id} is lost: {why}",
        code=Code.LEASE_LOST,
        details={"run_id": lease.run_id, "epoch": lease.epoch, "current": epoch},
        hint="nothing was written; stop, and resume the run if nobody drives it",
    )


# who an owner is


def owner_here() -> str:
    """Return a text that names this process, and one use of it: no two calls return the same.

    Its parts are host, boot, namespaces, pid, start of the process and something random; one that the
    system does not tell is "-".
    """
    pid = os.getpid()
    start = (_start_of(pid) if _sees_itself() else None) or _UNKNOWN
    return "/".join((_host(), _boot(), _namespaces(), str(pid), start, secrets.token_hex(8)))


def is_gone(owner: str) -> bool:
    """Say whether an owner is provably dead; False whenever that cannot be known from here."""
    parts = owner.split("/")
    if len(parts) != _PARTS or _UNKNOWN in parts:
        return False
    host, boot, namespaces, pid, start, _ = parts
    if host != _host() or _boot() == _UNKNOWN:
        return False
    if boot != _boot():
        # a name alone is no host: two machines may share one, and a store
        return not host.endswith(f":{_UNKNOWN}")
    if namespaces != _namespaces() or not _sees_itself() or not pid.isdecimal():
        return False
    return _has_ended(int(pid), start)


def _has_ended(pid: int, start: str) -> bool:
    # /proc may hide the processes of others, so only the kernel's word that there is none is proof
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    known = _start_of(pid)
    return known is not None and known != start


def _name_of(owner: str) -> str:
    parts = owner.split("/")
    return f"process {parts[3]} on {parts[0].rpartition(':')[0]}" if len(parts) == _PARTS else repr(owner)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
    return ""


def _host() -> str:
    machine = _read(_MACHINE_ID)
    digest = blake3(machine.encode()).hexdigest(6) if machine else _UNKNOWN
    name = "".join(each for each in socket.gethostname() if each.isprintable() and each != "/")
    return f"{name}:{digest}"


def _boot() -> str:
    return _read(_PROC / "sys/kernel/random/boot_id") or _UNKNOWN


def _namespaces() -> str:
    """Return what tells the namespaces apart that a pid and a start time are counted in."""
    try:
        pids = (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return _UNKNOWN
    times = 0
    with contextlib.suppress(OSError):  # a kernel before 5.6 has one time for all
        times = (_PROC / "self/ns/time").stat().st_ino
    return f"{pids}.{times}"


def _sees_itself() -> bool:
    """Say whether /proc is that of our own pid namespace; a sandbox may have left another's there."""
    if sys.platform != "linux":
        return False
    try:
        return os.readlink(_PROC / "self") == str(os.getpid())  # noqa: PTH115 - the text, not a path
    except OSError:
        return False


def _start_of(pid: int) -> str | None:
    """Return when a process began, in the kernel's ticks since boot; "ended" of one that waits to be reaped."""
    # proc(5): the name stands in brackets and may hold anything; the state is the field after it
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    try:
        state, threads, start = fields[0], int(fields[17]), fields[19]
    except (IndexError, ValueError):
        return None
    return "ended" if state in {"Z", "X"} and threads <= 1 else start
