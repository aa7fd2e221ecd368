"""The schema of a store file: which version it has, its migration, and reading it where it cannot be migrated.

Nothing here may turn a foreign file into a store.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from machine.errors import Code, CorruptionError, NotFoundError, OtherStoreError
from machine.stores.sqlite_errors import sqlite_code
from machine.stores.sqlite_migrations import (
    ADDED,
    VERSION_1,
    VERSION_2,
    VERSION_3,
    VERSION_4,
    VERSION_6,
)
from machine.stores.sqlite_schedules import SCHEDULES_TABLE

APPLICATION_ID: Final = 0x4D41_4348
"""The mark of an SQLite file that is a store of this library ("MACH")."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    VERSION_1,
    VERSION_2,
    VERSION_3,
    VERSION_4,
    SCHEDULES_TABLE,
    VERSION_6,
)
"""The migrations: `MIGRATIONS[n]` are the statements from version n to n + 1; version 0 is an empty database."""


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
