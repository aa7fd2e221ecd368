"""Clients of aiohttp (3.13 and later): each request of a session is a call of `http`, made by aiohttp itself.

A request of aiohttp passes its middlewares; the innermost is ours. Live it lets aiohttp send the request. Live and
in a replay aiohttp then reads the recorded head from a connection that leads nowhere, so the answer is its own,
with its cookies, redirects and exceptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Final, NoReturn, TypeAlias
from weakref import WeakKeyDictionary

import aiohttp
import attrs
from aiohttp import compression_utils
from aiohttp.helpers import sentinel
from yarl import URL

from machine.clients.aiohttp_answers import answer_from, answering
from machine.clients.aiohttp_failures import exception_for, failure_of
from machine.clients.any_loop import stream_on_any_loop
from machine.clients.http_exchange import AnswerBody, added_headers, answer_head, recorded_request
from machine.clients.recording import all_of, keep_recording, recorded_by, recorder, replaced
from machine.clients.short_answers import short_or_opened
from machine.errors import IoError, UsageError
from machine.io.client_calls import ClientCalls
from machine.io.redirect_secrets import refused_redirect
from machine.io.transport import Opened
from machine.watch.watch import unguarded

Handler: TypeAlias = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]

_SHORT: Final = 64 * 1024
"""The most bytes of a body that is not handed out in pieces, if the answer says how many it has."""

_BODILESS: Final = frozenset({204, 304})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DECODED: Final = frozenset({"gzip", "deflate", "br"}) | (
    {"zstd"} if hasattr(compression_utils, "ZSTDDecompressor") else frozenset()
)
"""The codings that this version of aiohttp decodes, or refuses."""

_sessions: Final[WeakKeyDictionary[aiohttp.ClientSession, ClientCalls]] = WeakKeyDictionary()


def patch() -> Callable[[], None]:
    """Record the requests of sessions; return the function that undoes it."""
    return all_of(
        [
            replaced(aiohttp.ClientSession, "_request", _recording),
            replaced(aiohttp.BaseConnector, "connect", _connecting),
            replaced(aiohttp.MultipartWriter, "__init__", _drawing),
        ]
    )


def session(io: ClientCalls, options: Mapping[str, Any]) -> aiohttp.ClientSession:
    """Return a session all of whose requests an `io` records; `options` are those of `aiohttp.ClientSession`."""
    keep_recording("aiohttp")
    made = aiohttp.ClientSession(**options)
    _sessions[made] = io
    return made


def _recorder_of(session: aiohttp.ClientSession) -> ClientCalls | None:
    own = _sessions.get(session)
    with nullcontext() if own is None else recorded_by(own):
        return recorder("aiohttp")


def _recording(original: Callable[..., Any]) -> Callable[..., Any]:
    async def request(
        session: aiohttp.ClientSession, method: str, url: Any, **options: Any
    ) -> aiohttp.ClientResponse:
        io = _recorder_of(session)
        if io is None:
            answer: aiohttp.ClientResponse = await original(session, method, url, **options)
            return answer
        timeout = options.get("timeout", session.timeout)
        if not isinstance(timeout, aiohttp.ClientTimeout):
            timeout = session.timeout if timeout is sentinel else aiohttp.ClientTimeout(total=timeout)
        given = options.get("middlewares")
        own = getattr(session, "_middlewares", ()) if given is None else given
        decodes = options.get("auto_decompress")
        recorded = _Recorded(
            io,
            decodes=session.auto_decompress if decodes is None else decodes,
            deadline=asyncio.get_running_loop().time() + timeout.total if timeout.total else None,
        )
        # its own timer would interrupt the handler and not the call: `_Recorded.deadline` takes its place
        options["timeout"] = attrs.evolve(timeout, total=None)
        options["middlewares"] = (*own, recorded)
        found: aiohttp.ClientResponse = await original(session, method, url, **options)
        return found

    return request


def _connecting(original: Callable[..., Any]) -> Callable[..., Any]:
    async def connect(
        connector: aiohttp.BaseConnector, request: aiohttp.ClientRequest, *args: Any, **options: Any
    ) -> Any:
        answer = answering()
        return (
            await original(connector, request, *args, **options)
            if answer is None
            else answer.connection(request)
        )

    return connect


def _drawing(original: Callable[..., Any]) -> Callable[..., Any]:
    def init(writer: aiohttp.MultipartWriter, *args: Any, **options: Any) -> None:
        with unguarded():  # it draws a boundary, which is not compared
            original(writer, *args, **options)

    return init


@attrs.define
class _Recorded:
    """The innermost middleware of one request and of the requests that it is redirected to."""

    io: ClientCalls
    decodes: bool
    deadline: float | None
    """The time of the event loop at which a call that is made fails."""
    _redirected: tuple[str, tuple[str, str, int | None]] | None = None
    _elsewhere: bool = False

    async def __call__(self, request: aiohttp.ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
        """Make the request or look it up, and return the answer as aiohttp makes it."""
        if "upgrade" in request.headers:
            raise UsageError(
                f"aiohttp asks {request.url.host} for another protocol, and no such connection of it is recorded",
                hint="use the package websockets, whose connections are",
            )
        body = await _body_of(request)
        message = recorded_request(request.method, str(request.url), request.headers.items(), body, {})
        self._leave_secrets(request, message)
        call = _Call(self, request, handler)
        try:
            stream = await stream_on_any_loop(self.io, "http", message, call.open)
        except IoError as error:
            raise exception_for(error, request) from error
        answer = await answer_from(request, handler, stream, call.drop)
        self._redirected = (str(request.url), _origin(request.url)) if answer.status in _REDIRECTS else None
        return answer

    def _leave_secrets(self, request: aiohttp.ClientRequest, message: dict[str, Any]) -> None:
        """Remove secrets from a request that was redirected to another origin; refuse it if its body holds one."""
        if self._redirected is None:
            return
        url, origin = self._redirected
        self._elsewhere = self._elsewhere or origin != _origin(request.url)
        if not self._elsewhere:
            return
        sensitive = self.io.sensitive(message)
        if sensitive.body:
            raise refused_redirect(request.method, url, message["url"])
        headers = message.get("headers", {})
        for name in sensitive.headers & headers.keys() - {"cookie"}:  # cookies go where their own rules allow
            del headers[name]
            request.headers.popall(name, None)
        if not headers:
            message.pop("headers", None)


@attrs.define
class _Call:
    """One request that aiohttp sends, and its answer."""

    recorded: _Recorded
    request: aiohttp.ClientRequest
    handler: Handler
    _answer: aiohttp.ClientResponse | None = None

    async def open(self, message: Mapping[str, Any]) -> Any:
        """Send the request, and return its answer in pieces, unless it says that it is short."""
        request = self.request
        headers = request.headers
        added = added_headers(message, headers)
        headers.update(added)
        try:
            self._answer = answer = await self._in_time(self.handler(request))
        except Exception as error:
            raise failure_of(message, error) from error
        finally:
            for name in added:
                headers.popall(name, None)
        head = self._head(answer)
        body = AnswerBody(self._read, self._close, partial(_failed, message), ())
        return await short_or_opened(head, body) if self._is_short(answer) else Opened(head, body)

    def drop(self) -> None:
        """Stop receiving at once."""
        if self._answer is not None:
            self._answer.close()

    async def _in_time(self, work: Awaitable[Any]) -> Any:
        async with asyncio.timeout_at(self.recorded.deadline):
            return await work

    async def _read(self) -> bytes:
        assert self._answer is not None
        piece: bytes = await self._in_time(self._answer.content.readany())
        return piece

    async def _close(self) -> None:
        self.drop()

    def _head(self, answer: aiohttp.ClientResponse) -> dict[str, Any]:
        headers = [(_text(name), _text(value)) for name, value in answer.raw_headers]
        coding = answer.headers.get("content-encoding", "").lower()
        if self.recorded.decodes and self._has_body(answer) and coding in _DECODED:
            headers = [
                pair for pair in headers if pair[0].lower() not in {"content-encoding", "content-length"}
            ]
        return answer_head(answer.status, str(self.request.url), headers, answer.reason, decoded=False)

    def _has_body(self, answer: aiohttp.ClientResponse) -> bool:
        return self.request.method != "HEAD" and answer.status not in _BODILESS

    def _is_short(self, answer: aiohttp.ClientResponse) -> bool:
        length = answer.content_length
        return not self._has_body(answer) or (length is not None and length <= _SHORT)


def _failed(message: Mapping[str, Any], error: BaseException) -> NoReturn:
    raise failure_of(message, error) from error


async def _body_of(request: aiohttp.ClientRequest) -> bytes:
    """Return the body of a request, which then can be sent more than once."""
    body = request.body
    if not body:
        return b""
    content = body if isinstance(body, bytes) else await body.as_bytes()
    await request.update_body(content)
    return content


def _origin(url: URL) -> tuple[str, str, int | None]:
    return url.scheme, (url.host or "").lower(), url.port


def _text(raw: bytes) -> str:
    """Return the octets of a header as text: UTF-8, the present custom, else Latin-1, the older one."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
