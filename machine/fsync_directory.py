"""Syncing a directory, so that a created or renamed file still has its name after a power cut."""

from __future__ import annotations

import errno
import os


def fsync_directory(directory: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable: they are its entries, and it needs a sync of its own."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the answer of file systems that cannot sync a directory
            raise
    finally:
        os.close(descriptor)
