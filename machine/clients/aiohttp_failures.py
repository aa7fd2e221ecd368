"""The failures of aiohttp's requests as recorded errors, and the exceptions that are made of them again."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError

from machine.clients.http_exchange import broken
from machine.errors import Code, IoError

_Make = Callable[[aiohttp.ClientRequest, Mapping[str, Any]], BaseException]


def failure_of(call: Mapping[str, Any], error: BaseException) -> IoError:
    """Return the recorded error for an exception of aiohttp, with what is needed to make it again."""
    if isinstance(error, IoError):
        return error
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _KINDS), "ClientError")
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    more: dict[str, Any] = {"text": str(error)}
    if isinstance(inner, OSError):
        more |= {"errno": inner.errno, "strerror": inner.strerror}
    if isinstance(inner, socket.gaierror):
        more["resolving"] = True
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        more["text"] = str(error.certificate_error)
    if isinstance(error, UnixClientConnectorError):
        more["path"] = error.path
    if isinstance(error, aiohttp.ClientResponseError):
        more |= {"status": error.status, "text": error.message}
    return broken(call, error, name, code=_code_of(error), **more)


def exception_for(error: IoError, request: aiohttp.ClientRequest) -> BaseException:
    """Return the exception of aiohttp for a recorded failure; what machine itself refused stays as it is."""
    details = error.info.details or {}
    if "exception" not in details:
        return error
    return _KINDS.get(str(details["exception"]), _plain(aiohttp.ClientError))(request, details)


def _code_of(error: BaseException) -> Code:
    match error:
        case TimeoutError():
            return Code.HTTP_TIMEOUT
        case aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch() | ssl.SSLError():
            return Code.HTTP_TLS
        case aiohttp.ClientConnectorError():
            return Code.HTTP_CONNECT
        case _:
            return Code.HTTP_PROTOCOL


def _plain(kind: type[BaseException]) -> _Make:
    """Make an exception from its text."""
    return lambda _, said: kind(str(said.get("text", "")))


def _os_error(said: Mapping[str, Any]) -> OSError:
    number, text = said.get("errno"), str(said.get("strerror") or said.get("text", ""))
    if not isinstance(number, int):
        return OSError(text)
    return socket.gaierror(number, text) if said.get("resolving") else OSError(number, text)


def _connecting(kind: type[aiohttp.ClientConnectorError]) -> _Make:
    """Make an exception of a connection that was not made."""
    return lambda request, said: kind(request.connection_key, _os_error(said))


def _answered(kind: type[aiohttp.ClientResponseError]) -> _Make:
    """Make an exception of an answer that cannot be used."""

    def make(request: aiohttp.ClientRequest, said: Mapping[str, Any]) -> BaseException:
        status = said.get("status")
        return kind(
            request.request_info,
            (),
            status=status if isinstance(status, int) else 0,
            message=str(said.get("text", "")),
        )

    return make


def _certificate(request: aiohttp.ClientRequest, said: Mapping[str, Any]) -> BaseException:
    reason = ssl.SSLCertVerificationError(str(said.get("text", "")))
    return aiohttp.ClientConnectorCertificateError(request.connection_key, reason)


def _disconnected(kind: type[aiohttp.ClientOSError]) -> _Make:
    """Make an exception of a connection that was lost."""

    def make(request: aiohttp.ClientRequest, said: Mapping[str, Any]) -> BaseException:
        del request
        number = said.get("errno")
        text = str(said.get("strerror") or said.get("text", ""))
        return kind(number, text) if isinstance(number, int) else kind(text)

    return make


def _unix_socket(request: aiohttp.ClientRequest, said: Mapping[str, Any]) -> BaseException:
    path = str(said.get("path", ""))
    return UnixClientConnectorError(path, request.connection_key, _os_error(said))


_KINDS: Final[Mapping[str, _Make]] = {
    "ClientError": _plain(aiohttp.ClientError),
    "ClientConnectionError": _plain(aiohttp.ClientConnectionError),
    "ClientConnectionResetError": _plain(aiohttp.ClientConnectionResetError),
    "ClientConnectorCertificateError": _certificate,
    "ClientConnectorDNSError": _connecting(aiohttp.ClientConnectorDNSError),
    "ClientConnectorError": _connecting(aiohttp.ClientConnectorError),
    "ClientConnectorSSLError": _connecting(aiohttp.ClientConnectorSSLError),
    "ClientHttpProxyError": _answered(aiohttp.ClientHttpProxyError),
    "ClientOSError": _disconnected(aiohttp.ClientOSError),
    "ClientPayloadError": _plain(aiohttp.ClientPayloadError),
    "ClientProxyConnectionError": _connecting(aiohttp.ClientProxyConnectionError),
    "ClientResponseError": _answered(aiohttp.ClientResponseError),
    "ConnectionTimeoutError": _plain(aiohttp.ConnectionTimeoutError),
    "ServerConnectionError": _plain(aiohttp.ServerConnectionError),
    "ServerDisconnectedError": _plain(aiohttp.ServerDisconnectedError),
    "ServerTimeoutError": _plain(aiohttp.ServerTimeoutError),
    "SocketTimeoutError": _plain(aiohttp.SocketTimeoutError),
    "TimeoutError": lambda *_: TimeoutError(),
    "UnixClientConnectorError": _unix_socket,
}
"""Functions that make the exceptions of aiohttp, by their names."""
