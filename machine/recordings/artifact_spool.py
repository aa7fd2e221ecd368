"""The artifacts of one run with bounded memory: those of a large run are kept in a temporary file."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from io import FileIO
from typing import Final

import attrs

from machine.errors import Code, OtherIoError
from machine.events import Artifact

_IN_MEMORY: Final = 16 * 1024 * 1024
"""The most bytes of artifacts that are held in memory."""


class ArtifactSpool:
    """Bytes by artifact id, written once and read in any order, from several threads and forked processes too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, bytes] = {}
        self._size = 0
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._file: FileIO | None = None

    def add(self, artifact_id: str, data: bytes) -> bytes:
        """Add the bytes of an artifact, and return them; an id that is there already stays as it is.

        Raises `OtherIoError` (`file_failed`) when there is no room for a temporary file.
        """
        with self._lock:
            if artifact_id in self._held or artifact_id in self._places:
                return data
            if self._size + len(data) <= _IN_MEMORY:
                self._held[artifact_id] = data
                self._size += len(data)
                return data
            try:
                self._write(data)
            except OSError as exc:
                raise _no_room(exc) from exc
            self._places[artifact_id] = (self._end, len(data))
            self._end += len(data)
        return data

    def _write(self, data: bytes) -> None:
        """Write bytes at the end; without a buffer, so that a full disk is known here and nowhere later."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by the next line
            weakref.finalize(self, self._file.close)
        written = 0
        while written < len(data):
            written += os.pwrite(self._file.fileno(), memoryview(data)[written:], self._end + written)

    def get(self, artifact_id: str) -> bytes | None:
        """Return the bytes of an artifact, or None."""
        data = self._held.get(artifact_id)
        if data is not None:
            return data
        place = self._places.get(artifact_id)
        if place is None or self._file is None:
            return None
        begin, size = place
        # not by seeking: forked processes share the position of a file
        return os.pread(self._file.fileno(), size, begin)


def _no_room(exc: OSError) -> OtherIoError:
    # None: no folder can be written to
    folder = tempfile.tempdir or "any temporary folder"
    return OtherIoError(
        f"a large run needs room in {folder}: {exc.strerror}",
        code=Code.FILE_FAILED,
        details={"path": folder},
        hint="make room there, or set TMPDIR to a folder that has some",
    )


@attrs.frozen
class SpooledArtifacts(Mapping[str, tuple[str, bytes]]):
    """Kind and bytes of artifacts by id, in the order of their adding; the bytes are read at each look-up."""

    spool: ArtifactSpool
    kinds: dict[str, str] = attrs.field(factory=dict)

    def add(self, artifact: Artifact) -> None:
        """Add an artifact."""
        self.spool.add(artifact.id, artifact.data)
        self.kinds[artifact.id] = artifact.kind

    def artifact(self, artifact_id: str) -> Artifact:
        """Return an artifact. Raises `KeyError`."""
        return Artifact(artifact_id, *self[artifact_id])

    def __getitem__(self, artifact_id: str) -> tuple[str, bytes]:
        kind = self.kinds[artifact_id]
        data = self.spool.get(artifact_id)
        assert data is not None
        return kind, data

    def __contains__(self, artifact_id: object) -> bool:
        return artifact_id in self.kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)
