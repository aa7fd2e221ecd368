"""Answers that say they are short: read to the end at once, so that one fact holds them whole."""

from __future__ import annotations

from typing import Any

from machine.errors import IoError
from machine.io.stream_end import whole_answer
from machine.io.transport import Opened, PieceSource


async def short_or_opened(head: dict[str, Any], source: PieceSource) -> Any:
    """Return an answer with its body; in pieces if it breaks off, so that these are handed out before its error."""
    pieces: list[bytes] = []
    try:
        while (piece := await source.next()) is not None:
            pieces.append(piece)
    except IoError as error:
        return Opened(head, _BrokenOff(pieces, error))
    finally:
        await source.aclose()
    return whole_answer(head, pieces)


class _BrokenOff:
    """The pieces that came before an answer broke off, and its error."""

    def __init__(self, pieces: list[bytes], error: IoError) -> None:
        self._pieces = pieces
        self._error = error

    async def next(self) -> bytes | None:
        if self._pieces:
            return self._pieces.pop(0)
        raise self._error

    async def aclose(self) -> None:
        """Do nothing: the answer was closed when it broke off."""
