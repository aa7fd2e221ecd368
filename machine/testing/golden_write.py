"""Writing of goldens: a recording becomes one where it differs from the previous one by more than its time."""

from __future__ import annotations

import os
from pathlib import Path

from machine.recordings.bundle_writer import write_bundle
from machine.recordings.readable_writer import without_time
from machine.testing.golden_session import Ending
from machine.testing.golden_unlike import Unlike


def keep(candidate: Path, file: Path, *, renew: bool = False) -> bool:
    """Make a recording the golden, and return whether it is another than the previous one.

    One that differs only in the time of its recording leaves the file as it is, unless `renew` asks for the new
    time. Raises `BundleError` or `OSError`, which leave the previous one.
    """
    data = candidate.read_bytes()
    if not renew and file.is_file() and without_time(file.read_bytes()) == without_time(data):
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(file, [data])
    return True


def unwritable(file: Path) -> Unlike | None:
    """Return the failure for a file that cannot be written, where that is known before a useless run, or None."""
    folder = next(path for path in file.parents if path.exists())
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return None
    problem = "cannot be written" if folder.is_dir() else "is no directory"
    return Unlike(Ending.FAILED, f"{folder} {problem}, so nothing was run")
