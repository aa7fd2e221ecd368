"""Clients of httpx, and of httpx2, its successor with the same interface, that other code makes.

The library's own transports send. What is recorded and handed out is as with `io.httpx_transport()`.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, cast
from weakref import WeakKeyDictionary

from machine.clients.any_loop import stream_on_any_loop
from machine.clients.http_exchange import AnswerBody, added_headers, answer_head, answered, broken
from machine.clients.patch_on_import import on_import
from machine.clients.recording import all_of, recorder, replaced
from machine.errors import Code, IoError
from machine.io.client_calls import ClientCalls
from machine.io.httpx_transport import HttpxTransport, raise_as
from machine.io.waiting_thread import in_caller
from machine.watch.unprofiled import unprofiled

if TYPE_CHECKING:
    from machine.io.streamed_answer import CallStream

_BODILESS = frozenset({204, 304})


def patch() -> Callable[[], None]:
    """Record what the transports of both libraries send, once these are imported; return what undoes it."""
    return all_of(on_import(name, _patched) for name in ("httpx", "httpx2"))


def _patched(library: ModuleType) -> list[Callable[[], None]]:
    return [
        replaced(library.AsyncHTTPTransport, "handle_async_request", _awaited),
        replaced(library.HTTPTransport, "handle_request", _blocking),
    ]


def _awaited(original: Callable[..., Any]) -> Callable[..., Any]:
    async def handle_async_request(transport: Any, request: Any) -> Any:
        io = recorder("httpx")
        if io is None:
            return await original(transport, request)
        return await _of(io, transport).record(request, partial(original, transport))

    return handle_async_request


def _blocking(original: Callable[..., Any]) -> Callable[..., Any]:
    def handle_request(transport: Any, request: Any) -> Any:
        io = recorder("httpx")
        if io is None:
            return original(transport, request)
        return _of(io, transport).record_blocking(request, partial(original, transport))

    return handle_request


class RecordedTransport(HttpxTransport):
    """The recording of one transport of a client by one `io`."""

    def __init__(self, io: ClientCalls) -> None:
        rules = io.scope.run.requests
        opening = partial(io.open_client_stream, rules=rules)
        super().__init__(opening, io.sensitive, settles=not rules.by_default, loop=io.scope.run.loop)
        self.io = io

    async def record(self, request: Any, send: Callable[[Any], Any]) -> Any:
        """Answer a request that `send` sends, if it is not recorded yet."""
        message = unprofiled(self._message, request, await request.aread())
        try:
            stream = await stream_on_any_loop(self.io, "http", message, partial(_opened, request, send))
        except IoError as error:
            raise_as(request, error)
        return unprofiled(self._answer, request, cast("CallStream", stream))  # it has what is used of one

    def record_blocking(self, request: Any, send: Callable[[Any], Any]) -> Any:
        """Answer a request as `record` does, in any thread."""
        message = unprofiled(self._message, request, request.read())
        try:
            stream = self.io.client_stream_blocking("http", message, partial(_opened_blocking, request, send))
        except IoError as error:
            raise_as(request, error)
        return unprofiled(self._answer, request, stream.stream, stream.run)


_made: WeakKeyDictionary[Any, RecordedTransport] = WeakKeyDictionary()
"""The last recording of each transport, which remembers redirects and cookies."""


def _of(io: ClientCalls, transport: Any) -> RecordedTransport:
    made = _made.get(transport)
    if made is None or made.io is not io:
        made = _made[transport] = RecordedTransport(io)
    return made


async def _opened(request: Any, send: Callable[[Any], Any], call: Mapping[str, Any]) -> Any:
    failed = partial(_failed, call)
    try:
        with _added_key(request, call):
            response = await send(request)
    except Exception as error:  # noqa: BLE001 - whatever the library raises for a request that fails
        failed(error)
    pieces: AsyncIterator[bytes] = aiter(response.stream)
    codings = _codings(request, response)
    body = AnswerBody(partial(anext, pieces, None), response.aclose, failed, codings)
    return await _answer(request, response, body, decoded=bool(codings))


async def _opened_blocking(request: Any, send: Callable[[Any], Any], call: Mapping[str, Any]) -> Any:
    failed = partial(_failed, call)
    try:
        with _added_key(request, call):
            response = await in_caller(send, request)
    except Exception as error:  # noqa: BLE001 - the same
        failed(error)
    read = partial(in_caller, next, iter(response.stream), None)
    codings = _codings(request, response)
    body = AnswerBody(read, partial(in_caller, response.close), failed, codings)
    return await _answer(request, response, body, decoded=bool(codings))


async def _answer(request: Any, response: Any, body: AnswerBody, *, decoded: bool) -> Any:
    said = response.extensions.get("reason_phrase")
    reason = said.decode("latin-1") if isinstance(said, bytes) else None
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
    head = answer_head(response.status_code, str(request.url), pairs, reason, decoded=decoded)
    length = ", ".join(value for name, value in pairs if name.lower() == "content-length")
    return await answered(head, body, length if _has_body(request, response) else "0")


def _codings(request: Any, response: Any) -> list[str]:
    """Return the codings of a body that are undone: none where the bytes of the resource itself are requested."""
    if not _has_body(request, response) or "gzip" not in request.headers.get("accept-encoding", ""):
        return []
    codings: list[str] = response.headers.get_list("content-encoding")
    return codings


def _has_body(request: Any, response: Any) -> bool:
    return request.method != "HEAD" and response.status_code not in _BODILESS


@contextmanager
def _added_key(request: Any, call: Mapping[str, Any]) -> Iterator[None]:
    """Send a request with the idempotency key of its effect, which a redirected request does not copy from it."""
    added = added_headers(call, request.headers)
    if not added:  # httpx would read all of its headers anew
        yield
        return
    request.headers.update(added)
    try:
        yield
    finally:
        for name in added:
            del request.headers[name]


def _failed(call: Mapping[str, Any], error: BaseException) -> NoReturn:
    names = {kind.__name__ for kind in type(error).__mro__}
    code = Code.HTTP_PROTOCOL
    if "TimeoutException" in names:
        code = Code.HTTP_TIMEOUT
    elif names & {"ConnectError", "ProxyError"}:
        code = Code.HTTP_CONNECT
    name = "DecodingError" if isinstance(error, zlib.error) else type(error).__name__
    raise broken(call, error, name, code=code) from error
