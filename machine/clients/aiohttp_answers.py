"""The answers that aiohttp makes of what was recorded, from a connection that leads nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from machine.clients.aiohttp_failures import exception_for
from machine.clients.any_loop import Stream
from machine.clients.nowhere import Nowhere
from machine.errors import IoError
from machine.io.http_message import usual_reason
from machine.io.volatile_answer_headers import lasting

_BUFFERED: Final = 2**16
_answering: Final[ContextVar[RecordedAnswer | None]] = ContextVar("machine_aiohttp_answer", default=None)


def answering() -> RecordedAnswer | None:
    """Return the answer that the request of this context gets in place of a connection, None if it is sent."""
    return _answering.get()


async def answer_from(
    request: aiohttp.ClientRequest,
    handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
    stream: Stream,
    drop: Callable[[], None],
) -> aiohttp.ClientResponse:
    """Return a recorded answer as aiohttp makes it. `drop` stops receiving it when the response is closed early."""
    answer = RecordedAnswer(stream, drop)
    token = _answering.set(answer)
    try:
        response = await handler(request)
    finally:
        _answering.reset(token)
    answer.gives_body_of(response, request)
    return response


class RecordedAnswer:
    """A recorded answer, in the place of aiohttp's connector for one request."""

    force_close = False  # what aiohttp asks of its connector

    def __init__(self, stream: Stream, drop: Callable[[], None]) -> None:
        self._stream = stream
        self._drop = drop

    def connection(self, request: aiohttp.ClientRequest) -> Connection:
        """Return a connection on which the head of the answer arrives, whatever is sent."""
        loop = asyncio.get_running_loop()
        continues = b"HTTP/1.1 100 Continue\r\n\r\n" if "expect" in request.headers else b""
        protocol = _Protocol(loop, continues + self._head())
        protocol.connection_made(Nowhere())
        return Connection(self, request.connection_key, protocol, loop)

    def gives_body_of(self, response: aiohttp.ClientResponse, request: aiohttp.ClientRequest) -> None:
        """Let the body of the response be read from the recording, piece by piece as it is asked for."""
        if response.content.at_eof():  # an answer that has none
            return
        connection = response.connection
        assert connection is not None
        assert connection.protocol is not None
        body = _Body(connection.protocol, self._stream, request)
        body.on_eof(response._response_eof)  # noqa: SLF001 - as the response does with the body that it replaces
        response.content = body
        close = response.wait_for_close

        async def wait_for_close() -> None:
            await close()
            await self._stream.aclose()

        response.wait_for_close = wait_for_close

    def _release(self, *args: Any, **options: Any) -> None:
        """Take the connection back, as a connector does."""
        del args, options
        if not self._stream.ended:
            self._drop()

    def _head(self) -> bytes:
        said, stream = self._stream.head, self._stream
        pairs = [(name, value) for name, value in said["headers"]]
        date = next((value for name, value in pairs if name == "date"), "")
        if stream.size is not None and stream.size > 0:
            framed = any(name == "transfer-encoding" for name, _ in pairs)
            pairs = [pair for pair in pairs if pair[0] != "content-length"]
            pairs += [] if framed else [("content-length", str(stream.size))]
        lines = [f"HTTP/1.1 {said['status']} {said.get('reason') or usual_reason(said['status'])}"]
        lines += [
            f"{name}: {lasting(value, date) if name == 'set-cookie' else value}" for name, value in pairs
        ]
        return "\r\n".join([*lines, "", ""]).encode()


class _Protocol(ResponseHandler):
    """The reading side of a connection on which one head arrives, at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, head: bytes) -> None:
        super().__init__(loop)
        self._recorded_head = head

    def set_response_params(self, **options: Any) -> None:
        """Begin to read."""
        super().set_response_params(**{**options, "read_timeout": None})
        self.data_received(self._recorded_head)


class _Body(aiohttp.StreamReader):
    """The body of an answer, of which a piece is obtained when the reader waits for one."""

    def __init__(self, protocol: Any, stream: Stream, request: aiohttp.ClientRequest) -> None:
        super().__init__(protocol, _BUFFERED, loop=asyncio.get_running_loop())
        self._pieces = stream
        self._request = request
        self._waiting = False

    async def wait_eof(self) -> None:
        """Wait until the body has ended."""
        while not self._eof:
            await self._wait("wait_eof")

    async def _wait(self, func_name: str) -> None:
        if self._waiting:
            raise RuntimeError(
                f"{func_name}() called while another coroutine is already waiting for incoming data"
            )
        self._waiting = True
        try:
            piece = await self._pieces.next()
        except IoError as error:
            raised = exception_for(error, self._request)
            self.set_exception(raised)
            raise raised from error
        finally:
            self._waiting = False
        if piece is None:
            self.feed_eof()
        else:
            self.feed_data(piece)
