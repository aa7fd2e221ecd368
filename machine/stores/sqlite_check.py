"""The soundness of a store file below the meaning of its logs.

It reads one snapshot of the file on a connection of its own, writes nothing, and reports damage rather than failing
on it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from machine.errors import CorruptionError
from machine.kernel.run_index import advance
from machine.labels import labels_in
from machine.stores.sqlite_errors import SQLITE_FAILURES, store_error
from machine.stores.sqlite_rows import RUN_COLUMNS, event_of, row_of
from machine.stores.sqlite_schedules import all_schedules
from machine.stores.sqlite_schema import MIGRATIONS, read_as_newest, schema_of, version_of


def problems_of(connected: Callable[[], sqlite3.Connection], path: Path, name: str) -> list[str]:
    """Return one sentence for each problem; empty when the file is sound.

    `connected` opens the file, and `name` is the name of the store in a sentence.
    """
    try:
        with contextlib.closing(connected()) as conn:
            return _problems(conn, path)
    except SQLITE_FAILURES as exc:
        return [str(store_error(exc, name))]


def _problems(conn: sqlite3.Connection, path: Path) -> list[str]:
    if 0 < (version := version_of(conn)) < len(MIGRATIONS):
        read_as_newest(conn, version)
    conn.execute("BEGIN")
    found = list(_size(conn, path))
    for check in (_structure, _schema, _strays, _labels, _schedules, _index):
        try:
            found.extend(check(conn))
        except (*SQLITE_FAILURES, CorruptionError) as exc:
            found.append(f"the check of the {check.__name__[1:]} could not be finished: {exc}")
    return found


def _size(conn: sqlite3.Connection, path: Path) -> Iterator[str]:
    # SQLite reads a truncated last page as if zeros followed, and sees nothing where there were zeros
    try:
        size = path.stat().st_size
    except OSError:
        return  # moved since the store checked: its next write will report it
    if size % int(conn.execute("PRAGMA page_size").fetchone()[0]):
        yield "file structure: the last page is truncated"


def _structure(conn: sqlite3.Connection) -> Iterator[str]:
    for (message,) in conn.execute("PRAGMA integrity_check"):
        if message != "ok":
            yield f"file structure: {message}"


def _schema(conn: sqlite3.Connection) -> Iterator[str]:
    blank = sqlite3.connect(":memory:", isolation_level=None)
    try:
        # a schema that could not be migrated is judged by its own version
        for step in MIGRATIONS[: version_of(conn)]:
            for statement in step:
                blank.execute(statement)
        ours = schema_of(blank)
    finally:
        blank.close()
    theirs = schema_of(conn)
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            yield f"schema: {name} is missing"
        elif name not in ours:
            yield f"schema: {name} does not belong there"
        elif ours[name] != theirs[name]:
            yield f"schema: {name} is not what it should be"


def _strays(conn: sqlite3.Connection) -> Iterator[str]:
    for (run,) in conn.execute("SELECT DISTINCT run FROM events WHERE run NOT IN (SELECT key FROM runs)"):
        yield f"index: there are events of a run {run} that has no row"
    for (run,) in conn.execute("SELECT DISTINCT run FROM inbox WHERE run NOT IN (SELECT key FROM runs)"):
        yield f"inbox: there are messages to a run {run} that has no row"
    waiting = "SELECT run_id FROM runs JOIN signal_waits ON run = key WHERE status <> 'suspended'"
    for (run_id,) in conn.execute(waiting):
        yield f"index: run {run_id} waits for a signal and is not suspended"
    odd = "answered_ms IS NOT NULL AND (status <> 'suspended' OR typeof(answered_ms) <> 'integer')"
    for (run_id,) in conn.execute(f"SELECT run_id FROM runs WHERE {odd}"):  # noqa: S608 - a constant
        yield f"index: run {run_id} was answered and is not suspended"


def _labels(conn: sqlite3.Connection) -> Iterator[str]:
    stored: dict[int, dict[str, str]] = {}
    for run, name, value in conn.execute("SELECT run, name, value FROM run_labels"):
        stored.setdefault(run, {})[name] = value
    for key, run_id, text in conn.execute("SELECT key, run_id, labels FROM runs"):
        if stored.pop(key, {}) != labels_in(text):
            yield f"index: run {run_id} is not found by the labels that it has"
    for run in stored:
        yield f"index: there are labels of a run {run} that has no row"


def _schedules(conn: sqlite3.Connection) -> Iterator[str]:
    try:
        all_schedules(conn)
    except CorruptionError as exc:
        yield f"schedules: {exc.message}"


def _index(conn: sqlite3.Connection) -> Iterator[str]:
    runs = conn.execute(f"SELECT key, {RUN_COLUMNS} FROM runs ORDER BY run_id")  # noqa: S608 - constants
    for key, *columns in runs:
        try:
            row = row_of(columns)
        except CorruptionError as exc:
            yield f"index: {exc}"
            continue
        events = conn.execute("SELECT seq, data, chain FROM events WHERE run = ? ORDER BY seq", (key,))
        log = (event_of(found) for found in events)
        expected = advance(None, row.run_id, log)
        if row != expected:
            yield f"index: the row of run {row.run_id} is not what its log says: {row} instead of {expected}"
