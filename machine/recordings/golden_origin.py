"""The test that recorded a golden, read from the first line of its bundle.

A plan of a test may be built in the test, so the target of such a run is the test: its file, relative to the
golden, and its name as pytest writes them, `../test_prices.py::test_prices`.
"""

from __future__ import annotations

import os
from pathlib import Path

from machine import canonical
from machine.errors import MachineError
from machine.recordings.bundle_line import parse_header, version_of
from machine.recordings.bundle_line_reader import read_lines
from machine.recordings.bundle_version import is_readable
from machine.recordings.readable_reader import provenance_of


def is_test(spec: str) -> bool:
    """Return whether a target is a test rather than a plan."""
    return "::" in spec


def test_of(golden: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """Return the file and the name of the test that recorded a golden, or None when the golden has neither."""
    try:
        lines = read_lines(os.fspath(golden))
        first = next(lines)
        built = provenance_of(lines) if is_readable(version_of(first)) else parse_header(first).provenance
        spec = (canonical.decode(built or b"{}").get("target") or {}).get("spec", "")
    except (MachineError, ValueError, StopIteration, OSError, AttributeError):
        return None
    path, _, name = spec.partition("::")
    return (Path(os.path.normpath(Path(golden).parent / path)), name) if name else None
