"""The messages to runs in a store file, as durable and as immutable as events."""

from __future__ import annotations

import sqlite3
from typing import Final

from machine import canonical
from machine.errors import CorruptionError
from machine.kernel.run_status import RunStatus
from machine.stores.argument_checks import MAX_SEQ, no_run
from machine.stores.base import Message

_LAST_SEGMENT: Final = (
    "SELECT last.run_id FROM runs AS one JOIN runs AS last "
    "ON last.first_run_id = coalesce(one.first_run_id, one.run_id) "
    "WHERE one.run_id = ? ORDER BY last.segment DESC LIMIT 1"
)
_RUN: Final = "SELECT key FROM runs WHERE run_id = ?"
_COUNT: Final = "SELECT coalesce(max(number), 0) FROM inbox WHERE run = ?"
_POST: Final = "INSERT INTO inbox (run, number, kind, data, ts_ms) VALUES (?, ?, ?, ?, ?)"
_WAKE: Final = (
    "UPDATE runs SET answered_ms = ? "  # noqa: S608 - a constant
    f"WHERE key = ? AND status = '{RunStatus.SUSPENDED.value}' AND answered_ms IS NULL"
)
_READ: Final = "SELECT number, kind, data, ts_ms FROM inbox WHERE run = ? AND number > ? ORDER BY number"
_ROW_TYPES: Final = (int, str, bytes, int)


def last_segment(conn: sqlite3.Connection, run_id: str) -> str:
    """Return the last run of the chain that a run belongs to (see `Store.last_segment`)."""
    found = conn.execute(_LAST_SEGMENT, (run_id,)).fetchone()
    return run_id if found is None else str(found[0])


def post(conn: sqlite3.Connection, run_id: str, kind: str, data: bytes, now: int) -> int:
    """Put canonical JSON into the run's inbox, in the transaction of `conn`. Raises `NotFoundError`."""
    run = _run(conn, run_id)
    number = last_number(conn, run) + 1
    conn.execute(_POST, (run, number, kind, data, now))
    conn.execute(_WAKE, (now, run))
    return number


def last_number(conn: sqlite3.Connection, run: int) -> int:
    """Return the number of the last message to the run with a key; 0 for none."""
    return int(conn.execute(_COUNT, (run,)).fetchone()[0])


def messages(conn: sqlite3.Connection, run_id: str, after: int) -> list[Message]:
    """Return the run's messages above a number. Raises `NotFoundError`, or `CorruptionError` for a damaged one."""
    above = max(0, min(after, MAX_SEQ))
    return [_message(row) for row in conn.execute(_READ, (_run(conn, run_id), above)).fetchall()]


def _run(conn: sqlite3.Connection, run_id: str) -> int:
    found = conn.execute(_RUN, (run_id,)).fetchone()
    if found is None:
        raise no_run(run_id)
    return int(found[0])


def _message(row: tuple[int, str, bytes, int]) -> Message:
    number, kind, data, ts = row
    if tuple(map(type, row)) != _ROW_TYPES:
        raise CorruptionError(
            f"the stored row of message {number!r} is damaged: it holds values of other types"
        )
    return Message(number, kind, canonical.decode(data), ts)
