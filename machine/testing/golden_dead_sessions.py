"""Leftovers of killed sessions; a lock distinguishes them from the files of live sessions.

The system releases the locks of a process that dies in any way, so a file that can be locked has no owner.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "machine-goldens-"
_LOCK: Final = "lock"


def own_folder() -> tuple[Path, Callable[[], None]]:
    """Return a folder for this session's recordings and its remover; remove those of dead sessions."""
    for other in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _has_no_owner(other / _LOCK):
            shutil.rmtree(other, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / _LOCK).exists():  # else another session found it before it was locked
            break
        os.close(lock)

    def release() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)

    return folder, release


def removed(files: Iterable[Path]) -> list[Path]:
    """Remove those files that no live process is writing, and return them."""
    gone = []
    for file in files:
        if _has_no_owner(file):
            with suppress(OSError):
                file.unlink()
                gone.append(file)
    return gone


def _has_no_owner(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # it is gone, or belongs to another user
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
