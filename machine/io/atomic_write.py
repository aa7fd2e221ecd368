"""Atomic writing of a whole file: never half of it, and never acknowledged before the bytes are on the disk."""

# The system calls themselves, not pathlib: their flags, and paths exactly as given, are the point.
# ruff: noqa: PTH105, PTH108, PTH118, PTH120, PTH123

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress

from machine.errors import Code, OtherIoError
from machine.fsync_directory import fsync_directory


def write_atomically(path: str, data: Iterable[bytes]) -> None:
    """Make the pieces of `data` the whole content of a file, durable on return; an error leaves it unchanged.

    Raises `OSError`, and `OtherIoError` (`file_failed`) for a path to something other than a regular file.
    """
    target = os.path.realpath(path)  # the target of a symbolic link is written; the link stays
    folder = os.path.dirname(target)
    try:
        before = os.lstat(target)
    except FileNotFoundError:
        before = None
    if before is not None:
        if not stat.S_ISREG(before.st_mode):
            raise not_regular(path)
        if not os.access(
            target, os.W_OK
        ):  # a rename would ignore the read-only mode, which its owner set on purpose
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    temporary, descriptor = _temporary(folder, 0o666 if before is None else 0o600)
    try:
        with open(descriptor, "wb") as file:
            if before is not None:
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.writelines(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_directory(folder)


def _temporary(folder: str, mode: int) -> tuple[str, int]:
    """Create and lock a new file in a folder, and return its path and descriptor.

    The lock shows that the file is in use: one without was left by a killed process, and a cleaner may remove it.
    """
    while True:
        temporary = os.path.join(folder, f".machine-{secrets.token_hex(8)}.tmp")
        # The kernel applies the umask to a new file. A replacement stays private until it has its mode.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.exists(temporary):  # noqa: PTH110 - else it was taken for a leftover before it was locked
            return temporary, descriptor
        os.close(descriptor)


def not_regular(path: str) -> OtherIoError:
    """Return the error for a path that leads to something other than a regular file."""
    return OtherIoError(f"{path} is not a regular file", code=Code.FILE_FAILED, details={"path": path})
