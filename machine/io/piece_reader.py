"""Streams as a handler uses them: of an HTTP answer and of a file, piece by piece or line by line.

In an `async def` use `async with` and `async for`, in a plain handler `with` and `for`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio.from_thread
import anyio.lowlevel

from machine.errors import UsageError
from machine.io.http_message import Headers, HttpResponse
from machine.io.streamed_answer import CallStream

T = TypeVar("T")


class PieceReader:
    """A stream that is opened by `async with` or `with`, and yields its pieces (bytes, none of them empty).

    Each piece is recorded before it is handed out. A piece is not a unit of its content: it has the size in which
    it came. Leaving the block closes the stream, which a replay repeats.
    """

    def __init__(self, opening: Callable[[], Coroutine[Any, Any, CallStream]]) -> None:
        self._opening = opening
        self._stream: CallStream | None = None
        self._loop = anyio.lowlevel.current_token()

    async def __aenter__(self) -> Self:
        self._opened(await self._opening())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open_stream().aclose()

    def __enter__(self) -> Self:
        self._opened(self._run(self._opening))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._open_stream().aclose)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._open_stream()
        while (piece := await stream.next()) is not None:
            yield piece

    def __iter__(self) -> Iterator[bytes]:
        stream = self._open_stream()
        while (piece := self._run(stream.next)) is not None:
            yield piece

    def lines(self) -> Lines:
        """Return an iterator of the lines of the text (UTF-8), without their ends; `async for` or `for`."""
        return Lines(self)

    def _opened(self, stream: CallStream) -> None:
        self._stream = stream

    def _open_stream(self) -> CallStream:
        if self._stream is None:
            raise UsageError("a stream is opened by a block: async with io.open_file(path) as file: ...")
        return self._stream

    def _run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return anyio.from_thread.run(function, token=self._loop)


class Lines:
    """The lines of a stream, each as soon as it is complete. A line ends with LF or CR LF."""

    def __init__(self, pieces: PieceReader) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[str]:
        splitter = _Splitter()
        async for piece in self._pieces:
            for line in splitter.feed(piece):
                yield line
        for line in splitter.rest():
            yield line

    def __iter__(self) -> Iterator[str]:
        splitter = _Splitter()
        for piece in self._pieces:
            yield from splitter.feed(piece)
        yield from splitter.rest()


class _Splitter:
    """The end of the text that is no complete line yet."""

    def __init__(self) -> None:
        self._left: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[str]:
        if b"\n" not in piece:
            self._left.append(piece)
            return
        *lines, last = b"".join((*self._left, piece)).split(b"\n")
        self._left = [last]
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")

    def rest(self) -> Iterator[str]:
        last = b"".join(self._left)
        if last:
            yield last.removesuffix(b"\r").decode("utf-8", "replace")


class FileStream(PieceReader):
    """A file that is read piece by piece; `path` is as it was given, `size` its length when it was opened."""

    path: str
    size: int

    def _opened(self, stream: CallStream) -> None:
        super()._opened(stream)
        self.path, self.size = stream.head["path"], stream.head["size"]


class HttpStream(PieceReader):
    """An HTTP answer whose body comes piece by piece, decompressed; `url` is that after redirects."""

    status: int
    url: str
    headers: Headers

    def _opened(self, stream: CallStream) -> None:
        super()._opened(stream)
        self._head = HttpResponse.from_json({**stream.head, "body": {"text": ""}})
        self.status, self.url, self.headers = self._head.status, self._head.url, self._head.headers

    def raise_for_status(self) -> Self:
        """Return this answer unless its status is an error, which is raised as by `HttpResponse`."""
        self._head.raise_for_status()
        return self
