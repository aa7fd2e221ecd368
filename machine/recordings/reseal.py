"""Resealing: the sums, digests and spelling of a bundle that people have merged or edited, computed again."""

from __future__ import annotations

import os

from machine.errors import BundleError, Code
from machine.recordings.bundle_line import version_of
from machine.recordings.bundle_line_reader import read_lines
from machine.recordings.bundle_version import READABLE, is_readable
from machine.recordings.bundle_writer import pieces
from machine.recordings.readable_reader import read_unsealed


def resealed(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes that a bundle of version 2 should have, given its contents; whether they replay is open.

    Raises what `open_bundle` raises, but for sums, digests and spelling that do not fit.
    """
    path = os.fspath(path)
    lines = list(read_lines(path))
    version = version_of(lines[0])
    if not is_readable(version):
        raise BundleError(
            f"it is of version {version}, whose contents cannot be merged: only version {READABLE} is resealed",
            path=path,
            code=Code.BUNDLE_NOT_READABLE,
            hint="take one side of the merge as it is, or record it again",
        )
    return b"".join(pieces(read_unsealed(lines, path), gzip=path.endswith(".gz"), readable=True))
