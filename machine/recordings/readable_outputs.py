"""The content of an output in the version of a bundle that people review: text as text, other bytes in base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from machine import canonical
from machine.errors import CodecError
from machine.events import Artifact, ArtifactKind
from machine.kernel.outputs import PIECE, pieces_of, spelled_list


def content_of(artifact_id: str, stored: str, load: Callable[[str], bytes]) -> dict[str, Any]:
    """Return the content of an output as JSON. Raises what `load` raises, and `CorruptionError`."""
    in_pieces = stored == ArtifactKind.OUTPUT_PIECES
    data = b"".join(pieces_of(artifact_id, load, in_pieces=in_pieces))
    try:
        value = canonical.decode(data)
        if canonical.encode(value) == data:
            return {"json": value}
    except CodecError:
        pass
    packed = base64.b64encode(data).decode()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": packed}
    # text of control characters is longer as JSON, and nobody reads it
    return (
        {"text": text} if len(canonical.encode(text)) <= len(packed) + 2 * len(text) else {"base64": packed}
    )


def artifacts_of(content: Any) -> tuple[str, list[Artifact]]:
    """Return how an output of this content is stored, and its artifacts. Raises `ValueError`."""
    data = _bytes_of(content)
    if len(data) <= PIECE:
        return ArtifactKind.OUTPUT, [_artifact(ArtifactKind.OUTPUT, data)]
    pieces = [
        _artifact(ArtifactKind.OUTPUT_PIECE, data[begin : begin + PIECE])
        for begin in range(0, len(data), PIECE)
    ]
    listed = spelled_list(len(data), [piece.id for piece in pieces])
    return ArtifactKind.OUTPUT_PIECES, [_artifact(ArtifactKind.OUTPUT_PIECES, listed), *pieces]


def _bytes_of(content: Any) -> bytes:
    match content:
        case {"json": value, **more} if not more:
            return canonical.encode(value)
        case {"text": str(text), **more} if not more:
            return text.encode()
        case {"base64": str(text), **more} if not more:
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error as exc:
                raise ValueError(f"the content of an artifact is no base64: {exc}") from None
    raise ValueError("the content of an artifact is one of json, text and base64")


def _artifact(kind: ArtifactKind, data: bytes) -> Artifact:
    return Artifact(canonical.artifact_id(data), kind, data)
