"""The bodies of urllib3: of a request as bytes, of an answer as a source of pieces and as a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

from machine.errors import IoError
from machine.io.client_calls import BlockingStream

_PIECE: Final = 64 * 1024


class AnswerFile(io.RawIOBase):
    """The body of an answer as a file."""

    def __init__(self, stream: BlockingStream, failed: Callable[[IoError], NoReturn]) -> None:
        self._stream = stream
        self._failed = failed
        self._rest = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, amount: int | None = -1) -> bytes:
        """Return so many bytes, fewer at the end; all of them without a number."""
        if amount is None or amount < 0:
            parts = [self._rest]
            while piece := self._next():
                parts.append(piece)
            self._rest = b""
            return b"".join(parts)
        while len(self._rest) < amount and (piece := self._next()):
            self._rest += piece
        found, self._rest = self._rest[:amount], self._rest[amount:]
        return found

    def read1(self, amount: int | None = -1) -> bytes:
        """Return what is there, at least one byte unless the body has ended."""
        self._rest = self._rest or self._next()
        most = len(self._rest) if amount is None or amount < 0 else amount
        found, self._rest = self._rest[:most], self._rest[most:]
        return found

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer what is there, and return its size."""
        found = self.read1(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def isclosed(self) -> bool:
        """Say whether there is nothing more to read."""
        return self.closed or (self._stream.ended and not self._rest)

    def close(self) -> None:
        """Stop reading."""
        if not self.closed:
            self._stream.close()
        super().close()

    def _next(self) -> bytes:
        try:
            return self._stream.next() or b""
        except IoError as error:
            self._failed(error)


def reader_of(response: Any) -> Callable[[], bytes]:
    """Return a function that returns the next bytes of an answer as they were sent, none at the end."""
    if response.chunked and response.supports_chunked_reads():
        chunks = response.read_chunked(decode_content=False)
        return lambda: next(chunks, b"")
    return lambda: response.read1(_PIECE)


def body_of(body: Any) -> bytes | None:
    """Return the body of a request as bytes; one that is read or iterated is read to its end."""
    if body is None or isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8")
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    read = getattr(body, "read", None)
    if read is not None:
        return _bytes(read())
    return b"".join(_bytes(part) for part in body) if isinstance(body, Iterable) else bytes(body)


def _bytes(part: Any) -> bytes:
    return part.encode("utf-8") if isinstance(part, str) else bytes(part)
