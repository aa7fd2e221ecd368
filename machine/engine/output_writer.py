"""The bytes of an output on their way into the store: whole, or piece by piece with bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from typing import Any, Final

from machine import canonical
from machine.errors import Code, StateError
from machine.events import ArtifactKind, DomainEventRecorded
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.kernel.outputs import LARGEST, OUTPUT_EVENT, PIECE, spelled_list

_OVERLAP: Final = 64 * 1024
"""The last bytes of what came before, in which a secret may have begun that goes on in the next piece."""


def comes_in_pieces(data: Any) -> bool:
    """Say whether data is a file, an iterator or an async iterator, and so no value of its own."""
    return hasattr(data, "read") or hasattr(data, "__next__") or isinstance(data, AsyncIterable)


def pieces_from(data: Any) -> Iterator[bytes]:
    """Yield the bytes of a file or of an iterator, text as UTF-8. Raises `StateError` for anything else in it."""
    if hasattr(data, "read"):
        while piece := data.read(PIECE):
            yield as_bytes(piece)
    else:
        for piece in data:
            yield as_bytes(piece)


def as_bytes(piece: Any) -> bytes:
    """Return a piece of an output as bytes. Raises `StateError` (`invalid_artifact`) unless it is text or bytes."""
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, bytes | bytearray | memoryview):
        return bytes(piece)
    raise StateError(
        f"a piece of an artifact must be bytes or text, not {type(piece).__name__}",
        code=Code.INVALID_ARTIFACT,
        hint="give a JSON value itself, not an iterator of values",
    )


class OutputWriter:
    """One output that is being written by an attempt. Nothing is in the log before `event` was emitted.

    Raises `StateError` (`artifact_too_large`) once there are more bytes than an output may have, and
    `secret_in_event` for bytes that hold a secret.
    """

    def __init__(self, scope: AttemptScope, name: str, kind: str) -> None:
        self.name = name
        self.artifact_id = ""
        self._scope = scope
        self._kind = kind
        self._held = bytearray()
        self._before = b""
        self._as_they_are = False
        self._size = 0
        self._ids: list[str] = []

    def value(self, data: Any) -> str:
        """Add a whole value, without the secrets in it, and return how it was given: as text, bytes or JSON."""
        secrets = self._scope.secrets
        if isinstance(data, str):
            self._grow(len(data))
            self._put(secrets.text(data).encode())
            return "text"
        if not isinstance(data, bytes | bytearray | memoryview):
            said = secrets.said(canonical.decode(canonical.encode(data)))
            self._put(canonical.encode(said))
            return "json"
        whole = bytes(data)
        self._grow(len(whole))
        try:
            text = whole.decode()
        except UnicodeDecodeError:
            self.feed(whole)
        else:
            said = secrets.text(text)
            self._put(whole if said == text else said.encode())
        return "bytes"

    def feed(self, data: bytes) -> None:
        """Add bytes that are not searched as a text: they may hold no secret."""
        self._as_they_are = True
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._grow(len(data))
        self._size += len(data)
        view = memoryview(data)
        while view:
            room = PIECE - len(self._held)
            self._held += view[:room]
            view = view[room:]
            if view:  # what is held is a whole piece, and not the last
                self._store_held()

    def _store_held(self) -> None:
        self._ids.append(self._scope.log.put(ArtifactKind.OUTPUT_PIECE, self._checked()))
        self._held.clear()

    def _checked(self) -> bytes:
        """Return what is held, looked through together with the end of what came before."""
        data = bytes(self._held)
        if self._as_they_are:
            looked_at = self._before + data
            self._scope.secrets.refuse_in_bytes(f"artifact {self.name!r}", looked_at)
            self._before = looked_at[-_OVERLAP:]
        return data

    def _grow(self, by: int) -> None:
        if self._size + by > LARGEST:
            raise StateError(
                f"artifact {self.name!r} is too large: an artifact may have {LARGEST} bytes",
                code=Code.ARTIFACT_TOO_LARGE,
                details={"name": self.name, "limit": LARGEST},
                hint="store it elsewhere and record where, or divide it into several",
            )

    def event(self, form: str, payloads: Payloads) -> DomainEventRecorded:
        """Return the event of the output, and add the artifact that it names to `payloads`."""
        if self._ids:
            self._store_held()
            stored, data = ArtifactKind.OUTPUT_PIECES, spelled_list(self._size, self._ids)
        else:
            stored, data = ArtifactKind.OUTPUT, self._checked()
        self.artifact_id = payloads.add(stored, data)
        payload = {
            "artifact_id": self.artifact_id,
            "kind": self._kind,
            "meta": {"bytes": self._size, "form": form, "name": self.name},
        }
        scope = self._scope
        return DomainEventRecorded(
            OUTPUT_EVENT, scope.state.id, scope.attempt, payload=payload, artifact_kind=stored
        )
