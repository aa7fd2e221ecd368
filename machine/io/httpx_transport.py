"""A transport for unmodified httpx clients: each request becomes a call of `http`, the answer its response.

It serves clients of httpx and of httpx2, its successor with the same interface, and is imported only when one is
requested. It must never reach the network: every request goes through `io.call`.
"""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import ModuleType
from typing import Any, Final, NoReturn, TypeAlias, TypedDict, Unpack

import anyio.from_thread
import anyio.lowlevel
import attrs
import httpx
from anyio.lowlevel import EventLoopToken

from machine.config import LONGEST_SECONDS
from machine.errors import Code, IoError, UsageError
from machine.ignore import NEEDED, Ignore
from machine.io.decompress import CODINGS
from machine.io.http_message import HttpResponse, checked_header, http_request
from machine.io.left_out_headers import LEFT_OUT, judged, patterns, says_more
from machine.io.redirect_secrets import Sensitive, by_name, origin_of, refused_redirect
from machine.io.request_identity import RequestRules
from machine.io.streamed_answer import CallStream
from machine.io.urls import public_url
from machine.io.volatile_answer_headers import lasting
from machine.secrets.multipart import settled
from machine.watch.unprofiled import unprofiled

_FAMILIES: Final = ("httpx", "httpx2")
_REDIRECTED: Final = "machine.redirected"
"""The extension of a request whose answer redirects; its library copies it to the next request."""

Run: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
"""A function that runs a call on the event loop, from the thread of a blocking client."""

_NO_BODY: Final = frozenset({204, 304})
_RAISED: Final = {
    Code.HTTP_TIMEOUT.value: "ReadTimeout",
    Code.HTTP_CONNECT.value: "ConnectError",
    Code.HTTP_TLS.value: "ConnectError",
    Code.HTTP_PROTOCOL.value: "RemoteProtocolError",
}
"""The exceptions of an HTTP library for failures that it does not describe more exactly."""


class Options(TypedDict, total=False):
    """The options for the requests of a client, all of them optional."""

    ignore: Ignore
    """The parts of requests that are sent and kept, and not compared, besides those of the plan."""
    without_headers: Iterable[str]
    """Deprecated: patterns of headers to ignore, as in `Ignore(headers=...)`."""
    with_headers: Iterable[str]
    """Patterns of headers that are sent and compared although `LEFT_OUT` or a default of `ignore` has them."""
    own_idempotency_key: bool
    """False if an `idempotency-key` that the library makes is left out, so that that of the state is sent; True
    unless given."""
    timeout: float
    """The maximum number of seconds for one request, whatever the client allows for its steps; 600 unless given."""
    max_body: int
    """The maximum number of bytes of a response body after decompression; 16 MiB unless given."""
    uds: str
    """The path of a Unix socket to connect to, as in the transports of httpx."""


@attrs.frozen
class _Redirected:
    """A redirected request, as the request that follows it needs it."""

    origin: tuple[str, str, int | None]
    url: str
    elsewhere: bool
    """True when an earlier redirect has led to another origin, which is then never undone."""


class HttpxTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """A transport for `httpx.AsyncClient`, and in handlers that are plain functions for `httpx.Client`.

    It belongs to the `io` that made it and works as long as that does.
    """

    def __init__(
        self,
        open_stream: Callable[[str, Any], Coroutine[Any, Any, CallStream]],
        sensitive: Callable[[dict[str, Any]], Sensitive] = by_name,
        /,
        *,
        settles: bool = False,
        loop: EventLoopToken | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Take the `open_stream` of an `io`, and a function that finds the parts of a request that hold a secret.

        `settles` is true in runs of request format 1, which sent a random boundary as it was recorded.
        `loop` is the event loop of the run, if this does not run on it.
        """
        self._open = open_stream
        self._sensitive = sensitive
        self._cookies_from_answers: set[str] = set()
        self._settles = settles
        left_out = LEFT_OUT if options.pop("own_idempotency_key", True) else (*LEFT_OUT, NEEDED)
        kept = patterns("with_headers", options.pop("with_headers", ()))
        self._judged = functools.lru_cache(maxsize=256)(functools.partial(judged, kept, left_out))
        self._timeout = options.pop("timeout", 600.0)
        self._max_body = options.pop("max_body", 16 * 1024 * 1024)
        self._unix_socket = options.pop("uds", None)
        if options:
            raise UsageError(f"io.httpx_transport() has no option {min(options)!r}")
        loop = loop or anyio.lowlevel.current_token()
        self._run: Run = functools.partial(anyio.from_thread.run, token=loop)
        self._thread = threading.get_ident()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of an asynchronous client."""
        if threading.get_ident() != self._thread:
            raise _misused("an asynchronous client runs on an event loop of its own", "Client")
        message = unprofiled(self._message, request, await request.aread())
        try:
            stream = await self._open("http", message)
        except IoError as error:
            raise_as(request, error)
        return unprofiled(self._answer, request, stream)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of a blocking client, from a thread other than the event loop's."""
        if threading.get_ident() == self._thread:
            raise _misused("a blocking client would stop the event loop that has to answer it", "AsyncClient")
        message = unprofiled(self._message, request, request.read())
        try:
            stream = self._run(functools.partial(self._open, "http", message))
        except IoError as error:
            raise_as(request, error)
        return unprofiled(self._answer, request, stream)

    def _message(self, request: httpx.Request, body: bytes) -> dict[str, Any]:
        """Return the recorded form of a request, the same for the same request in any process."""
        if request.url.scheme not in {"http", "https"}:
            raise _family(request).UnsupportedProtocol(
                f"the url must be http:// or https://, not {request.url.scheme or 'without a scheme'}",
                request=request,
            )
        headers = self._headers(request)
        if self._settles and "content-type" in headers:
            headers["content-type"], body = settled(headers["content-type"], body)
        given = request.extensions.get("timeout") or {}
        message = http_request(
            request.method,
            public_url(str(request.url)),  # clients send user and password as a header
            headers=headers,
            data=body or None,
            timeout=self._timeout,
            follow_redirects=False,  # clients follow redirects by themselves
            max_body=self._max_body,
            stream=True,  # a transport cannot know whether its caller wants the pieces
            timeouts={
                step: seconds
                for step, seconds in given.items()
                if seconds is not None and seconds <= LONGEST_SECONDS
            },
            unix_socket=self._unix_socket,
        )
        redirected = _redirected(request)
        if redirected is not None and redirected.elsewhere:
            self._leave_secrets(request, message, redirected)
        return message

    def _leave_secrets(self, request: Any, message: dict[str, Any], redirected: _Redirected) -> None:
        """Remove secrets from a redirected request; refuse the request if its body holds one.

        A cookie that an answer sets goes where the rules of cookies allow; the client's own cookies are not sent.
        """
        sensitive = self._sensitive(message)
        if sensitive.body:
            raise refused_redirect(request.method, redirected.url, message["url"])
        headers = message.get("headers", {})
        for name in sensitive.headers & headers.keys():
            value = headers.pop(name)
            del request.headers[name]  # the request of the response shows what was sent
            if name == "cookie":
                own = [pair for pair in _pairs(value) if pair in self._cookies_from_answers]
                if own:
                    headers[name] = request.headers[name] = "; ".join(own)
        if not headers:
            message.pop("headers", None)

    def _answer(self, request: Any, stream: CallStream, run: Run | None = None) -> httpx.Response:
        """Return a recorded answer as the response of the requesting library, and record its redirect."""
        response, answer = _response(request, stream, run or self._run), stream.head
        self._cookies_from_answers.update(
            pair
            for name, value in answer["headers"]
            if name.lower() == "set-cookie"
            for pair in _pairs(value)[:1]
        )
        if response.has_redirect_location:
            before = _redirected(request)
            request.extensions[_REDIRECTED] = _Redirected(
                origin_of(request.url), str(request.url), elsewhere=before is not None and before.elsewhere
            )
        return response

    def _headers(self, request: httpx.Request) -> dict[str, str]:
        sent: dict[str, str] = {}
        for raw_name, raw_value in request.headers.raw:
            name, is_sent = self._judged(raw_name)
            value = raw_value.decode("latin-1")
            if not (
                says_more(name, value, request.url.netloc.decode("ascii")) if is_sent is None else is_sent
            ):
                continue
            if name in sent:  # RFC 9110 section 5.3, and RFC 9113 section 8.2.3 for cookies
                value = f"{sent[name]}{'; ' if name == 'cookie' else ', '}{value}"
            sent[name] = checked_header(name, value)
        return sent


def transport_of(
    open_stream: Callable[[str, Any, RequestRules], Coroutine[Any, Any, CallStream]],
    sensitive: Callable[[dict[str, Any]], Sensitive],
    rules: RequestRules,
    options: Options,
) -> HttpxTransport:
    """Return a transport by the rules of a run, with options of its client."""
    own = _client_rules(rules, options)
    return HttpxTransport(
        lambda namespace, request: open_stream(namespace, request, own),
        sensitive,
        settles=not rules.by_default,
        **options,
    )


def _client_rules(rules: RequestRules, options: Options) -> RequestRules:
    """Return the rules of a client and take what only they need from its options.

    Raises `UsageError` for options of the wrong kind, and `invalid_ignore` for a header that is both ignored and
    compared.
    """
    ignore = options.pop("ignore", None)
    if ignore is not None and not isinstance(ignore, Ignore):
        raise UsageError(f"ignore must be an Ignore, not {ignore!r}")
    header_patterns: tuple[str, ...] = ()
    if "without_headers" in options:
        warnings.warn(
            "without_headers is now ignore=Ignore(headers=[...]), and what it names is sent; the old name goes "
            "with the next release",
            DeprecationWarning,
            stacklevel=4,
        )
        header_patterns = patterns("without_headers", options.pop("without_headers"))
        if NEEDED in header_patterns:
            options["own_idempotency_key"] = False
    compared = patterns("with_headers", options.get("with_headers", ()))
    return rules.with_client(ignore, header_patterns, compared)


def _redirected(request: Any) -> _Redirected | None:
    """Return the redirect that led to a request, or None."""
    before: _Redirected | None = request.extensions.get(_REDIRECTED)
    if before is None or before.elsewhere or before.origin == origin_of(request.url):
        return before
    return attrs.evolve(before, elsewhere=True)


def _pairs(cookies: str) -> list[str]:
    """Return each `name=value` of a cookie header; of a set-cookie header, the first is its cookie."""
    return ["=".join(part.strip() for part in pair.split("=", 1)) for pair in cookies.split(";")]


def _misused(problem: str, client: str) -> UsageError:
    hint = f"give it to {client}: AsyncClient is for handlers declared with async def, Client for plain ones"
    return UsageError(f"io.httpx_transport() cannot be used here: {problem}", hint=hint)


def _family(request: Any) -> Any:
    """Return the library that made a request."""
    for name in _FAMILIES:
        library = sys.modules.get(name)
        if library is not None and isinstance(request, library.Request):
            return library
    return httpx


@functools.cache
def _stream_of(library: ModuleType) -> Any:
    """Return the class of the streams that a library accepts from a transport."""

    class Pieces(library.AsyncByteStream, library.SyncByteStream):  # type: ignore[misc, name-defined]
        """A body, piece by piece."""

        def __init__(self, request: Any, stream: CallStream, run: Run) -> None:
            self._request = request
            self._stream = stream
            self._run = run

        def __iter__(self) -> Iterator[bytes]:
            while (piece := self._run(self._next)) is not None:
                yield piece

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while (piece := await self._next()) is not None:
                yield piece

        def close(self) -> None:
            if not self._stream.ended:
                self._run(self._stream.aclose)

        async def aclose(self) -> None:
            await self._stream.aclose()

        async def _next(self) -> bytes | None:
            try:
                return await self._stream.next()
            except IoError as error:
                raise_as(self._request, error)

    return Pieces


def _response(request: Any, stream: CallStream, run: Run) -> httpx.Response:
    """Return a recorded answer as the response of the requesting library."""
    library = _family(request)
    recorded = HttpResponse.from_json({**stream.head, "body": {"text": ""}})
    reason = recorded.said_reason
    said: list[tuple[str, str]] = []
    bodiless = request.method == "HEAD" or recorded.status in _NO_BODY
    for name, value in recorded.header_list:
        match name:
            case "content-encoding" if value.strip().lower() in CODINGS and stream.size != 0:
                continue  # the body was decoded already
            case "transfer-encoding":
                continue
            case "content-length" if not bodiless and stream.size is not None:
                said.append((name, str(stream.size)))
            case "set-cookie":
                said.append((name, lasting(value, recorded.headers.get("date", ""))))
            case _:
                said.append((name, value))
    response: httpx.Response = library.Response(
        recorded.status,
        headers=[(name.encode(), value.encode()) for name, value in said],
        stream=_stream_of(library)(request, stream, run),
        extensions={} if reason is None else {"reason_phrase": reason.encode("latin-1", "ignore")},
    )
    return response


def raise_as(request: Any, error: IoError) -> NoReturn:
    """Raise the exception that the library raises for the failure, so that its usual handling applies."""
    name = _RAISED.get(error.code)
    if name is None:  # refused by machine, which no library knows
        raise error
    library = _family(request)
    kind = getattr(library, str((error.info.details or {}).get("exception", name)), None)
    if not (isinstance(kind, type) and issubclass(kind, library.RequestError)):
        kind = getattr(library, name)
    raise kind(error.message, request=request) from error
