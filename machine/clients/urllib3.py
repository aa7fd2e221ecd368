"""Clients of urllib3 (version 2), and of whatever is built on it: requests, botocore and most others.

Each request that a connection pool makes is a call of `http`, made by urllib3 itself. A replay connects nothing:
the pool receives the recorded answer or failure, so that retries, redirects and exceptions are those of urllib3.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn

import urllib3
from urllib3 import exceptions
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from machine.clients.http_exchange import (
    AnswerBody,
    added_headers,
    answer_head,
    answered,
    broken,
    led_elsewhere,
    recorded_request,
    secrets_left_behind,
)
from machine.clients.recording import all_of, recorder, replaced
from machine.clients.urllib3_bodies import AnswerFile, body_of, reader_of
from machine.errors import Code, IoError
from machine.io.client_calls import BlockingStream, ClientCalls
from machine.io.volatile_answer_headers import lasting
from machine.io.waiting_thread import in_caller

NAMES: Final = ("urllib3", "requests", "boto3")
"""The libraries whose requests a connection pool of urllib3 makes."""

_BODILESS: Final = frozenset({204, 304})

_CODES: Final[Mapping[str, Code]] = {
    "NameResolutionError": Code.HTTP_CONNECT,
    "NewConnectionError": Code.HTTP_CONNECT,
    "ProxyError": Code.HTTP_CONNECT,
    "ConnectTimeoutError": Code.HTTP_TIMEOUT,
    "ReadTimeoutError": Code.HTTP_TIMEOUT,
    "SSLError": Code.HTTP_TLS,
}
"""The codes of failures by the names of their exceptions; of any other it is `http_protocol`."""


def patch() -> Callable[[], None]:
    """Record the requests of connection pools; return the function that undoes it."""
    return all_of(
        [
            replaced(HTTPConnectionPool, "_make_request", _recording),
            replaced(HTTPSConnectionPool, "_prepare_proxy", _connecting_later),
        ]
    )


def _recording(original: Callable[..., Any]) -> Callable[..., Any]:
    def make_request(pool: Any, conn: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        io = recorder(*NAMES)
        if io is None:
            return original(pool, conn, method, url, *args, **options)
        make = partial(original, pool, conn, method, url, *args)
        return _Exchange(io, pool, conn, target=(method, url), how=(make, options)).made()

    return make_request


def _connecting_later(original: Callable[..., Any]) -> Callable[..., Any]:
    def prepare_proxy(pool: Any, conn: Any) -> None:
        if recorder(*NAMES) is None:
            original(pool, conn)
        else:
            conn.machine_tunnel = partial(original, pool, conn)  # if the call is made, and not looked up

    return prepare_proxy


class _Exchange:
    """One request of a connection pool, and its answer."""

    def __init__(
        self,
        io: ClientCalls,
        pool: Any,
        conn: Any,
        *,
        target: tuple[str, str],
        how: tuple[Callable[..., Any], dict[str, Any]],
    ) -> None:
        """Take the method and path of the request, and the function of urllib3 that makes it with its options."""
        self._io, self._pool, self._conn = io, pool, conn
        self._make, self._options = how
        self._method, self._target = target
        given = self._options.get("headers")
        headers = pool.headers if given is None else given
        self._headers = [(_text(name), _text(value)) for name, value in headers.items()]
        accepted = [value for name, value in self._headers if name.lower() == "accept-encoding"]
        self._decodes = "gzip" in ",".join(
            accepted
        )  # otherwise the bytes of the resource itself are requested
        self._body = body_of(self._options.get("body"))
        absolute = "://" in self._target.partition("?")[0]
        self._url = self._target if absolute else f"{pool.scheme}://{_location(pool)}{self._target}"

    def made(self) -> Any:
        """Make the request or look it up, and return the answer as urllib3 does."""
        timeout = self._pool._get_timeout(self._options.get("timeout"))  # noqa: SLF001 - as its own caller does
        with suppress(exceptions.TimeoutStateError):
            timeout = timeout.clone()
        timeouts = {"connect": _seconds(timeout.connect_timeout), "read": _seconds(timeout._read)}  # noqa: SLF001 - the part that was given
        request = recorded_request(self._method, self._url, self._headers, self._body, timeouts)
        if (before := self._redirected_from()) is not None:
            left = secrets_left_behind(self._io, request, before)
            self._headers = [(name, value) for name, value in self._headers if name.lower() not in left]
            self._options["headers"] = urllib3.HTTPHeaderDict(self._headers)
        try:
            stream = self._io.client_stream_blocking("http", request, self._open)
        except IoError as error:
            self._raise(error)
        return self._answer(stream)

    def _redirected_from(self) -> str | None:
        """Return the URL from which urllib3 has followed a redirect to another origin, None if it has not."""
        for past in getattr(self._options.get("retries"), "history", ()):
            if past.url and past.redirect_location and led_elsewhere(past.url, past.redirect_location):
                return str(past.url)
        return None

    async def _open(self, request: Mapping[str, Any]) -> Any:
        response = await in_caller(self._sent, request)
        headers = list(response.headers.items())
        codings = [value for name, value in headers if name.lower() == "content-encoding"]
        has_body = self._method.upper() != "HEAD" and response.status not in _BODILESS
        head = answer_head(
            response.status, self._url, headers, response.reason, decoded=self._decodes and has_body
        )
        read = partial(in_caller, reader_of(response))
        close = partial(in_caller, response.close)
        undone = codings if self._decodes else ()
        body = AnswerBody(read, close, partial(self._failed, request, codings=codings), undone)
        return await answered(head, body, response.headers.get("content-length", "") if has_body else "0")

    def _sent(self, request: Mapping[str, Any]) -> Any:
        options = {**self._options, "body": self._body, "preload_content": False, "decode_content": False}
        if added := added_headers(request, (name for name, _ in self._headers)):
            options["headers"] = urllib3.HTTPHeaderDict([*self._headers, *added.items()])
        try:
            if (tunnel := vars(self._conn).pop("machine_tunnel", None)) is not None:
                tunnel()
            return self._make(**options)
        except Exception as error:  # noqa: BLE001 - whatever urllib3 raises for a request that fails
            self._failed(request, error)

    def _failed(
        self, request: Mapping[str, Any], error: BaseException, codings: Iterable[str] = ()
    ) -> NoReturn:
        name = type(error).__name__
        if isinstance(error, ssl.SSLError):
            name = "SSLError"
        elif isinstance(error, socket.timeout):
            name = "ReadTimeoutError"
        code = _CODES.get(name, Code.HTTP_PROTOCOL)
        text = str(getattr(error, "_message", error))
        more: dict[str, Any] = {}
        cut = next((arg for arg in error.args if isinstance(arg, http.client.IncompleteRead)), None)
        if isinstance(error, zlib.error):
            name, more["codings"] = "DecodeError", ", ".join(codings)
        elif cut is not None and isinstance(cut.expected, int):
            came = cut.partial if isinstance(cut.partial, int) else len(cut.partial)
            name, more["came"], more["expected"] = "IncompleteRead", came, cut.expected
        raise broken(request, error, name, code=code, text=text, **more) from error

    def _raise(self, error: IoError) -> NoReturn:
        """Raise the exception of urllib3 for a recorded failure; what machine itself refused stays as it is."""
        details = error.info.details or {}
        name, text = details.get("exception"), str(details.get("text", error.message))
        pool, conn = self._pool, self._conn
        made: Exception
        match name:
            case None:
                raise error
            case "NameResolutionError":
                made = exceptions.NameResolutionError(pool.host, conn, socket.gaierror(text))
            case "NewConnectionError":
                made = exceptions.NewConnectionError(conn, text)
            case "ConnectTimeoutError":
                made = exceptions.ConnectTimeoutError(conn, text)
            case "ReadTimeoutError":
                made = exceptions.ReadTimeoutError(pool, self._target, text)
            case "IncompleteRead":
                cut = exceptions.IncompleteRead(int(str(details["came"])), int(str(details["expected"])))
                made = exceptions.ProtocolError(f"Connection broken: {cut!r}", cut)
            case "DecodeError":
                problem = (
                    f"Received response with content-encoding: {details['codings']}, but failed to decode it."
                )
                made = exceptions.DecodeError(problem, zlib.error(text))
            case str() if name in _OF_A_TEXT:
                made = _OF_A_TEXT[name](text)
            case _:
                made = exceptions.ProtocolError("Connection broken", text)
        raise made from error

    def _answer(self, stream: BlockingStream) -> Any:
        said = stream.head
        date = next((value for name, value in said["headers"] if name == "date"), "")
        headers = urllib3.HTTPHeaderDict()
        message = http.client.HTTPMessage()
        for name, value in said["headers"]:
            if name == "transfer-encoding":
                continue
            shown = lasting(value, date) if name == "set-cookie" else value
            headers.add(name, shown)
            message.add_header(name, shown)
        body = AnswerFile(stream, self._raise)
        options = self._options
        return urllib3.HTTPResponse(
            body=body,
            headers=headers,
            status=said["status"],
            version=11,
            version_string="HTTP/1.1",
            reason=said.get("reason") or http.client.responses.get(said["status"], ""),
            preload_content=options.get("preload_content", True),
            decode_content=options.get("decode_content", True),
            original_response=_Original(message, body),
            pool=self._pool,
            connection=None if self._io.performs else options.get("response_conn"),
            retries=options.get("retries"),
            enforce_content_length=False,
            request_method=self._method,
            request_url=self._target,
        )


class _Original:
    """The message of the standard library from which cookies are read."""

    def __init__(self, message: http.client.HTTPMessage, body: AnswerFile) -> None:
        self.msg = message
        self._body = body

    def isclosed(self) -> bool:
        return self._body.isclosed()

    def close(self) -> None:
        self._body.close()


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _seconds(value: Any) -> float | None:
    return value if isinstance(value, int | float) else None


def _location(pool: Any) -> str:
    host = f"[{pool.host}]" if ":" in pool.host else pool.host
    usual = {"http": 80, "https": 443}.get(pool.scheme)
    return host if pool.port in {None, usual} else f"{host}:{pool.port}"


_OF_A_TEXT: Final[Mapping[str, Callable[[str], Exception]]] = {
    "ProxyError": lambda text: exceptions.ProxyError(text, OSError(text)),
    "SSLError": exceptions.SSLError,
    "ConnectionResetError": ConnectionResetError,
    "ConnectionAbortedError": ConnectionAbortedError,
    "BrokenPipeError": BrokenPipeError,
    "RemoteDisconnected": http.client.RemoteDisconnected,
    "BadStatusLine": http.client.BadStatusLine,
}
"""The exceptions that a pool gets from what it calls and that need nothing but a text."""
