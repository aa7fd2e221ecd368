"""The location of goldens: a file of its own for every test, parameter set and named check.

It is `fixtures/TEST.run` in the folder of the test, where TEST is the test's name with class and parameters.
`testing/golden.py` says what is compared with it.

This module only computes names and opens no file. Two tests must never share a file without an error.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

import pytest

from machine.testing.golden_options import Asked

FOLDER: Final = "fixtures"
SUFFIX: Final = ".run"

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.,=+@\[\]-]")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST: Final = 150
"""Characters of a test's name that are kept: a file name has 255, and the name of a check comes to it."""


def bases_of(item: pytest.Item, asked: Asked) -> tuple[Path, ...]:
    """Return the possible paths of a test's goldens, without the names of checks and the suffix.

    There is one path when the marker gives it. Otherwise there are two; the second also names the test file,
    and is used when another file of the folder has a test of the same name.
    """
    if asked.path is not None:
        return (Path(os.path.normpath(item.path.parent / asked.path)).with_suffix(""),)
    folder, name = item.path.parent / FOLDER, ".".join(_chain(item))
    return folder / _safe(name), folder / _safe(f"{name}@{item.path.stem}")


def file_of(base: Path, name: str | None) -> Path:
    """Return the file of one check. Raises `ValueError` for a name that cannot be part of a file name."""
    if name is not None and (not isinstance(name, str) or _NAME.fullmatch(name) is None):
        raise ValueError(f"the name of a check is of letters, digits, _ and -, at most 64: not {name!r}")
    return base.parent / f"{base.name}{f'.{name}' if name is not None else ''}{SUFFIX}"


def belongs(file: Path, base: Path) -> bool:
    """Return whether a file belongs to a check of the test with this base."""
    if file.parent != base.parent or not file.name.startswith(base.name):
        return False
    rest = file.name[len(base.name) :].removesuffix(SUFFIX)
    return not rest or (rest[0] == "." and _NAME.fullmatch(rest[1:]) is not None)


def claimant_of(item: pytest.Item) -> str:
    """Return a test's name on the command line, from the directory where pytest was called.

    It is the test's node id, without what plugins append to it.
    """
    return "::".join((shown(item.path, item.config), *_chain(item)))


def id_in(folder: Path, item: pytest.Item) -> str:
    """Return a test's name relative to a folder, as it is stored in a golden of that folder."""
    path = Path(os.path.relpath(item.path, folder)).as_posix()
    return "::".join((path, *_chain(item)))


def shown(path: Path, config: pytest.Config) -> str:
    """Return a path as it is typed where pytest was called."""
    here = config.invocation_params.dir
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def _chain(item: pytest.Item) -> list[str]:
    return [node.name for node in item.listchain() if isinstance(node, pytest.Class)] + [item.name]


def _safe(name: str) -> str:
    """Return a name that is safe in a file name; a hash of the lost characters keeps names distinct."""
    safe = _UNSAFE.sub("_", name)[:_LONGEST]
    if safe == name:
        return safe
    return f"{safe}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
