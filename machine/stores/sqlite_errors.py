"""The meaning of SQLite and operating system errors for a user of a store.

No `sqlite3.Error` and no `OSError` leaves a store: each becomes a `StoreError` that says what to do next.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from typing import Final

from machine.errors import Code, CorruptionError, OtherStoreError, StoreError

SQLITE_FAILURES: Final = (sqlite3.Error, UnicodeDecodeError)
"""The exceptions of the `sqlite3` module: the second for a message that quotes damaged text."""

_PRIMARY: Final = 0xFF
"""The mask that leaves the primary of an extended result code (https://sqlite.org/rescode.html)."""

_GREW: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,  # SQLite's code for EDQUOT and EFBIG; only ENOSPC becomes SQLITE_FULL
        sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)

_UNREADABLE: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        8202,  # SQLITE_IOERR_DATA and, below, SQLITE_IOERR_CORRUPTFS: without a name under an older SQLite
        8458,
    }
)

_NO_SHARED_MEMORY: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMLOCK,
        sqlite3.SQLITE_IOERR_SHMMAP,
    }
)

_DAMAGED: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,  # our statements are fixed: the schema is no longer ours
        sqlite3.SQLITE_CONSTRAINT,  # our data breaks no rule unless the existing data does
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
    }
)

_OS_CODES: Final[Mapping[int, Code]] = {
    errno.EACCES: Code.STORE_READ_ONLY,
    errno.EPERM: Code.STORE_READ_ONLY,
    errno.EROFS: Code.STORE_READ_ONLY,
    errno.ENOSPC: Code.STORE_FULL,
    errno.EDQUOT: Code.STORE_FULL,
}


def sqlite_code(exc: BaseException) -> int:
    """Return SQLite's extended result code of an exception; 0 when Python itself raised it."""
    code = getattr(exc, "sqlite_errorcode", 0)
    return code if isinstance(code, int) else 0


def is_busy(exc: BaseException) -> bool:
    """Say whether another connection holds the required lock."""
    return sqlite_code(exc) & _PRIMARY in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def has_no_wal(exc: BaseException) -> bool:
    """Say whether an error may mean that the file's place has no shared memory for a write-ahead log."""
    code = sqlite_code(exc)
    return code in _NO_SHARED_MEMORY or code & _PRIMARY in {sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CANTOPEN}


def _is_undecodable(exc: Exception) -> bool:
    # the sqlite3 module has no code for text that is not UTF-8
    return isinstance(exc, UnicodeDecodeError) or str(exc).startswith("Could not decode to UTF-8")


def store_error(exc: sqlite3.Error | UnicodeDecodeError, path: str) -> StoreError:
    """Return the error to raise for what SQLite reported about the store at `path`."""
    code = sqlite_code(exc)
    primary = code & _PRIMARY
    details = {"path": path, "sqlite": getattr(exc, "sqlite_errorname", type(exc).__name__)}
    if is_busy(exc):
        return OtherStoreError(
            f"the store {path} is locked by another process",
            code=Code.STORE_BUSY,
            retryable=True,
            details=details,
            hint="nothing was written; try again when it has finished",
        )
    if code == sqlite3.SQLITE_READONLY_DBMOVED:
        return moved(path)
    if primary == sqlite3.SQLITE_READONLY:
        return OtherStoreError(
            f"the store {path} cannot be written",
            code=Code.STORE_READ_ONLY,
            details=details,
            hint="the file and its directory must be writable; reading needs neither",
        )
    if code in _GREW or primary == sqlite3.SQLITE_FULL:
        return OtherStoreError(
            f"the store {path} cannot grow: the disk, a quota or a file size limit is at its end",
            code=Code.STORE_FULL,
            details=details,
            hint="nothing was written; make room and try again",
        )
    if primary == sqlite3.SQLITE_TOOBIG:
        return OtherStoreError(
            f"a value is larger than the store {path} can hold",
            code=Code.ARTIFACT_TOO_LARGE,
            details=details,
        )
    if primary in _DAMAGED or code in _UNREADABLE or _is_undecodable(exc):
        return CorruptionError(
            f"the store {path} is damaged: {exc}",
            details=details,
            hint="restore it from a backup; what is intact can still be read",
        )
    if code in _NO_SHARED_MEMORY or primary == sqlite3.SQLITE_PROTOCOL:
        return OtherStoreError(
            f"the store {path} cannot be locked: {exc}",
            code=Code.STORE_FAILED,
            details=details,
            hint="its folder may be a network folder without locks; keep the store on a disk of this machine",
        )
    return OtherStoreError(f"the store {path} failed: {exc}", details=details)


def moved(path: str) -> OtherStoreError:
    """Return the error for a store whose file is no longer the one that was opened."""
    return OtherStoreError(
        f"the store {path} was moved or deleted while it was open",
        code=Code.STORE_FAILED,
        details={"path": path},
        hint="nothing was written; open it again where it is now",
    )


def os_error(exc: OSError, path: str) -> StoreError:
    """Return the error to raise for what the operating system reported about the store at `path`."""
    return OtherStoreError(
        f"the store {path} cannot be made: {exc.strerror or exc}",
        code=_OS_CODES.get(exc.errno or 0, Code.STORE_FAILED),
        details={"path": path, "errno": errno.errorcode.get(exc.errno or 0, "")},
    )
