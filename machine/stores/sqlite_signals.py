"""The signals in a store file that are addressed to no run, and which suspended runs await them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from typing import Any, Final

from machine import canonical
from machine.errors import CorruptionError
from machine.stores.argument_checks import check_awaits, check_signal, signal_awaited, signal_taken
from machine.stores.base import Signal
from machine.stores.sqlite_rows import text
from machine.stores.sqlite_session import Session

_LAST: Final = "SELECT coalesce(max(number), 0) FROM signals"
_NEW: Final = (
    "INSERT INTO signals (number, name, correlation, value, ts_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?)"
)
_TO_TAKE: Final = "taken_by IS NULL AND (expires_ms IS NULL OR expires_ms > ?)"
_READ: Final = (
    "SELECT number, name, correlation, value, ts_ms, expires_ms FROM signals "  # noqa: S608 - constants
    f"WHERE {_TO_TAKE}"
)
_TAKE: Final = "UPDATE signals SET taken_by = ? WHERE number = ? AND taken_by IS NULL"
_WAITING: Final = "SELECT run FROM signal_waits WHERE correlation = ? AND name = ?"
_WAKE: Final = f"UPDATE runs SET answered_ms = ? WHERE key IN ({_WAITING}) AND answered_ms IS NULL"  # noqa: S608
_AWAITING: Final = f"SELECT run_id FROM runs WHERE key IN ({_WAITING}) ORDER BY run_id"  # noqa: S608 - constants
_AWAIT: Final = "INSERT OR IGNORE INTO signal_waits (run, name, correlation) VALUES (?, ?, ?)"
_AWAITED: Final = (
    "SELECT 1 FROM signal_waits JOIN signals USING (name, correlation) "  # noqa: S608 - constants
    f"WHERE run = ? AND {_TO_TAKE} LIMIT 1"
)
_ROW_TYPES: Final = (int, str, str, bytes, int)


class SqliteSignals:
    """The methods of `SqliteStore` about signals."""

    clock: Callable[[], int]
    _session: Session

    def post_signal(self, name: str, correlation: str, value: Any, *, expires_ms: int | None = None) -> int:
        """Keep a signal for a run that waits for it and return its number (see `Store.post_signal`)."""
        encoded = check_signal(name, correlation, value, expires_ms)
        with self._session.writing() as conn:
            number = int(conn.execute(_LAST).fetchone()[0]) + 1
            now = self.clock()
            conn.execute(_NEW, (number, name, correlation, encoded, now, expires_ms))
            conn.execute(_WAKE, (now, correlation, name))
        return number

    def signals(self, name: str | None = None, correlation: str | None = None) -> list[Signal]:
        """Return the signals that can be taken, the oldest first (see `Store.signals`)."""
        terms = [("name = ?", name), ("correlation = ?", correlation)]
        given = [(term, text(value)) for term, value in terms if value is not None]
        query = " AND ".join([_READ, *(term for term, _ in given)]) + " ORDER BY number"
        with self._session as conn:
            rows = conn.execute(query, (self.clock(), *(value for _, value in given))).fetchall()
        return [_signal(row) for row in rows]

    def awaiting(self, name: str, correlation: str) -> list[str]:
        """Return the ids of the suspended runs that await a signal, in the order of their ids."""
        with self._session as conn:
            rows = conn.execute(_AWAITING, (text(correlation), text(name))).fetchall()
        return [run_id for (run_id,) in rows]


def take(conn: sqlite3.Connection, run_id: str, numbers: Collection[int]) -> None:
    """Give signals to a run, in the transaction of `conn`. Raises `ConcurrencyError` (`signal_taken`)."""
    for number in numbers:
        if conn.execute(_TAKE, (run_id, number)).rowcount != 1:
            raise signal_taken(run_id, number)


def await_signals(conn: sqlite3.Connection, run: int, awaits: Collection[tuple[str, str]]) -> None:
    """Note the signals that the suspended run with a key waits for, in the transaction of `conn`.

    Raises `UsageError` when the run is not suspended.
    """
    check_awaits(str(conn.execute("SELECT status FROM runs WHERE key = ?", (run,)).fetchone()[0]))
    conn.executemany(_AWAIT, [(run, name, correlation) for name, correlation in awaits])


def forget_waits(conn: sqlite3.Connection, run: int) -> None:
    """Forget the signals that the run with a key waited for, in the transaction of `conn`."""
    conn.execute("DELETE FROM signal_waits WHERE run = ?", (run,))


def check_none_awaited(conn: sqlite3.Connection, run_id: str, run: int, now: int) -> None:
    """Raise `ConcurrencyError` (`inbox_moved`) when there is a signal that the suspended run awaits."""
    if conn.execute(_AWAITED, (run, now)).fetchone() is not None:
        raise signal_awaited(run_id)


def _signal(row: tuple[Any, ...]) -> Signal:
    number, name, correlation, value, ts, expires = row
    if tuple(map(type, row[:-1])) != _ROW_TYPES or not (expires is None or type(expires) is int):
        raise CorruptionError(
            f"the stored row of signal {number!r} is damaged: it holds values of other types"
        )
    return Signal(number, name, correlation, canonical.decode(value), ts, expires)
