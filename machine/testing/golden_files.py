"""Where the golden of a test lies: a file of its own for every test, parameter set and named check.

Names only; nothing here opens a file. Two tests must never be given one file without somebody noticing.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

import pytest

from machine.testing.golden_options import Asked

__all__ = ["FOLDER", "SUFFIX", "bases_of", "belongs", "claimant_of", "file_of", "id_in", "shown"]

FOLDER: Final = "fixtures"
SUFFIX: Final = ".run"

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.,=+@\[\]-]")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST: Final = 150
"""Characters of a test's name that are kept: a file name has 255, and the name of a check comes to it."""


def bases_of(item: pytest.Item, asked: Asked) -> tuple[Path, ...]:
    """Return the paths that a test's goldens may have, without what tells its checks apart and without the suffix.

    There is one where the marker gives it. Else there are two, and the second, which names the file of the test
    too, is for a test whose name another file of the folder has as well.
    """
    if asked.path is not None:
        return (Path(os.path.normpath(item.path.parent / asked.path)).with_suffix(""),)
    folder, name = item.path.parent / FOLDER, ".".join(_chain(item))
    return folder / _safe(name), folder / _safe(f"{name}@{item.path.stem}")


def file_of(base: Path, name: str | None) -> Path:
    """Return the file of one check. Raises `ValueError` for a name that cannot stand in a file's."""
    if name is not None and (not isinstance(name, str) or _NAME.fullmatch(name) is None):
        raise ValueError(f"the name of a check is of letters, digits, _ and -, at most 64: not {name!r}")
    return base.parent / f"{base.name}{f'.{name}' if name is not None else ''}{SUFFIX}"


def belongs(file: Path, base: Path) -> bool:
    """Say whether a file is that of a check of the test with this base."""
    if file.parent != base.parent or not file.name.startswith(base.name):
        return False
    rest = file.name[len(base.name) :].removesuffix(SUFFIX)
    return not rest or (rest[0] == "." and _NAME.fullmatch(rest[1:]) is not None)


def claimant_of(item: pytest.Item) -> str:
    """Return how a test is named on the command line, from where pytest was called.

    It is the test's node id, but for what plugins append to one.
    """
    return "::".join((shown(item.path, item.config), *_chain(item)))


def id_in(folder: Path, item: pytest.Item) -> str:
    """Return how a test is named from a folder: what a golden in it says of the test that made it."""
    path = Path(os.path.relpath(item.path, folder)).as_posix()
    return "::".join((path, *_chain(item)))


def shown(path: Path, config: pytest.Config) -> str:
    """Return a path as it is typed where pytest was called."""
    here = config.invocation_params.dir
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def _chain(item: pytest.Item) -> list[str]:
    return [node.name for node in item.listchain() if isinstance(node, pytest.Class)] + [item.name]


def _safe(name: str) -> str:
    """Return a name as a file may have it. What is lost of it stands in a hash, so that no two become one."""
    safe = _UNSAFE.sub("_", name)[:_LONGEST]
    if safe == name:
        return safe
    return f"{safe}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
