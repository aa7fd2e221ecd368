"""Durable names: a created or renamed file still exists after a power cut."""

from __future__ import annotations

import errno
import os


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable: they are its entries, and it needs a sync of its own."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems lack it, and say so with these errors
            raise
    finally:
        os.close(descriptor)
