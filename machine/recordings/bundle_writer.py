"""Writing a run as a bundle, to bytes or to a file."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from machine import canonical
from machine.errors import BundleError, Code, CorruptionError, MachineError, OtherIoError
from machine.io.atomic_write import write_atomically
from machine.recordings import bundle_line as form
from machine.recordings.bundle_line_reader import MAX_BUNDLE
from machine.recordings.readable_writer import readable_lines
from machine.recordings.run_contents import Recording

_GZIP_HEADER: Final = b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff"
"""RFC 1952 section 2.3.1: no name and no time, so that the same run has the same bytes."""


def pieces(recording: Recording, *, gzip: bool = False, readable: bool = False) -> Iterator[bytes]:
    """Yield the bytes of a run's bundle, line by line, or as a gzip file; `readable` is version 2.

    Raises `BundleError` (`bundle_too_large`, `bundle_not_readable`), or `CorruptionError`.
    """
    plain = _readable(recording) if readable else _plain(recording)
    return _compressed(plain) if gzip else plain


def _readable(recording: Recording) -> Iterator[bytes]:
    for line in readable_lines(recording):
        yield line
        yield b"\n"


def _plain(recording: Recording) -> Iterator[bytes]:
    total = 0
    for number, (line, most) in enumerate(_lines(recording), 1):
        total += len(line) + 1
        if len(line) > most or total > MAX_BUNDLE:
            raise BundleError(
                f"a line may have {most} bytes, and the whole {MAX_BUNDLE}",
                path=f"the bundle of run {recording.run_id}",
                line=number,
                code=Code.BUNDLE_TOO_LARGE,
            )
        yield line
        yield b"\n"


def _lines(recording: Recording) -> Iterator[tuple[bytes, int]]:
    """Yield each line of a bundle with its maximum length."""
    header = _header_of(recording)
    yield form.header_line(header), form.MAX_JSON_LINE
    for artifact_id in carried(recording):
        yield form.artifact_line(recording.artifacts.artifact(artifact_id)), form.MAX_LINE
    for seal in recording.seals.values():
        yield form.artifact_line(seal), form.MAX_LINE
    for entry in recording.entries:
        yield form.event_line(entry.seq, entry.body, entry.info), form.MAX_JSON_LINE
    for message in recording.messages:
        yield form.message_line(message), form.MAX_JSON_LINE
    yield end_of(recording), form.MAX_JSON_LINE


def _header_of(recording: Recording) -> form.Header:
    built = recording.provenance_id
    return form.Header(
        recording.run_id,
        _json_of(recording, recording.plan_id),
        None if built is None else _json_of(recording, built),
        None if recording.lock is None else canonical.encode(recording.lock),
        recording.needs,
    )


def _json_of(recording: Recording, artifact_id: str) -> bytes:
    _, data = recording.artifacts[artifact_id]
    try:
        if canonical.encode(canonical.decode(data)) == data:
            return data
    except MachineError:
        pass
    raise CorruptionError(f"artifact {artifact_id} is not canonical JSON", code=Code.ARTIFACT_CORRUPT)


def carried(recording: Recording) -> list[str]:
    """Return the ids of artifacts with a line of their own: all but plan and provenance, which the header has."""
    in_header = {recording.plan_id, recording.provenance_id}
    return [artifact_id for artifact_id in recording.artifacts if artifact_id not in in_header]


def end_of(recording: Recording) -> bytes:
    """Return the last line of a run's bundle."""
    return form.end_line(
        artifacts=len(carried(recording)) + len(recording.seals),
        chain=recording.chain,
        digest=recording.digest,
        events=len(recording.log),
        messages=len(recording.messages) if recording.waits else None,
    )


def _compressed(plain: Iterable[bytes]) -> Iterator[bytes]:
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    checksum = size = 0
    yield _GZIP_HEADER
    for data in plain:
        checksum = zlib.crc32(data, checksum)
        size += len(data)
        yield stream.compress(data)
    yield stream.flush() + struct.pack("<LL", checksum, size & 0xFFFFFFFF)


def write_bundle(path: str | os.PathLike[str], data: Iterable[bytes]) -> None:
    """Write the pieces of a bundle to a file, atomically. Raises `BundleError` (`bundle_not_written`)."""
    path = os.fspath(path)
    try:
        write_atomically(path, data)
    except (OSError, OtherIoError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is there and is not a regular file"
        raise BundleError(f"it cannot be written: {reason}", path=path, code=Code.BUNDLE_NOT_WRITTEN) from exc
