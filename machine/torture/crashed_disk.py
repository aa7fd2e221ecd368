"""The files that a crash leaves on the disk: copies of a store's files, and torn writes.

This module knows the layout of SQLite's write-ahead log (https://sqlite.org/fileformat2.html#walformat) and the
table of events, but not the meaning of an event.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Final

_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_PAGE_SIZE_AT: Final = 8
_SALT_AT: Final = 16
_SALT: Final = 8
_A_NUMBER: Final = b'"ts_millis":'


def copy_image(path: Path, directory: Path) -> Path:
    """Copy a store's file, its write-ahead log and its key into `directory`, and return the copy's path."""
    directory.mkdir(parents=True)
    copy = directory / path.name
    shutil.copyfile(path, copy)
    copy_log(path, copy)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(f"{path}.key", f"{copy}.key")  # with its mode: a key that others can read is refused
    return copy


def copy_log(path: Path, copy: Path) -> None:
    """Copy the write-ahead log of a store to another; SQLite rebuilds the shared index of the log."""
    log = _log_of(path)
    if log.exists():
        shutil.copyfile(log, _log_of(copy))


def tear(path: Path) -> bool:
    """Corrupt the second half of the last frame written to a store's log. Returns False when there is none."""
    log = _log_of(path)
    data = bytearray(log.read_bytes()) if log.exists() else bytearray()
    if len(data) < _HEADER:
        return False
    (page,) = struct.unpack_from(">I", data, _PAGE_SIZE_AT)
    salt = data[_SALT_AT : _SALT_AT + _SALT]
    frame, last = _HEADER, None
    while frame + _FRAME_HEADER + page <= len(data) and data[frame + 8 : frame + 8 + _SALT] == salt:
        last, frame = frame, frame + _FRAME_HEADER + page
    if last is None:
        return False
    # inverted, not blanked: half a page is often blank already, and then nothing would be torn
    for at in range(last + _FRAME_HEADER + page // 2, frame):
        data[at] ^= 0xFF
    log.write_bytes(data)
    return True


def spoil(path: Path, run_id: str, seq: int) -> None:
    """Change one byte of an event in a way that neither the database nor the form of the event shows."""
    conn = sqlite3.connect(path, isolation_level=None)
    try:
        (guard,) = conn.execute("SELECT sql FROM sqlite_master WHERE name = 'events_never_change'").fetchone()
        where = "run = (SELECT key FROM runs WHERE run_id = ?) AND seq = ?"
        (data,) = conn.execute(f"SELECT data FROM events WHERE {where}", (run_id, seq)).fetchone()  # noqa: S608
        spoilt = bytearray(data)
        spoilt[data.rindex(_A_NUMBER) + len(_A_NUMBER) + 1] ^= 1  # another digit, and never a leading zero
        conn.execute("DROP TRIGGER events_never_change")
        conn.execute(f"UPDATE events SET data = ? WHERE {where}", (bytes(spoilt), run_id, seq))  # noqa: S608
        conn.execute(guard)
    finally:
        conn.close()


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
