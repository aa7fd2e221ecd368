"""The tables of a store file, and the migration from each version to the next.

A released step is never edited: a later change is a new step. Nothing here may turn a foreign file into a store.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from machine.errors import Code, CorruptionError, NotFoundError, OtherStoreError
from machine.stores.sqlite_errors import sqlite_code
from machine.stores.sqlite_schedules import COLUMNS as SCHEDULE_COLUMNS
from machine.stores.sqlite_schedules import SCHEDULES_TABLE

APPLICATION_ID: Final = 0x4D41_4348
"""The mark of an SQLite file that is a store of this library ("MACH")."""

_VERSION_1: Final = (
    # The index. All of it but the key can be computed from the log by `kernel.run_index`.
    """
    CREATE TABLE runs (
      key INTEGER PRIMARY KEY,
      run_id TEXT NOT NULL UNIQUE,
      op_id TEXT NOT NULL,
      status TEXT NOT NULL,
      created_ms INTEGER NOT NULL,
      updated_ms INTEGER NOT NULL,
      head_seq INTEGER NOT NULL
    )
    """,
    "CREATE INDEX runs_by_status ON runs (status, run_id)",
    "CREATE INDEX runs_by_op ON runs (op_id, run_id)",
    # Small rows, read in key order: clustered on the key, a log is a few neighbouring pages.
    """
    CREATE TABLE events (
      run INTEGER NOT NULL REFERENCES runs (key),
      seq INTEGER NOT NULL,
      data BLOB NOT NULL,
      chain BLOB NOT NULL,
      PRIMARY KEY (run, seq)
    ) WITHOUT ROWID
    """,
    # Not clustered on the id: large rows in a WITHOUT ROWID table are several times slower to read.
    """
    CREATE TABLE artifacts (
      key INTEGER PRIMARY KEY,
      id BLOB NOT NULL UNIQUE,
      kind TEXT NOT NULL,
      data BLOB NOT NULL
    )
    """,
    # Append-only is a property of the file, not of this program: these hold for whoever opens it.
    # The two on INSERT are what stops INSERT OR REPLACE, whose deletes fire no trigger unless the
    # connection asks for recursive ones.
    """
    CREATE TRIGGER events_continue BEFORE INSERT ON events
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events WHERE run = NEW.run)
    BEGIN SELECT RAISE(ABORT, 'an event continues the log of its run'); END
    """,
    """
    CREATE TRIGGER events_never_change BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END
    """,
    """
    CREATE TRIGGER events_never_go BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END
    """,
    # NEW.key is -1 where the statement gives none; who gives one could replace the artifact that has it.
    """
    CREATE TRIGGER artifacts_stay BEFORE INSERT ON artifacts
    WHEN NEW.key <> -1 OR EXISTS (SELECT 1 FROM artifacts WHERE id = NEW.id)
    BEGIN
      SELECT RAISE(ABORT, 'an artifact is not given its key') WHERE NEW.key <> -1;
      SELECT RAISE(IGNORE);
    END
    """,
    """
    CREATE TRIGGER artifacts_never_change BEFORE UPDATE ON artifacts
    BEGIN SELECT RAISE(ABORT, 'artifacts are never changed'); END
    """,
    """
    CREATE TRIGGER artifacts_never_go BEFORE DELETE ON artifacts
    BEGIN SELECT RAISE(ABORT, 'artifacts are never deleted'); END
    """,
    """
    CREATE TRIGGER runs_stay BEFORE INSERT ON runs
    WHEN EXISTS (SELECT 1 FROM runs WHERE run_id = NEW.run_id OR key = NEW.key)
    BEGIN SELECT RAISE(ABORT, 'runs are never replaced'); END
    """,
    """
    CREATE TRIGGER runs_keep_their_id BEFORE UPDATE OF key, run_id ON runs
    BEGIN SELECT RAISE(ABORT, 'runs keep their id'); END
    """,
    """
    CREATE TRIGGER runs_never_go BEFORE DELETE ON runs
    BEGIN SELECT RAISE(ABORT, 'runs are never deleted'); END
    """,
)

_VERSION_2: Final = (
    "ALTER TABLE runs ADD COLUMN invocation_key TEXT",
    # partial: a run without a key costs nothing here
    """
    CREATE UNIQUE INDEX runs_by_invocation ON runs (invocation_key)
    WHERE invocation_key IS NOT NULL
    """,
    """
    CREATE TRIGGER invocations_stay BEFORE INSERT ON runs
    WHEN EXISTS (SELECT 1 FROM runs WHERE invocation_key = NEW.invocation_key)
    BEGIN SELECT RAISE(ABORT, 'an invocation key is of one run'); END
    """,
    """
    CREATE TRIGGER runs_keep_their_invocation BEFORE UPDATE OF invocation_key ON runs
    BEGIN SELECT RAISE(ABORT, 'runs keep their invocation key'); END
    """,
    # Who drives a run. By run id and not by key: a lease is taken before the run has a row. A row without
    # an owner is a lease that was released; it stays, for its epoch is never given again.
    """
    CREATE TABLE leases (
      run_id TEXT NOT NULL PRIMARY KEY,
      epoch INTEGER NOT NULL,
      owner TEXT,
      expires_ms INTEGER NOT NULL,
      ttl_ms INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER leases_stay BEFORE INSERT ON leases
    WHEN EXISTS (SELECT 1 FROM leases WHERE run_id = NEW.run_id)
    BEGIN SELECT RAISE(ABORT, 'leases are never replaced'); END
    """,
    """
    CREATE TRIGGER leases_go_forward BEFORE UPDATE ON leases
    WHEN NEW.run_id IS NOT OLD.run_id OR NEW.epoch < OLD.epoch
    BEGIN SELECT RAISE(ABORT, 'an epoch only grows'); END
    """,
    """
    CREATE TRIGGER leases_never_go BEFORE DELETE ON leases
    BEGIN SELECT RAISE(ABORT, 'leases are never deleted'); END
    """,
    # What was sent to runs from outside, in the order it came.
    """
    CREATE TABLE inbox (
      run INTEGER NOT NULL REFERENCES runs (key),
      number INTEGER NOT NULL,
      kind TEXT NOT NULL,
      data BLOB NOT NULL,
      ts_ms INTEGER NOT NULL,
      PRIMARY KEY (run, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER messages_continue BEFORE INSERT ON inbox
    WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM inbox WHERE run = NEW.run)
    BEGIN SELECT RAISE(ABORT, 'a message continues the inbox of its run'); END
    """,
    """
    CREATE TRIGGER messages_never_change BEFORE UPDATE ON inbox
    BEGIN SELECT RAISE(ABORT, 'messages are never changed'); END
    """,
    """
    CREATE TRIGGER messages_never_go BEFORE DELETE ON inbox
    BEGIN SELECT RAISE(ABORT, 'messages are never deleted'); END
    """,
    # One row, made when it is first asked for.
    """
    CREATE TABLE secret (
      one INTEGER PRIMARY KEY CHECK (one = 1),
      key BLOB NOT NULL
    )
    """,
    """
    CREATE TRIGGER secret_stays BEFORE INSERT ON secret WHEN EXISTS (SELECT 1 FROM secret)
    BEGIN SELECT RAISE(ABORT, 'the secret key is never replaced'); END
    """,
    """
    CREATE TRIGGER secret_never_changes BEFORE UPDATE ON secret
    BEGIN SELECT RAISE(ABORT, 'the secret key is never changed'); END
    """,
    """
    CREATE TRIGGER secret_never_goes BEFORE DELETE ON secret
    BEGIN SELECT RAISE(ABORT, 'the secret key is never deleted'); END
    """,
)

_VERSION_3: Final = (
    # Which key wraps the data keys. The key itself is kept outside the file.
    """
    CREATE TABLE secret_key_id (
      one INTEGER PRIMARY KEY CHECK (one = 1),
      id TEXT NOT NULL
    )
    """,
    # By run id and not by key: a run has its data key before its first event. No part of what is never changed:
    # a rotation wraps them anew, and to delete one is what erases a run's secrets.
    """
    CREATE TABLE data_keys (
      run_id TEXT NOT NULL PRIMARY KEY,
      wrapped BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER data_keys_stay BEFORE INSERT ON data_keys
    WHEN EXISTS (SELECT 1 FROM data_keys WHERE run_id = NEW.run_id)
    BEGIN SELECT RAISE(ABORT, 'a data key is not replaced by another'); END
    """,
    """
    CREATE TRIGGER data_keys_keep_their_run BEFORE UPDATE OF run_id ON data_keys
    BEGIN SELECT RAISE(ABORT, 'a data key is of one run'); END
    """,
)

_VERSION_4: Final = (
    # When a suspended run can continue: by its log, and because of what it received since it was suspended. The
    # second is no projection of the log. Both indexes are partial: a run that is not suspended costs nothing here.
    "ALTER TABLE runs ADD COLUMN wake_ms INTEGER",
    "ALTER TABLE runs ADD COLUMN answered_ms INTEGER",
    "CREATE INDEX runs_by_wake ON runs (wake_ms) WHERE wake_ms IS NOT NULL",
    "CREATE INDEX runs_by_answer ON runs (answered_ms) WHERE answered_ms IS NOT NULL",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, SCHEDULES_TABLE)
"""The migrations: `MIGRATIONS[n]` are the statements from version n to n + 1; version 0 is an empty database."""


class Added(NamedTuple):
    """The columns of `runs` and the tables, each with its columns, that a version added."""

    to_runs: tuple[str, ...]
    tables: tuple[str, ...]


ADDED: tuple[Added, ...] = (
    Added(
        ("invocation_key",),
        (
            "leases (run_id, epoch, owner, expires_ms, ttl_ms)",
            "inbox (run, number, kind, data, ts_ms)",
            "secret (one, key)",
        ),
    ),
    Added((), ("secret_key_id (one, id)", "data_keys (run_id, wrapped)")),
    Added(("wake_ms", "answered_ms"), ()),
    Added((), (f"schedules ({SCHEDULE_COLUMNS})",)),
)
"""The additions of version n + 2 to version n + 1, in `ADDED[n]`: an older file is read as if they were empty."""


def _number(conn: sqlite3.Connection, pragma: str) -> int:
    return int(conn.execute(f"PRAGMA {pragma}").fetchone()[0])


def identify(conn: sqlite3.Connection, path: str) -> int:
    """Return the schema version of the store behind `conn`, 0 when the database is empty.

    Raises `OtherStoreError` with code `store_not_a_store` or `store_newer_schema`, or `CorruptionError`.
    """
    application_id, version, empty = _at_once(conn)
    newest = len(MIGRATIONS)
    if application_id == APPLICATION_ID:
        if version > newest:
            raise OtherStoreError(
                f"the store {path} has schema version {version}; this program knows up to {newest}",
                code=Code.STORE_NEWER_SCHEMA,
                details={"path": path, "found": version, "supported": newest},
                hint="upgrade machine to read it",
            )
        if version < 0:
            raise CorruptionError(f"the store {path} is damaged: it claims schema version {version}")
        return version
    if empty:
        return 0
    raise not_a_store(path, "it is an SQLite database of another application")


def _at_once(conn: sqlite3.Connection) -> tuple[int, int, bool]:
    """Return application id, version and whether the file is empty, all from one state of the file.

    Another process may be creating the store, and between two reads it could have made half of it.
    """
    alone = not conn.in_transaction
    if alone:
        conn.execute("BEGIN")
    try:
        application_id, version = _number(conn, "application_id"), _number(conn, "user_version")
        return application_id, version, application_id == version == 0 and not schema_of(conn)
    finally:
        if alone and conn.in_transaction:
            conn.execute("ROLLBACK")


def migrate(conn: sqlite3.Connection, path: str, *, create: bool) -> None:
    """Migrate the schema to the newest version, in one transaction; an empty database only if `create`."""
    known = identify(conn, path)
    if known == len(MIGRATIONS):
        return
    try:
        _upgrade(conn, path, create=create)
    except sqlite3.OperationalError as exc:
        if not known or sqlite_code(exc) & 0xFF != sqlite3.SQLITE_READONLY:
            raise
        read_as_newest(conn, known)


def _upgrade(conn: sqlite3.Connection, path: str, *, create: bool) -> None:
    conn.execute("BEGIN IMMEDIATE")
    try:
        version = identify(conn, path)  # another process may have migrated it while we waited
        if version == 0 and not create:
            raise NotFoundError(
                f"there is no store at {path}: the file is empty",
                code=Code.STORE_NOT_FOUND,
                details={"path": path},
                hint="start a run with it to make one",
            )
        for step in MIGRATIONS[version:]:
            for statement in step:
                conn.execute(statement)
        conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        conn.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        conn.execute("COMMIT")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def read_as_newest(conn: sqlite3.Connection, version: int) -> None:
    """Let an older schema be read as the newest, through names that only this connection has."""
    lacking = ADDED[version - 1 :]
    columns = ", ".join(f"NULL AS {name}" for added in lacking for name in added.to_runs)
    if columns:
        conn.execute(f"CREATE TEMP VIEW runs AS SELECT *, {columns} FROM main.runs")  # noqa: S608 - constants
    for added in lacking:
        for table in added.tables:
            conn.execute(f"CREATE TEMP TABLE {table}")
    # or a write would go into the stand-ins; every BEGIN IMMEDIATE reports "read-only" from here on
    conn.execute("PRAGMA query_only = ON")


def version_of(conn: sqlite3.Connection) -> int:
    """Return the schema version that a file claims."""
    return _number(conn, "user_version")


def schema_of(conn: sqlite3.Connection) -> dict[str, str]:
    """Return the statement that made each table, index and trigger, without SQLite's own."""
    # the casts: in a damaged file a name may be of any type
    rows = conn.execute(
        "SELECT CAST(name AS TEXT), CAST(sql AS TEXT) FROM sqlite_master WHERE name NOT GLOB 'sqlite_*'"
    )
    return {str(name): str(sql) for name, sql in rows.fetchall()}


def not_a_store(path: str, why: str) -> OtherStoreError:
    """Return the error for a file that was not made by this library."""
    return OtherStoreError(
        f"{path} is not a store: {why}",
        code=Code.STORE_NOT_A_STORE,
        details={"path": path},
        hint="nothing was changed in it; name another file",
    )
