"""Reading a bundle file line by line with bounded memory: a few bytes of gzip may inflate to gigabytes.

Only one line is in memory, and a file that is not a bundle is refused at its first bytes. This module
knows only the kind of a line, which bounds its length, and not its meaning.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from blake3 import blake3

from machine.errors import BundleError, Code
from machine.recordings.bundle_line import (
    ARTIFACT,
    MAX_JSON_LINE,
    MAX_LINE,
    SUM_BYTES,
    fits,
    starts_as_bundle,
    version_of,
)
from machine.recordings.bundle_version import VERSIONS

MAX_BUNDLE: Final = 1024 * 1024 * 1024
"""The most bytes of a bundle, decompressed."""

CONFLICT: Final = "it has a conflict of a merge"
"""The problem of a file with a marker that a merge has left in it."""

_CHUNK: Final = 256 * 1024
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_NOT_FOUND: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Return whether a file exists and begins like a bundle of any version."""
    try:
        _check_regular(str(path))
        with Path(path).open("rb") as file:
            return version_of(next(_content(file, str(path)), b"")) is not None
    except (OSError, BundleError, ValueError):
        return False


def read_lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a bundle without their line ends, after checking that its version can be read.

    Raises `BundleError`: `bundle_not_found`, `bundle_not_a_file`, `bundle_truncated` for a file that does not end
    in a line end, `bundle_newer_format`, `bundle_too_large`, or `bundle_invalid` for any other file.
    """
    if not path:
        raise BundleError("no file can have this name", path="''", code=Code.BUNDLE_NOT_FOUND)
    try:
        _check_regular(path)
        with Path(path).open("rb") as file:
            yield from _lines(file, path)
    except OSError as exc:
        if exc.errno == errno.EISDIR:
            raise BundleError("it is a directory, not a bundle", path=path) from None
        text = "there is no such file" if exc.errno in _NOT_FOUND else f"it cannot be read: {exc.strerror}"
        raise BundleError(text, path=path, code=Code.BUNDLE_NOT_FOUND) from None
    except ValueError as exc:  # the path contains NUL
        raise BundleError(f"it is no path: {exc}", path=path, code=Code.BUNDLE_NOT_FOUND) from None


def _check_regular(path: str) -> None:
    """Refuse anything but a file or directory before it is opened: opening a pipe would block."""
    mode = os.stat(path).st_mode  # noqa: PTH116 - the path exactly as given
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BundleError(
            "it is not a regular file, and a bundle is read from no other",
            path=path,
            code=Code.BUNDLE_NOT_A_FILE,
            hint="write it to a file first",
        )


def _lines(file: IO[bytes], path: str) -> Iterator[bytes]:
    held = bytearray()
    number, total, begun, looked_ahead = 1, 0, False, False
    for chunk in _content(file, path):
        total += len(chunk)
        _check_total(total, path, number)
        if not begun:
            _check_start(chunk, path)
            begun = True
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            held += memoryview(chunk)[start:end]
            _check_length(held, path, number)
            yield bytes(held)
            held.clear()
            number, start = number + 1, end + 1
        held += memoryview(chunk)[start:]
        _check_length(held, path, number)
        if len(held) > MAX_JSON_LINE and not looked_ahead:
            looked_ahead = True
            with Path(path).open("rb") as again:
                _look_ahead(again, path)
    if held or not begun:
        text = "it ends within a line" if held else "it is empty"
        raise BundleError(
            f"{text}: a part of it is missing", path=path, line=number, code=Code.BUNDLE_TRUNCATED
        )


def _look_ahead(file: IO[bytes], path: str) -> None:
    """Refuse a long line with a wrong checksum while holding only a piece of it in memory.

    A few bytes of gzip may inflate to a line of hundreds of megabytes; the line is read whole only if it is
    valid.
    """
    number, total, length = 1, 0, 0
    hashed, tail = blake3(), b""
    for chunk in _content(file, path):
        total += len(chunk)
        _check_total(total, path, number)
        start = 0
        while start < len(chunk):
            end = chunk.find(b"\n", start)
            piece = chunk[start:] if end < 0 else chunk[start:end]
            start, length = start + len(piece) + 1, length + len(piece)
            if length > MAX_LINE:
                raise _too_long(MAX_LINE, path, number)
            tail += piece
            hashed.update(memoryview(tail)[:-SUM_BYTES])
            tail = tail[-SUM_BYTES:]
            if end < 0:
                continue
            if length > MAX_JSON_LINE and not fits(hashed, tail):
                raise BundleError("its checksum does not fit: it was changed", path=path, line=number)
            number, length = number + 1, 0
            hashed, tail = blake3(), b""
    if length > MAX_JSON_LINE:
        raise BundleError(
            "it ends within a line: a part of it is missing",
            path=path,
            line=number,
            code=Code.BUNDLE_TRUNCATED,
        )


def _check_total(total: int, path: str, number: int) -> None:
    if total > MAX_BUNDLE:
        raise BundleError(
            f"it holds more than {MAX_BUNDLE} bytes", path=path, line=number, code=Code.BUNDLE_TOO_LARGE
        )


def way_out(path: str) -> str:
    """Return a hint about a bundle that was merged or edited."""
    return f"choose what is right, then `machine golden reseal {shlex.quote(path)}`; or record it again"


def _check_start(head: bytes, path: str) -> None:
    if head.startswith(b"<<<<<<< "):
        raise BundleError(CONFLICT, path=path, line=1, hint=way_out(path))
    if not starts_as_bundle(head):
        raise BundleError("it is not a bundle: it does not begin as one", path=path, line=1)
    version = version_of(head)
    if version is not None and version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise BundleError(
            f"it was made by a newer version of machine: its format is {version}, this one reads {known}",
            path=path,
            line=1,
            code=Code.BUNDLE_NEWER_FORMAT,
            hint="update machine",
        )


def _check_length(line: bytearray, path: str, number: int) -> None:
    most = MAX_LINE if line.startswith(ARTIFACT) else MAX_JSON_LINE
    if len(line) > most:
        raise _too_long(most, path, number)


def _too_long(most: int, path: str, number: int) -> BundleError:
    return BundleError(f"it is longer than {most} bytes", path=path, line=number, code=Code.BUNDLE_TOO_LARGE)


def _content(file: IO[bytes], path: str) -> Iterator[bytes]:
    """Yield the content of a file in non-empty pieces, decompressed if it is gzip."""
    chunk = file.read(_CHUNK)
    if chunk.startswith(_GZIP):
        yield from _inflated(file, path, chunk)
        return
    while chunk:
        yield chunk
        chunk = file.read(_CHUNK)


def _inflated(file: IO[bytes], path: str, chunk: bytes) -> Iterator[bytes]:
    stream = zlib.decompressobj(_GZIP_WINDOW)
    while not stream.eof:
        try:
            content = stream.decompress(chunk, _CHUNK)
        except zlib.error as exc:
            raise BundleError(f"its compression is damaged: {exc}", path=path) from None
        if content:
            yield content
        chunk = stream.unconsumed_tail
        if (
            not chunk and len(content) < _CHUNK and not stream.eof
        ):  # else more output is pending from the input it already has
            chunk = file.read(_CHUNK)
            if not chunk:
                raise BundleError(
                    "its compression ends early: a part of it is missing",
                    path=path,
                    code=Code.BUNDLE_TRUNCATED,
                )
    if stream.unused_data or file.read(1):
        raise BundleError("something follows the end of its compression", path=path)
