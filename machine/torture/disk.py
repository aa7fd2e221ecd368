"""What a crash leaves on the disk: images of a store's files, and the write that was torn.

It knows the layout of SQLite's write-ahead log (https://sqlite.org/fileformat2.html#walformat) and nothing of
what is stored.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Final

__all__ = ["copy_image", "tear"]

_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_PAGE_SIZE_AT: Final = 8
_SALT_AT: Final = 16
_SALT: Final = 8


def copy_image(path: Path, directory: Path) -> Path:
    """Copy a store's file and its write-ahead log into `directory`, as they are, and return the copy's path."""
    directory.mkdir(parents=True)
    copy = directory / path.name
    shutil.copyfile(path, copy)
    copy_log(path, copy)
    return copy


def copy_log(path: Path, copy: Path) -> None:
    """Copy the write-ahead log of one store beside another; the shared index of the log is made anew."""
    log = _log_of(path)
    if log.exists():
        shutil.copyfile(log, _log_of(copy))


def tear(path: Path) -> bool:
    """Spoil the second half of the last frame that was written to a store's log. False when it has none."""
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
    # turned over, not blanked: half a page is often blank already, and then nothing would be torn
    for at in range(last + _FRAME_HEADER + page // 2, frame):
        data[at] ^= 0xFF
    log.write_bytes(data)
    return True


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
