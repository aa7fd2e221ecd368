"""The append to a store file: what it checks, and the rows that it writes.

Nearly every append moves the head of a run that this process drives. For these one guarded statement checks the
lease and the log and moves the head; whatever it does not allow is looked at again, to say what is wrong.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from machine import canonical
from machine.errors import CorruptionError
from machine.kernel.run_index import RunRow, advance, ends_with_answer, moves_head_only
from machine.kernel.run_status import RunStatus
from machine.labels import labels_in
from machine.stores import sqlite_inbox, sqlite_lease, sqlite_signals
from machine.stores.argument_checks import Terms, inbox_moved, invocation_taken, stale
from machine.stores.base import StoredEvent
from machine.stores.lease import Lease
from machine.stores.sqlite_errors import sqlite_code
from machine.stores.sqlite_rows import RUN_COLUMNS, row_of

HEAD_OF_RUN: Final = "(SELECT max(seq) FROM events WHERE run = key)"
"""The seq of the last event of a row of `runs`, NULL for none."""

FIND_INVOCATION: Final = "SELECT run_id FROM runs WHERE invocation_key = ?"

_FIND_RUN: Final = f"SELECT key, {HEAD_OF_RUN}, {RUN_COLUMNS} FROM runs WHERE run_id = ?"  # noqa: S608 - constants
_HEAD_SEQ: Final = 7
"""The index of the head's column in `_FIND_RUN`."""

_MOVE_OWN_HEAD: Final = (
    "UPDATE runs SET head_seq = ? WHERE key = ? AND run_id = ? AND head_seq = ? "  # noqa: S608 - constants
    f"AND status <> '{RunStatus.SUSPENDED.value}' AND {HEAD_OF_RUN} = head_seq AND {sqlite_lease.HOLDS}"
)
_MOVE_HEAD: Final = "UPDATE runs SET head_seq = ? WHERE key = ?"
_ANSWERED: Final = "UPDATE runs SET answered_ms = ? WHERE key = ? AND answered_ms IS NULL"
_LOOKED_AT: Final = "UPDATE runs SET answered_ms = NULL WHERE key = ? AND answered_ms IS NOT NULL"
_MOVE_RUN: Final = (
    "UPDATE runs SET op_id = ?, status = ?, created_ms = ?, updated_ms = ?, wake_ms = ?, answered_ms = NULL, "
    "next_run_id = ?, head_seq = ? WHERE key = ?"
)
_NEW_RUN: Final = (
    f"INSERT INTO runs ({RUN_COLUMNS}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * len(RunRow._fields))})"
)
_NEW_EVENT: Final = "INSERT INTO events (run, seq, data, chain) VALUES (?, ?, ?, ?)"

_NEW_LABEL: Final = "INSERT INTO run_labels (run, name, value) VALUES (?, ?, ?)"

NEW_ARTIFACT: Final = "INSERT INTO artifacts (id, kind, data) VALUES (?, ?, ?)"  # exists already: not written


class Appends:
    """The appends of one open store, which remembers the keys of the runs that it drives: they never change."""

    def __init__(self, path: str, left_ms: sqlite_lease.LeftMs, now: Callable[[], int]) -> None:
        self._path = path
        self._left_ms = left_ms
        self._now = now
        self._keys: dict[str, int] = {}

    def forget(self, run_id: str) -> None:
        """Forget the key of a run that is no longer driven from here."""
        self._keys.pop(run_id, None)

    def write(
        self,
        conn: sqlite3.Connection,
        run_id: str,
        expected_seq: int,
        *,
        events: Sequence[StoredEvent],
        blobs: Sequence[tuple[bytes, str, bytes]],
        terms: Terms,
    ) -> None:
        """Write events and artifacts in the transaction of `conn`. Raises `ConcurrencyError`, `CorruptionError`."""
        lease = terms.lease
        key = None
        if lease is not None and terms.usual:
            key = self._moved(conn, expected_seq, events, lease)
        if key is None:
            key = self._checked(conn, run_id, expected_seq, events=events, terms=terms)
        if blobs:
            conn.executemany(NEW_ARTIFACT, blobs)
        if events:
            conn.executemany(_NEW_EVENT, [(key, *event) for event in events])
        if (begins := terms.begins) is not None:
            first = Terms(begins.lease, messages=begins.messages)
            self.write(conn, begins.lease.run_id, 0, events=begins.events, blobs=(), terms=first)

    def _moved(
        self, conn: sqlite3.Connection, expected_seq: int, events: Sequence[StoredEvent], lease: Lease
    ) -> int | None:
        """Move the head of a run that is driven from here and return its key, None if more has to be looked at."""
        run_id = lease.run_id
        key = self._keys.get(run_id)
        if key is None or not moves_head_only(events):
            return None
        values = (events[-1].seq, key, run_id, expected_seq, run_id, lease.epoch)
        try:
            return key if conn.execute(_MOVE_OWN_HEAD, values).rowcount == 1 else None
        except sqlite3.OperationalError as exc:
            if sqlite_code(exc) != sqlite3.SQLITE_ERROR:
                raise
            return None  # the schema is no longer the one that was opened

    def _checked(
        self,
        conn: sqlite3.Connection,
        run_id: str,
        expected_seq: int,
        *,
        events: Sequence[StoredEvent],
        terms: Terms,
    ) -> int | None:
        """Check what may have changed one by one, update the run's row of the index, and return its key."""
        sqlite_lease.check_lease(conn, self._path, run_id, terms.lease, self._left_ms)
        found = find_run(conn, run_id)
        _check_head(run_id, expected_seq, found)
        if terms.inbox_seen is not None and found:
            _check_inbox(conn, run_id, found[0], terms.inbox_seen)
        sqlite_signals.take(conn, run_id, terms.takes)
        key = self._index(conn, run_id, found, events) if events else None
        if key is not None and terms.awaits:
            sqlite_signals.await_signals(conn, key, terms.awaits)
            sqlite_signals.check_none_awaited(conn, run_id, key, self._now())
        if not events and terms.inbox_seen is not None and found:
            sqlite_signals.check_none_awaited(conn, run_id, found[0], self._now())
            conn.execute(_LOOKED_AT, (found[0],))
        for message in terms.messages:
            sqlite_inbox.post(conn, run_id, message.kind, canonical.encode(message.data), message.ts_millis)
        if key is not None and terms.lease is not None:
            self._keys[run_id] = key
        return key

    def _index(
        self,
        conn: sqlite3.Connection,
        run_id: str,
        found: tuple[Any, ...] | None,
        events: Sequence[StoredEvent],
    ) -> int:
        """Update the run's index row with `events` and return its key."""
        before = row_of(found[2:]) if found else None
        row = advance(before, run_id, events)
        if found is None or before is None:
            key = _new_run(conn, row)
        else:
            key = int(found[0])
            _move_run(conn, key, before, row)
        if ends_with_answer(row, events):
            conn.execute(_ANSWERED, (self._now(), key))
        return key


def find_run(conn: sqlite3.Connection, run_id: str) -> tuple[Any, ...] | None:
    """Return the run's key, the seq of its last event and the columns of its index row, or None."""
    found: tuple[Any, ...] | None = conn.execute(_FIND_RUN, (run_id,)).fetchone()
    return found


def _check_head(run_id: str, expected_seq: int, found: tuple[Any, ...] | None) -> None:
    head_seq, indexed = (found[1] or 0, found[_HEAD_SEQ]) if found else (0, 0)
    if head_seq != indexed:
        # Stored events have disappeared. Continuing would repeat the work that they record as done.
        raise CorruptionError(
            f"run {run_id} has {head_seq} events but the index says {indexed}: the store is damaged",
            details={"run_id": run_id, "events": head_seq, "indexed": indexed},
        )
    if head_seq != expected_seq:
        raise stale(run_id, expected_seq, head_seq)


def _check_inbox(conn: sqlite3.Connection, run_id: str, key: int, inbox_seen: int) -> None:
    last = sqlite_inbox.last_number(conn, key)
    if last > inbox_seen:
        raise inbox_moved(run_id, inbox_seen, last)


def _new_run(conn: sqlite3.Connection, row: RunRow) -> int:
    invocation = row.invocation_key
    taken = conn.execute(FIND_INVOCATION, (invocation,)).fetchone() if invocation else None
    if invocation and taken:
        raise invocation_taken(invocation, row.run_id, taken[0])
    key = conn.execute(_NEW_RUN, row).lastrowid
    assert key is not None
    if row.labels is not None:
        conn.executemany(_NEW_LABEL, [(key, *label) for label in labels_in(row.labels).items()])
    return key


def _move_run(conn: sqlite3.Connection, key: int, before: RunRow, row: RunRow) -> None:
    # naming a column that stays would rewrite its index
    if before._replace(head_seq=row.head_seq) == row:
        conn.execute(_MOVE_HEAD, (row.head_seq, key))
    else:
        values = row.op_id, row.status, row.created_ms, row.updated_ms, row.wake_ms, row.next_run_id
        conn.execute(_MOVE_RUN, (*values, row.head_seq, key))
        if before.status == RunStatus.SUSPENDED:
            sqlite_signals.forget_waits(conn, key)
