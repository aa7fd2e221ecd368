"""The right to drive a run: a lease of limited time, fenced by an epoch, and the text that names its owner.

The epoch is what keeps two drivers apart: a store refuses the append of an older one, whatever the clocks say. The
time of a takeover depends on what is known of the owner; if nothing is known, a lease must have been observed
without a heartbeat for its whole time. No wall clock is involved in either.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from enum import StrEnum
from pathlib import Path
from typing import Final

import attrs
from blake3 import blake3

from machine import process_identity
from machine.errors import Code, ConcurrencyError, UsageError
from machine.ids import RunId

MAX_TTL_MS: Final = 24 * 60 * 60 * 1000
"""The longest time for which a lease may be taken: a day."""

_MAX_OWNER: Final = 512
_PARTS: Final = 6
_UNKNOWN: Final = process_identity.UNKNOWN
_LONGEST_LOOK_MS: Final = 1_000
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
    """A valid lease as a store reports it; `expires_at_ms` is of the wall clock."""

    run_id: str
    epoch: int
    owner: str
    expires_at_ms: int
    ttl_ms: int

    def renewed(self, now_ms: int) -> HeldLease:
        """Return the lease after a renewal now: it never expires earlier than before, whatever the clock says."""
        expires_at_ms = now_ms + self.ttl_ms
        return attrs.evolve(self, expires_at_ms=expires_at_ms + (expires_at_ms == self.expires_at_ms))


def wall_clock() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


# rules of every store


def check_acquire(run_id: str, owner: str, ttl_ms: int) -> str:
    """Check the arguments of `acquire` and return the run id. Raises `IdError` or `UsageError`."""
    if not isinstance(owner, str) or not 1 <= len(owner) <= _MAX_OWNER or not owner.isprintable():
        raise UsageError(
            f"the owner of a lease is {owner!r}: it must be 1 to {_MAX_OWNER} printable characters"
        )
    if type(ttl_ms) is not int or not 1 <= ttl_ms <= MAX_TTL_MS:
        raise UsageError(f"ttl_ms is {ttl_ms!r}: it must be a whole number from 1 to {MAX_TTL_MS}")
    return str(RunId(run_id))


class LeaseWatch:
    """The observation, by one store object, of leases whose owners may be dead or alive.

    A lease expires when no heartbeat was observed for 1.1 times its duration, by a clock that nobody can set.
    Only time between observations counts, and of a longer gap between two of them at most a second, because
    this process or the whole machine may have been suspended together with the driver.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched_ms = 0
        self._looked_at_ms: int | None = None
        self._seen: dict[str, tuple[HeldLease, int]] = {}

    def left_ms(self, held: HeldLease, now_ms: int) -> int | None:
        """Return the milliseconds until the lease is free if no heartbeat comes; `now_ms` is of the boot clock.

        Return 0 when its driver is dead or the time is over, None while its driver is known to live.
        """
        match driver_of(held.owner):
            case Driver.ALIVE:
                return None
            case Driver.DEAD:
                return 0
        seen_ms = self.seen(held, now_ms)
        return max(held.ttl_ms + held.ttl_ms // 10 - seen_ms, 0)

    def seen(self, held: HeldLease, now_ms: int) -> int:
        """Record the present lease, and return for how many milliseconds it was observed unchanged."""
        with self._lock:
            if self._looked_at_ms is not None:
                self._watched_ms += min(max(now_ms - self._looked_at_ms, 0), _LONGEST_LOOK_MS)
            self._looked_at_ms = now_ms
            seen = self._seen.get(held.run_id)
            if seen is None or seen[0] != held:
                seen = self._seen[held.run_id] = held, self._watched_ms
            return self._watched_ms - seen[1]


def lease_is_held(held: HeldLease | None, now_ms: int | None = None) -> bool:
    """Say whether somebody seems to drive a run: good enough to display, not to act on.

    `held` is the result of `Store.lease_of`, `now_ms` the wall clock's time. For a driver on another machine the
    wall clocks of both are compared, with the time of the lease as a margin.
    """
    if held is None:
        return False
    known = driver_of(held.owner)
    if known is not Driver.UNKNOWN:
        return known is Driver.ALIVE
    renewed_ms = held.expires_at_ms - held.ttl_ms
    return abs((wall_clock() if now_ms is None else now_ms) - renewed_ms) < 2 * held.ttl_ms


def leased(held: HeldLease, left_ms: int | None) -> ConcurrencyError:
    """Return the error for a run that has another valid lease; `left_ms` is the result of `LeaseWatch`."""
    name = _name_of(held.owner)
    if left_ms is None:
        problem = f"run {held.run_id} is driven by {name}, which is alive"
        hint = "wait until it has finished, or end that process: the run is free when it has ended"
    else:
        problem = (
            f"run {held.run_id} is driven by {name}, which cannot be seen from here; "
            f"its lease is over when it has not been renewed for {left_ms / 1000:g} s more"
        )
        hint = (
            "wait until it has finished, or stop it: the run is free when it has ended or its lease is over"
        )
    return ConcurrencyError(
        problem,
        code=Code.RUN_LEASED,
        retryable=True,
        details={"run_id": held.run_id, "owner": held.owner, "expires_in_ms": left_ms},
        hint=hint,
    )


def lost(lease: Lease, epoch: int) -> ConcurrencyError:
    """Return the error for the use of a lease that the run has lost; `epoch` is the run's current one."""
    why = "somebody else took the run over" if epoch > lease.epoch else "it was released"
    return ConcurrencyError(
        f"the lease {lease.epoch} on run {lease.run_id} is lost: {why}",
        code=Code.LEASE_LOST,
        details={"run_id": lease.run_id, "epoch": lease.epoch, "current": epoch},
        hint="nothing was written; stop, and resume the run if nobody drives it",
    )


# the owner


class Driver(StrEnum):
    """The state of the driver that owns a lease, as far as this process can know it."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """On another machine, in another container, or on a system that does not say."""


def owner_here(thread: int | None = None) -> str:
    """Return a new owner for a lease, different at each call: this thread, or another one of this process.

    The form is HOST/BOOT/NAMESPACES/PID/START/THREAD.THREAD_START.RANDOM, with "-" for what the system does not
    provide. The owner is the thread and not its process: a driver that ends without releasing its lease does not
    block its run for as long as the process lives.
    """
    pid, thread = os.getpid(), thread or threading.get_native_id()
    process = _process(pid)
    began = (process_identity.start_of(pid, thread) if process_identity.sees_itself() else None) or _UNKNOWN
    return f"{process}/{thread}.{began}.{secrets.token_hex(8)}"


_known_processes: Final[dict[int, str]] = {}


def _process(pid: int) -> str:
    """Return the parts of an owner that this process, with its pid, has for life.

    Where one of them changes all the same, as the name of the host can, its driver counts as unknown, not as dead.
    """
    known = _known_processes.get(pid)
    if known is None:
        start = (process_identity.start_of(pid) if process_identity.sees_itself() else None) or _UNKNOWN
        parts = (_host(), process_identity.boot_id(), process_identity.namespaces(), str(pid), start)
        known = "/".join(parts)
        if _UNKNOWN not in parts:  # otherwise a file may have been unreadable for a moment
            _known_processes.clear()
            _known_processes[pid] = known
    return known


def driver_of(owner: str) -> Driver:
    """Return what is known about an owner. Dead and alive are proofs; no clock is involved.

    They are given only where our /proc counts the owner's pid: on this boot of this machine, in this pid namespace.
    Two containers of one machine share a boot, and two machines may share everything else.
    """
    parts = owner.split("/")
    if len(parts) != _PARTS or _UNKNOWN in parts:
        return Driver.UNKNOWN
    host, boot, namespaces, pid, start, once = parts
    here = (_host(), process_identity.boot_id(), process_identity.namespaces())
    if (host, boot, namespaces) != here or not process_identity.sees_itself() or not pid.isdecimal():
        return Driver.UNKNOWN
    ended = process_identity.has_ended(int(pid), start)
    thread, _, began = once.rpartition(".")[0].partition(".")
    if ended is False and thread.isdecimal() and began != _UNKNOWN:
        ended = process_identity.thread_has_ended(int(pid), int(thread), began)
    return Driver.UNKNOWN if ended is None else Driver.DEAD if ended else Driver.ALIVE


def _name_of(owner: str) -> str:
    parts = owner.split("/")
    return f"process {parts[3]} on {parts[0].rpartition(':')[0]}" if len(parts) == _PARTS else repr(owner)


def _host() -> str:
    machine = process_identity.read(_MACHINE_ID)
    digest = blake3(machine.encode()).hexdigest(6) if machine else _UNKNOWN
    name = "".join(each for each in socket.gethostname() if each.isprintable() and each != "/")
    return f"{name}:{digest}"
