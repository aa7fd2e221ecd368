"""The owner of a golden: the test that recorded it, and the choice among the files a check may have.

A golden is found by the name of its test, whatever the name of the test file. The recorded owner only matters
where two files of one folder have a test of the same name.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from machine.errors import MachineError
from machine.recordings.golden_origin import test_of
from machine.testing.golden_check import Wanted, manifest_difference, opened
from machine.testing.golden_paths import file_of


def named_alike(item: pytest.Item) -> bool:
    """Return whether another test file of the folder contains, by its text, a golden test of the same name."""
    name = re.escape(getattr(item, "originalname", None) or item.name)
    test = re.compile(rf"^\s*(?:async\s+)?def\s+{name}\s*\([^)]*\bgolden\b", re.MULTILINE)
    for file in item.path.parent.glob("*.py"):
        if file == item.path or not _is_collected(file, item):
            continue
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if test.search(text):
            return True
    return False


def _is_collected(file: Path, item: pytest.Item) -> bool:
    """Return whether pytest collects a file: it matches `python_files` or was named on the command line."""
    patterns = [
        f"*{os.sep}{pattern}" if os.sep in pattern and not Path(pattern).is_absolute() else pattern
        for pattern in item.config.getini("python_files")
    ]
    names = (str(file) if os.sep in pattern else file.name for pattern in patterns)
    matched = any(fnmatch.fnmatch(name, pattern) for name, pattern in zip(names, patterns, strict=True))
    return matched or item.session.isinitpath(file)


def file_for(
    bases: Sequence[Path], name: str | None, item: pytest.Item, wanted: Wanted | None, *, contested: bool
) -> Path:
    """Return the file of a check: the existing one that it owns, else the one to record.

    Raises `ValueError` for a name that cannot be part of a file name.
    """
    short, *long = (file_of(base, name) for base in bases)
    if not long:
        return short
    if os.path.lexists(long[0]):
        return long[0]
    if not os.path.lexists(short):
        return long[0] if contested or named_alike(item) else short
    return short if _is_own(short, item, wanted, contested=contested) else long[0]


def _is_own(golden: Path, item: pytest.Item, wanted: Wanted | None, *, contested: bool) -> bool:
    maker = test_of(golden)
    if maker is not None:  # the test file is gone, so it was renamed
        return maker[0] == item.path or maker[0].parent != item.path.parent or not maker[0].exists()
    if not (contested or named_alike(item)):
        return True
    try:  # recorded before goldens named their test: it belongs to any test that asks for this name
        with opened(golden) as found:
            return wanted is not None and manifest_difference(found, wanted) is None
    except MachineError:
        return True
