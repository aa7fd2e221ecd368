"""Durable names: a file that was made or renamed is there after a power cut."""

from __future__ import annotations

import errno
import os

__all__ = ["sync_directory"]


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable: they are entries of it, and it has a sync of its own."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems do not have it, and say so this way
            raise
    finally:
        os.close(descriptor)
