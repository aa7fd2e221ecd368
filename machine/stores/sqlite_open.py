"""Creation and opening of a store file: modes, settings, and the fallbacks down to read-only.

It must never change a file that is not a store, and never create one unless asked to.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from machine.errors import Code, NotFoundError, OtherStoreError
from machine.fsync_directory import fsync_directory
from machine.stores.sqlite_errors import (
    SQLITE_FAILURES,
    has_no_wal,
    is_busy,
    os_error,
    sqlite_code,
    store_error,
)
from machine.stores.sqlite_schema import identify, migrate, not_a_store

_DEFAULT_FOLDER: Final = ".machine"
"""The folder of the default store, which git ignores when it is made here."""

_WAL_KEPT_BYTES: Final = 64 * 1024 * 1024
"""The size to which a large write-ahead log is truncated for reuse."""

_SETTINGS: Final = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA cell_size_check = ON",  # finds more damage in a page before it is used
    "PRAGMA trusted_schema = OFF",  # a foreign file must not run functions
    "PRAGMA secure_delete = ON",  # rare deletions, of a run's data key, must not be recoverable
    f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}",
)


def open_database(path: Path, *, create: bool, synchronous: str, busy_timeout: float) -> sqlite3.Connection:
    """Return a connection to the store at `path`, created or migrated as needed.

    Raises `StoreError` with the code that says what is wrong; then nothing is left behind.
    """
    name = str(path)
    try:
        if create:
            _make(path)
        elif not path.exists():
            raise NotFoundError(
                f"there is no store at {name}",
                code=Code.STORE_NOT_FOUND,
                details={"path": name},
                hint="start a run with it to make one, or check the path",
            )
        if not path.is_file():
            raise not_a_store(name, "it is not a regular file")
    except OSError as exc:
        raise os_error(exc, name) from exc
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            return _open(path, create=create, synchronous=synchronous, busy_timeout=busy_timeout)
        except SQLITE_FAILURES as exc:
            if is_busy(exc) and time.monotonic() < deadline:
                # a change of the journal mode does not wait for a lock, it fails at once; two processes
                # that make one store at one time meet here
                time.sleep(0.01)
                continue
            if sqlite_code(exc) == sqlite3.SQLITE_NOTADB:
                raise not_a_store(name, "it is not an SQLite database, or its header is damaged") from exc
            if sqlite_code(exc) & 0xFF == sqlite3.SQLITE_CANTOPEN and not _writable(path):
                raise _unreadable_wal(name) from exc
            raise store_error(exc, name) from exc


def connect(path: Path, *, synchronous: str, busy_timeout: float) -> sqlite3.Connection:
    """Return a connection to an existing file, read-only where the file or its directory is."""
    try:
        return _connect(path, "mode=rw", synchronous, busy_timeout)
    except sqlite3.OperationalError as exc:
        # A WAL database needs a place for its -shm file even to be read. Where there is none, nobody can be
        # writing either (they would have needed it too), so the file may be read as if it never changed -
        # unless commits are still waiting in a -wal, which would then be skipped.
        fell = sqlite_code(exc) & 0xFF in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
        if not fell or _writable(path) or _has_wal(path):
            raise
        return _connect(path, "mode=ro&immutable=1", synchronous, busy_timeout)


def _connect(path: Path, mode: str, synchronous: str, busy_timeout: float) -> sqlite3.Connection:
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for setting in _SETTINGS:
            conn.execute(setting)
        conn.execute(f"PRAGMA synchronous = {synchronous}")
        conn.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the first that reads the file
    except BaseException:
        conn.close()
        raise
    return conn


def _open(path: Path, *, create: bool, synchronous: str, busy_timeout: float) -> sqlite3.Connection:
    try:
        return _opened(path, create=create, wal=True, synchronous=synchronous, busy_timeout=busy_timeout)
    except sqlite3.OperationalError as exc:
        if not has_no_wal(exc) or not _writable(path):
            raise
    _leave_wal(path, busy_timeout)
    return _opened(path, create=create, wal=False, synchronous=synchronous, busy_timeout=busy_timeout)


def _opened(
    path: Path, *, create: bool, wal: bool, synchronous: str, busy_timeout: float
) -> sqlite3.Connection:
    conn = connect(path, synchronous=synchronous, busy_timeout=busy_timeout)
    try:
        if (identify(conn, str(path)) or create) and wal:
            _use_wal(conn)
        else:
            _wait_in_full(conn)
        migrate(conn, str(path), create=create)
    except BaseException:
        conn.close()
        raise
    return conn


def _use_wal(conn: sqlite3.Connection) -> None:
    """Use the write-ahead log: one sync for a commit, and readers that do not block a writer.

    The mode is stored in the file. A read-only copy retains the one it has.
    """
    try:
        conn.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as exc:
        if sqlite_code(exc) & 0xFF != sqlite3.SQLITE_READONLY:
            raise
    _wait_in_full(conn)


def _wait_in_full(conn: sqlite3.Connection) -> None:
    """Wait for the disk at every commit on the rollback journal, which is as durable as the write-ahead log."""
    if conn.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        conn.execute("PRAGMA synchronous = FULL")


def _leave_wal(path: Path, busy_timeout: float) -> None:
    """Switch a file to the rollback journal where the write-ahead log is impossible, as in a network folder.

    With exclusive access, SQLite needs no shared memory to read the contents of a write-ahead log
    (https://sqlite.org/wal.html section 8). No commit is lost.
    """
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=busy_timeout, isolation_level=None
    )
    try:
        conn.execute("PRAGMA locking_mode = EXCLUSIVE")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA journal_mode = DELETE")
    finally:
        conn.close()


def _make(path: Path) -> None:
    """Create the file and the directories above it, readable by the owner alone; existing ones are unchanged."""
    missing = []
    directory = path.absolute().parent
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):
            new.mkdir(mode=0o700)
            if new.name == _DEFAULT_FOLDER:
                (new / ".gitignore").write_text("*\n", encoding="ascii")
        fsync_directory(new.parent)
    # The file is made here because SQLite would give it the mode of any file; the -wal and -shm take theirs
    # from it. O_EXCL: closing a descriptor of a file that is in use would drop SQLite's locks on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _writable(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    places = (path, path.absolute().parent)
    return all(os.access(place, os.W_OK, effective_ids=effective) for place in places)


def _has_wal(path: Path) -> bool:
    try:
        return Path(f"{path}-wal").stat().st_size > 0
    except OSError:
        return False


def _unreadable_wal(name: str) -> OtherStoreError:
    return OtherStoreError(
        f"the store {name} has commits in its -wal file that cannot be read from a read-only place",
        code=Code.STORE_READ_ONLY,
        details={"path": name},
        hint="copy the file and its -wal to a writable directory and open it there",
    )
