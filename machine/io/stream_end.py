"""The recorded end of a stream: how many pieces it had, and whether the sender or the reader ended it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from machine.errors import Code, OtherIoError
from machine.io.request_fields import pack, unpack

_STREAM: Final = "stream"
_DATA: Final = "data"


def end_of(pieces: int, *, complete: bool) -> dict[str, Any]:
    """Return the answer that stands for the end of a stream."""
    return {_STREAM: {"complete": complete, "pieces": pieces}}


def pieces_of(answer: Any) -> int | None:
    """Return the number of pieces that the end of a stream tells; None of an answer that is none."""
    return answer[_STREAM]["pieces"] if _is_end(answer) else None


def is_complete(answer: Any) -> bool:
    """Say whether the sender ended the stream, and not its reader."""
    return bool(answer[_STREAM]["complete"])


def _is_end(answer: Any) -> bool:
    said = answer.get(_STREAM) if isinstance(answer, dict) and len(answer) == 1 else None
    return isinstance(said, dict) and type(said.get("pieces")) is int and type(said.get("complete")) is bool


def piece_of(data: bytes) -> dict[str, Any]:
    """Return the answer that stands for a piece."""
    return {_DATA: pack(data)}


def bytes_of(piece: Any) -> bytes:
    """Return the bytes of a recorded piece."""
    return unpack(piece[_DATA])


def whole_answer(head: dict[str, Any], pieces: Iterable[bytes]) -> dict[str, Any]:
    """Return the answer that a call which asks for no stream would have had."""
    parts = list(pieces)
    if "path" in head:  # a file
        return {"path": head["path"], "data": pack(b"".join(parts))}
    if "status" not in head:
        return {**head, "pieces": [pack(part) for part in parts]}
    return {**head, "body": pack(b"".join(parts)), "chunks": [len(part) for part in parts]}


def given_up(what: str) -> OtherIoError:
    """Return the error of a read from a stream of which a read was cancelled."""
    return OtherIoError(
        f"the stream of {what} ended when a read of it was cancelled", code=Code.STREAM_CLOSED
    )


def closed_before(what: str, pieces: int) -> OtherIoError:
    """Return the error of a read beyond the piece after which the stream was closed."""
    return OtherIoError(
        f"the stream of {what} was closed after {pieces} pieces, and there are no more",
        code=Code.STREAM_CLOSED,
        details={"pieces": pieces},
    )
