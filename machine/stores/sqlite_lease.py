"""The leases of a store file: one row for each run that was ever driven, and its epoch only grows.

Nobody waits for the commit of a lease: it outlives the process, and a power cut that takes it back ends its holder
too. An epoch under which an event was appended is as durable as the event, because it was committed before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final, TypeAlias

from machine.errors import Code, OtherStoreError
from machine.stores.lease import HeldLease, Lease, leased, lost
from machine.stores.sqlite_errors import sqlite_code
from machine.stores.sqlite_schema import schema_of

# epoch, owner, expiry, its time; a row without an owner is a released lease: the epoch stays
_FIND: Final = "SELECT epoch, owner, expires_ms, ttl_ms FROM leases WHERE run_id = ?"
HOLDS: Final = (
    "EXISTS (SELECT 1 FROM leases WHERE leases.run_id = ? AND epoch = ? AND typeof(owner) = 'text')"
)
"""The condition that a lease, given as its run and epoch, is the run's."""

_NEW: Final = "INSERT INTO leases (epoch, owner, expires_ms, ttl_ms, run_id) VALUES (?, ?, ?, ?, ?)"
_TAKE: Final = "UPDATE leases SET epoch = ?, owner = ?, expires_ms = ?, ttl_ms = ? WHERE run_id = ?"
_RENEW: Final = "UPDATE leases SET expires_ms = ? WHERE run_id = ?"
_RELEASE: Final = "UPDATE leases SET owner = NULL WHERE run_id = ?"

_Row: TypeAlias = tuple[int, str | None, int, int]


LeftMs: TypeAlias = Callable[[HeldLease], int | None]
"""Function that returns for how long a lease keeps others out (`LeaseWatch.left_ms`)."""


def acquire(
    conn: sqlite3.Connection, path: str, run_id: str, owner: str, *, ttl_ms: int, now: int, left_ms: LeftMs
) -> Lease:
    """Take the run's lease, in the transaction of `conn`. Raises `ConcurrencyError` (`run_leased`)."""
    row = _find(conn, path, run_id)
    _refuse_leased(run_id, row, left_ms)
    epoch = row[0] + 1 if row else 1
    try:
        conn.execute(_TAKE if row else _NEW, (epoch, owner, now + ttl_ms, ttl_ms, run_id))
    except sqlite3.IntegrityError as exc:
        # another column, which must have a value
        raise _not_understood(path) from exc
    return Lease(run_id, epoch, owner, ttl_ms)


def renew(conn: sqlite3.Connection, path: str, lease: Lease, now: int) -> None:
    """Renew the lease for its time from `now` on. Raises `ConcurrencyError` (`lease_lost`)."""
    _, owner, expires_ms, ttl_ms = _current(conn, path, lease)
    held = HeldLease(lease.run_id, lease.epoch, owner or "", expires_ms, ttl_ms)
    conn.execute(_RENEW, (held.renewed(now).expires_at_ms, lease.run_id))


def release(conn: sqlite3.Connection, path: str, lease: Lease) -> None:
    """Release the lease, if it is still the run's."""
    row = _find(conn, path, lease.run_id)
    if row is not None and row[0] == lease.epoch:
        conn.execute(_RELEASE, (lease.run_id,))


def lease_of(conn: sqlite3.Connection, path: str, run_id: str, left_ms: LeftMs) -> HeldLease | None:
    """Return the run's lease if it keeps others out."""
    held = _held(run_id, _find(conn, path, run_id))
    return held if held is not None and left_ms(held) != 0 else None


def check_lease(
    conn: sqlite3.Connection, path: str, run_id: str, lease: Lease | None, left_ms: LeftMs
) -> None:
    """Refuse an append that the run's leases do not allow: `lease_lost` or `run_leased`."""
    if lease is None:
        _refuse_leased(run_id, _find(conn, path, run_id), left_ms)
    else:
        _current(conn, path, lease)


def _refuse_leased(run_id: str, row: _Row | None, left_ms: LeftMs) -> None:
    held = _held(run_id, row)
    if held is not None and (left := left_ms(held)) != 0:
        raise leased(held, left)


def _current(conn: sqlite3.Connection, path: str, lease: Lease) -> _Row:
    row = _find(conn, path, lease.run_id)
    if row is None or row[0] != lease.epoch or row[1] is None:
        raise lost(lease, row[0] if row else 0)
    return row


def _find(conn: sqlite3.Connection, path: str, run_id: str) -> _Row | None:
    """Return the row of the run's last lease, or None."""
    try:
        row: _Row | None = conn.execute(_FIND, (run_id,)).fetchone()
    except sqlite3.OperationalError as exc:
        # a missing column means another version; a missing table is damage
        if sqlite_code(exc) != sqlite3.SQLITE_ERROR or "leases" not in schema_of(conn):
            raise
        raise _not_understood(path) from exc
    if row is None:
        return None
    epoch, owner, expires, ttl = row
    numbers = type(epoch) is type(expires) is type(ttl) is int and epoch > 0
    if not numbers or not (owner is None or type(owner) is str):
        raise _not_understood(path)
    return row


def _held(run_id: str, row: _Row | None) -> HeldLease | None:
    if row is None or row[1] is None:
        return None
    return HeldLease(run_id, row[0], row[1], row[2], row[3])


def _not_understood(path: str) -> OtherStoreError:
    return OtherStoreError(
        f"the store {path} keeps its leases in a way that this program does not know",
        code=Code.STORE_NEWER_SCHEMA,
        details={"path": path},
        hint="nothing was written; upgrade machine to use it",
    )
