"""Values of a context, as a node of a snapshot holds them: inline, as an artifact, or in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from blake3 import blake3

from machine import canonical
from machine.events import Artifact, ArtifactKind
from machine.kernel.value_chunks import Chunks, chunked, joined

INLINE_MAX: Final = 128
"""The largest number of canonical bytes of a value within a node; a larger one is an artifact of its own."""

INLINE: Final = b'{"value":%b}'
"""The spelling of such a value in its node."""

REFERRED: Final = b'{"ref":"%b"}'
"""The spelling of the id of a value's artifact in a node."""

_IN_CHUNKS: Final = b'{"chunks":"'


class Value(NamedTuple):
    """Canonical bytes or, until they are needed, the id of their artifact, and `held`, the spelling in a node.

    `chunks` are known of a value in chunks that was made here, and not of one that was only read.
    """

    data: bytes | None
    ref: str | None
    held: bytes
    chunks: Chunks | None = None

    def equals(self, other: Value | None) -> bool:
        """Say whether two values are equal, without loading either."""
        return other is not None and self.held == other.held

    @staticmethod
    def of(data: bytes) -> Value:
        """Return the value with these canonical bytes, in one piece."""
        if len(data) <= INLINE_MAX:
            return Value.inline(data)
        ref = blake3(data).hexdigest()
        return Value(data, ref, REFERRED % ref.encode())

    @staticmethod
    def inline(data: bytes) -> Value:
        """Return the value of an inline entry of a node."""
        return Value(data, None, INLINE % data)

    @staticmethod
    def at(ref: str) -> Value:
        """Return the value that is stored as an artifact of its own, without its bytes."""
        return Value(None, ref, REFERRED % ref.encode())

    @staticmethod
    def in_chunks(data: bytes, before: Value | None) -> Value:
        """Return the value with these canonical bytes, in chunks; `before` is what it may have grown from."""
        known = None
        if before is not None and before.data is not None and before.chunks is not None:
            known = before.data, before.chunks
        chunks = chunked(data, known)
        return Value.listed(canonical.artifact_id(chunks.listed))._replace(data=data, chunks=chunks)

    @staticmethod
    def listed(list_id: str) -> Value:
        """Return the value whose list of chunks has an id, without its bytes."""
        return Value(None, list_id, b'%b%b"}' % (_IN_CHUNKS, list_id.encode()))

    @property
    def kind(self) -> ArtifactKind:
        """The kind of the artifact `ref`: the value itself, or the list of its chunks."""
        return ArtifactKind.CONTEXT_CHUNKS if self.held.startswith(_IN_CHUNKS) else ArtifactKind.CONTEXT_VALUE

    def unloaded(self) -> Value:
        """Return the value without its bytes, which can be loaded again; an inline value stays as it is."""
        return self if self.ref is None else self._replace(data=None, chunks=None)

    def loaded(self, load: Callable[[str], bytes]) -> bytes:
        """Return the canonical bytes.

        Raises what `load` raises, and `CorruptionError` for a wrong list of chunks.
        """
        if self.data is not None or self.ref is None:
            return self.data or b""
        return joined(self.ref, load) if self.kind is ArtifactKind.CONTEXT_CHUNKS else load(self.ref)

    def artifacts(self, before: Value | None) -> Iterator[Artifact]:
        """Yield the artifacts of a value that was made here, without the chunks that `before` has too."""
        if self.ref is None or self.data is None:
            return
        if self.chunks is None:
            yield Artifact(self.ref, ArtifactKind.CONTEXT_VALUE, self.data)
            return
        yield Artifact(self.ref, ArtifactKind.CONTEXT_CHUNKS, self.chunks.listed)
        stored = set() if before is None or before.chunks is None else {*before.chunks.ids}
        for chunk_id, (begin, end) in zip(self.chunks.ids, self.chunks.places, strict=True):
            if chunk_id not in stored:
                yield Artifact(chunk_id, ArtifactKind.CONTEXT_CHUNK, self.data[begin:end])
