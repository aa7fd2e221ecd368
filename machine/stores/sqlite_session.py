"""The one connection of an open store: exclusive access to it, and the meaning of its errors.

No lock is held longer than a `with` block, and no error of SQLite leaves one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from machine.errors import Code, OtherStoreError
from machine.stores.argument_checks import closed
from machine.stores.sqlite_errors import SQLITE_FAILURES, moved, store_error


class Session:
    """A connection for one caller after another: `with session as conn`. Raises `store_closed` after `close`."""

    __slots__ = ("_file", "_lock", "_path", "_url", "conn")

    def __init__(self, conn: sqlite3.Connection, path: Path, url: str) -> None:
        self.conn: sqlite3.Connection | None = conn
        self._path: Final = str(path)
        self._url: Final = url
        self._file: Final = _file_at(self._path)
        self._lock: Final = threading.Lock()

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        if self.conn is None:
            self._lock.release()
            raise closed(self._url)
        return self.conn

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        self._lock.release()
        if isinstance(exc, SQLITE_FAILURES):
            raise store_error(exc, self._path) from exc

    def out_of_place(self) -> OtherStoreError | None:
        """Return the error for a file that is no longer at its path, or None.

        SQLite would continue to write to a file that nobody can open again, and call it durable.
        """
        return None if _file_at(self._path) == self._file else moved(self._path)

    def check_place(self) -> None:
        """Refuse to write to a file that is no longer at its path."""
        if wrong := self.out_of_place():
            raise wrong

    @contextmanager
    def writing(self, synchronous: Literal["full", "normal"] | None = None) -> Iterator[sqlite3.Connection]:
        """Provide the connection within a transaction that may write: all of it or, on an error, nothing.

        `synchronous` overrides how the store waits for the commit.
        """
        with self as conn:
            self.check_place()
            usual = _set_synchronous(conn, synchronous) if synchronous else None
            try:
                conn.execute("BEGIN IMMEDIATE")
                yield conn
                conn.execute("COMMIT")
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
                if usual is not None:
                    conn.execute(f"PRAGMA synchronous = {usual}")

    def close(self) -> None:
        """Close the connection once it is not in use; twice is harmless."""
        with self._lock:
            conn, self.conn = self.conn, None
        if conn is not None:
            try:
                conn.close()
            except SQLITE_FAILURES as exc:
                raise store_error(exc, self._path) from exc


def _set_synchronous(conn: sqlite3.Connection, wanted: str) -> int | None:
    """Set how commits are waited for, and return the previous setting; None when it was unchanged."""
    # without the write-ahead log, anything less than FULL may damage the file
    if wanted != "full" and conn.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        return None
    usual = int(conn.execute("PRAGMA synchronous").fetchone()[0])
    conn.execute(f"PRAGMA synchronous = {wanted}")
    return usual


def url_of(path: Path, synchronous: str) -> str:
    """Return the URL that opens the store at an absolute path from anywhere, with the same settings."""
    option = "" if synchronous == "full" else f"?synchronous={synchronous}"
    try:
        quoted = quote(os.fsencode(path))
    except UnicodeEncodeError:
        quoted = "%00"
    if "%00" in quoted:
        raise OtherStoreError(
            f"{str(path)!r} does not name a store: it cannot be a path",
            code=Code.STORE_UNKNOWN_URL,
        )
    return f"sqlite:///{quoted}{option}"


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - twice as fast as Path.stat, on the path of every append
    except OSError:
        return None
    return found.st_dev, found.st_ino
