"""Writing a run as a bundle, to bytes or to a file."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Final

from machine import canonical
from machine.errors import BundleError, Code, CorruptionError, MachineError, OtherIoError
from machine.io.atomic import write_atomically
from machine.recordings import bundle_format as form
from machine.recordings.bundle_lines import MAX_BUNDLE
from machine.recordings.run_artifacts import Recording
from machine.stores.base import Artifact

__all__ = ["carried", "compressed", "end_of", "joined", "write_bundle"]

_GZIP_HEADER: Final = b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff"
"""RFC 1952 section 2.3.1: no name and no time, so that the same run has the same bytes."""


def joined(recording: Recording) -> bytes:
    """Return the bytes of a run's bundle. Raises `BundleError` (`bundle_too_large`), or `CorruptionError`."""
    lines: list[bytes] = []
    total = 0
    for line, most in _lines(recording):
        total += len(line) + 1
        if len(line) > most or total > MAX_BUNDLE:
            raise BundleError(
                f"a line may have {most} bytes, and the whole {MAX_BUNDLE}",
                path=f"the bundle of run {recording.run_id}",
                line=len(lines) + 1,
                code=Code.BUNDLE_TOO_LARGE,
            )
        lines.append(line)
    return b"\n".join((*lines, b""))


def _lines(recording: Recording) -> Iterator[tuple[bytes, int]]:
    """Yield each line of a bundle with its maximum length."""
    header = _header_of(recording)
    yield form.header_line(header), form.MAX_JSON_LINE
    for artifact in (*carried(recording), *recording.seals.values()):
        yield form.artifact_line(artifact), form.MAX_LINE
    for entry in recording.entries:
        yield form.event_line(entry.seq, entry.body, entry.info), form.MAX_JSON_LINE
    yield end_of(recording), form.MAX_JSON_LINE


def _header_of(recording: Recording) -> form.Header:
    built = recording.provenance_id
    return form.Header(
        recording.run_id,
        _json_of(recording, recording.plan_id),
        None if built is None else _json_of(recording, built),
        None if recording.lock is None else canonical.encode(recording.lock),
    )


def _json_of(recording: Recording, artifact_id: str) -> bytes:
    data = recording.artifacts[artifact_id].data
    try:
        if canonical.encode(canonical.decode(data)) == data:
            return data
    except MachineError:
        pass
    raise CorruptionError(f"artifact {artifact_id} is not canonical JSON", code=Code.ARTIFACT_CORRUPT)


def carried(recording: Recording) -> list[Artifact]:
    """Return the artifacts with a line of their own: all but plan and provenance, which are in the header."""
    in_header = {recording.plan_id, recording.provenance_id}
    return [artifact for artifact in recording.artifacts.values() if artifact.id not in in_header]


def end_of(recording: Recording) -> bytes:
    """Return the last line of a run's bundle."""
    return form.end_line(
        artifacts=len(carried(recording)) + len(recording.seals),
        chain=recording.chain,
        digest=recording.digest,
        events=len(recording.log),
    )


def compressed(data: bytes) -> bytes:
    """Return the bytes of a bundle as a gzip file."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = stream.compress(data) + stream.flush()
    return _GZIP_HEADER + body + struct.pack("<LL", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def write_bundle(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a bundle to a file, atomically. Raises `BundleError` (`bundle_not_written`)."""
    path = os.fspath(path)
    try:
        write_atomically(path, data)
    except (OSError, OtherIoError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is there and is not a regular file"
        raise BundleError(f"it cannot be written: {reason}", path=path, code=Code.BUNDLE_NOT_WRITTEN) from exc
