"""The schedules in a store file, and the runs that they started, found through the index of invocation keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from machine import canonical
from machine.config import Target
from machine.errors import CorruptionError
from machine.kernel.run_index import RunRow
from machine.stores.schedule import CatchUp, Overlap, Schedule, no_schedule, schedule_exists
from machine.stores.sqlite_rows import RUN_COLUMNS, row_of, text
from machine.stores.sqlite_session import Session

COLUMNS: Final = "name, cron, tz, target, directory, input, catch_up, overlap, created_ms, since_ms, paused"

SCHEDULES_TABLE: Final = (
    # By name and not by key: it holds few rows, and a removed schedule leaves none.
    """
    CREATE TABLE schedules (
      name TEXT NOT NULL PRIMARY KEY,
      cron TEXT NOT NULL,
      tz TEXT NOT NULL,
      target TEXT NOT NULL,
      directory TEXT NOT NULL,
      input BLOB NOT NULL,
      catch_up TEXT NOT NULL,
      overlap TEXT NOT NULL,
      created_ms INTEGER NOT NULL,
      since_ms INTEGER NOT NULL,
      paused INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)
"""The migration that adds the schedules."""

_ALL: Final = f"SELECT {COLUMNS} FROM schedules ORDER BY name"  # noqa: S608 - constants
_ONE: Final = f"SELECT {COLUMNS} FROM schedules WHERE name = ?"  # noqa: S608 - the same
_ADD: Final = f"INSERT INTO schedules ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - the same
_ROW_TYPES: Final = (str, str, str, str, str, bytes, str, str, int, int, int)

# not BETWEEN, from which SQLite does not infer that the key is not NULL, as the partial index wants it
_KEYS: Final = f"SELECT {RUN_COLUMNS} FROM runs WHERE invocation_key >= ? AND invocation_key < ?"  # noqa: S608 - the same
_LAST: Final = f"{_KEYS} ORDER BY invocation_key DESC LIMIT 1"
_LAST_BEGUN: Final = f"{_KEYS} AND created_ms <= ? ORDER BY invocation_key DESC LIMIT 1"


class SqliteSchedules:
    """The methods of `SqliteStore` about schedules."""

    url: str
    clock: Callable[[], int]
    _session: Session
    _told: Callable[[sqlite3.Connection, RunRow], RunRow]

    def add_schedule(self, schedule: Schedule) -> None:
        """Store a new schedule, durable on return (see `Store.add_schedule`)."""
        values = (
            *(schedule.name, schedule.cron, schedule.tz, schedule.target.spec, schedule.target.directory),
            *(canonical.encode(dict(schedule.input)), str(schedule.catch_up), str(schedule.overlap)),
            *(schedule.created_ms, schedule.since_ms, int(schedule.paused)),
        )
        with self._session.writing() as conn:
            if conn.execute(_ONE, (schedule.name,)).fetchone() is not None:
                raise schedule_exists(schedule.name, self.url)
            conn.execute(_ADD, values)

    def schedules(self) -> list[Schedule]:
        """Return all schedules, in the order of their names."""
        with self._session as conn:
            return all_schedules(conn)

    def pause_schedule(self, name: str, *, paused: bool) -> Schedule:
        """Pause a schedule or resume it, and return it (see `Store.pause_schedule`)."""
        with self._session.writing() as conn:
            found = conn.execute(_ONE, (text(name),)).fetchone()
            if found is None:
                raise no_schedule(name, self.url)
            changed = _schedule(found).paused_or_resumed(paused=paused, now_ms=self.clock())
            update = "UPDATE schedules SET paused = ?, since_ms = ? WHERE name = ?"
            conn.execute(update, (int(changed.paused), changed.since_ms, changed.name))
        return changed

    def remove_schedule(self, name: str) -> None:
        """Delete a schedule, durable on return. Raises `NotFoundError`."""
        with self._session.writing() as conn:
            if conn.execute("DELETE FROM schedules WHERE name = ?", (text(name),)).rowcount == 0:
                raise no_schedule(name, self.url)

    def last_invocation(self, first: str, before: str, *, created_by_ms: int | None = None) -> RunRow | None:
        """Return the run with the greatest invocation key of a range (see `Store.last_invocation`)."""
        bounds = text(first), text(before)
        with self._session as conn:
            if created_by_ms is None:
                found = conn.execute(_LAST, bounds).fetchone()
            else:
                found = conn.execute(_LAST_BEGUN, (*bounds, created_by_ms)).fetchone()
            return None if found is None else self._told(conn, row_of(found))


def all_schedules(conn: sqlite3.Connection) -> list[Schedule]:
    """Return all schedules, in the order of their names. Raises `CorruptionError` for a damaged one."""
    return [_schedule(row) for row in conn.execute(_ALL).fetchall()]


def _schedule(row: tuple[Any, ...]) -> Schedule:
    if tuple(map(type, row)) != _ROW_TYPES:
        raise CorruptionError(f"the row of schedule {row[0]!r} is damaged: it holds values of other types")
    name, cron, tz, spec, directory, stored, catch_up, overlap, created_ms, since_ms, paused = row
    try:
        value = canonical.decode(stored)
        if not isinstance(value, dict):
            raise ValueError("its input is no object")  # noqa: TRY301, TRY004 - one way out for all damage
        policies = CatchUp(catch_up), Overlap(overlap)
        target = Target(spec, directory)
        return Schedule(name, cron, tz, target, value, *policies, created_ms, since_ms, bool(paused))
    except ValueError as exc:
        raise CorruptionError(f"the row of schedule {name!r} is damaged: {exc}") from None
