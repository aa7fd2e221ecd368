"""The leases of a store file: one row for each run that was ever driven, and its epoch only grows.

The commit of a lease is not waited for: it outlives the process, and who held one that a power cut took back
is gone with it. An epoch under which something was appended is as durable as the event, being before it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from machine.errors import Code, StoreOther
from machine.stores.lease import HeldLease, Lease, is_alive, leased, lost
from machine.stores.sqlite_errors import sqlite_code
from machine.stores.sqlite_schema import schema_of

__all__ = ["acquire", "check_lease", "lease_of", "release", "renew", "understood"]

# a row without an owner is a lease that was released: the epoch stays
_FIND: Final = "SELECT epoch, owner, expires_ms, ttl_ms FROM leases WHERE run_id = ?"
_NEW: Final = "INSERT INTO leases (epoch, owner, expires_ms, ttl_ms, run_id) VALUES (?, ?, ?, ?, ?)"
_TAKE: Final = "UPDATE leases SET epoch = ?, owner = ?, expires_ms = ?, ttl_ms = ? WHERE run_id = ?"
_RENEW: Final = "UPDATE leases SET expires_ms = ? WHERE run_id = ?"
_RELEASE: Final = "UPDATE leases SET owner = NULL WHERE run_id = ? AND epoch = ?"

_MOST: Final = 2**63 - 1


def acquire(conn: sqlite3.Connection, run_id: str, owner: str, ttl_ms: int, now: int) -> Lease:
    """Take the run's lease, in the transaction of `conn`. Raises `Concurrency` (`run_leased`)."""
    epoch, held = _find(conn, run_id)
    if held is not None and is_alive(held, now):
        raise leased(held, now)
    conn.execute(_TAKE if epoch else _NEW, (epoch + 1, owner, min(now + ttl_ms, _MOST), ttl_ms, run_id))
    return Lease(run_id, epoch + 1, owner, ttl_ms)


def renew(conn: sqlite3.Connection, lease: Lease, now: int) -> None:
    """Let the lease last its time from `now` on. Raises `Concurrency` (`lease_lost`)."""
    _check_current(conn, lease)
    conn.execute(_RENEW, (min(now + lease.ttl_ms, _MOST), lease.run_id))


def release(conn: sqlite3.Connection, lease: Lease) -> None:
    """Give the lease back, if it is still the run's."""
    conn.execute(_RELEASE, (lease.run_id, lease.epoch))


def lease_of(conn: sqlite3.Connection, run_id: str, now: int) -> HeldLease | None:
    """Return the run's lease if it is alive."""
    _, held = _find(conn, run_id)
    return held if held is not None and is_alive(held, now) else None


def check_lease(conn: sqlite3.Connection, run_id: str, lease: Lease | None, clock: Callable[[], int]) -> None:
    """Refuse an append that the run's leases do not allow: `lease_lost` or `run_leased`."""
    if lease is not None:
        _check_current(conn, lease)
        return
    _, held = _find(conn, run_id)
    if held is not None and is_alive(held, now := clock()):
        raise leased(held, now)


def _check_current(conn: sqlite3.Connection, lease: Lease) -> None:
    epoch, held = _find(conn, lease.run_id)
    if held is None or epoch != lease.epoch:
        raise lost(lease, epoch)


def _find(conn: sqlite3.Connection, run_id: str) -> tuple[int, HeldLease | None]:
    """Return the run's epoch (0 before the first lease), and the lease if it was not released."""
    found = conn.execute(_FIND, (run_id,)).fetchone()
    if found is None:
        return 0, None
    epoch, owner, expires, ttl = found
    if not _is_row(epoch, owner, expires, ttl):
        raise _Strange
    return epoch, None if owner is None else HeldLease(run_id, epoch, owner, expires, ttl)


def _is_row(epoch: Any, owner: Any, expires: Any, ttl: Any) -> bool:
    whole = type(epoch) is type(expires) is type(ttl) is int
    return whole and epoch > 0 and (owner is None or type(owner) is str)


class _Strange(Exception):  # noqa: N818 - never leaves this module
    """A row of the table is not of the kind that this program writes."""


@contextmanager
def understood(conn: sqlite3.Connection, path: str) -> Iterator[None]:
    """Turn what a table of leases that is not ours leads to into an error that says so."""
    try:
        yield
    except _Strange:
        raise _not_understood(path) from None
    except sqlite3.Error as exc:
        # a column that is not there, or one more that must have a value; a table that is gone is damage
        foreign = sqlite_code(exc) in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT_NOTNULL}
        if not foreign or "leases" not in schema_of(conn):
            raise
        raise _not_understood(path) from exc


def _not_understood(path: str) -> StoreOther:
    return StoreOther(
        f"the store {path} keeps its leases in a way that this program does not know",
        code=Code.STORE_NEWER_SCHEMA,
        details={"path": path},
        hint="nothing was written; upgrade machine to use it",
    )
