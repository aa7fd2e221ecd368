"""One recorded WebSocket connection: the calls that are made for it, and what is recorded of them.

The connection that the handler has leads nowhere: what was recorded is put into it. Another one is the real one.
"""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final
from weakref import WeakKeyDictionary

import attrs
from websockets import exceptions
from websockets.datastructures import Headers
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.utils import accept_key

from machine.errors import Code, IoError, TransportError
from machine.io.client_calls import ClientCalls
from machine.io.request_fields import pack, unpack
from machine.io.urls import public_url
from machine.secrets.header_names import HEADERS

NAMESPACE: Final = "websocket"
SWITCHING: Final = 101

_numbers: Final[WeakKeyDictionary[ClientCalls, Counter[str]]] = WeakKeyDictionary()
"""The number of connections that each attempt has opened, by URL."""


@attrs.define(eq=False, weakref_slot=True)
class Link:
    """A recorded connection; `real` is the one that leads to the server, if calls are made."""

    io: ClientCalls
    url: str
    reads: bool
    """True if sending a message to this server changes nothing."""
    number: int = 0
    real: Any = None
    received: int = 0
    sent: int = 0
    """The number of messages that were sent, in this attempt or an earlier one."""
    performed: int = 0
    """The number of messages that were sent on the real connection."""

    @classmethod
    def of(cls, io: ClientCalls, url: str, *, reads: bool) -> Link:
        """Return the link of a new connection."""
        counts = _numbers.setdefault(io, Counter())
        counts[url] += 1
        patterns = io.clients.get("websockets", {}).get("reads", ())
        reads = reads or any(fnmatchcase(url, pattern) for pattern in patterns)
        return cls(io, public_url(url), reads, counts[url])

    def opening(self, protocol: Any, headers: Any) -> dict[str, Any]:
        """Return the request that opens the connection."""
        request = self._request("connect")
        given = [] if headers is None else list(Headers(headers).raw_items())
        shown = [[name.lower(), value] for name, value in given if name.lower() not in HEADERS]
        if shown:
            request["headers"] = shown
        if protocol.available_subprotocols:
            request["subprotocols"] = list(protocol.available_subprotocols)
        if protocol.origin is not None:
            request["origin"] = protocol.origin
        return request

    def receiving(self) -> dict[str, Any]:
        """Return the request for the next message."""
        self.received += 1
        return {**self._request("receive"), "message": self.received}

    def sending(self, message: Any, *, text: bool | None) -> dict[str, Any]:
        """Return the request that sends a message. Raises `TypeError` for what is none."""
        parts = [_encoded(part) for part in message] if isinstance(message, list) else _encoded(message)
        request = {**self._request("send"), "message": self.sent + 1, "content": parts}
        if text is not None:
            request["text"] = text
        return request if self.reads else {**request, "effect": True}

    def closing(self, code: int, reason: str) -> dict[str, Any]:
        """Return the request that closes the connection."""
        return {**self._request("close"), "code": code, "reason": reason}

    def pinging(self) -> dict[str, Any]:
        """Return the request for a ping and its pong."""
        return self._request("ping")

    def waiting(self) -> dict[str, Any]:
        """Return the request that waits until the connection is closed."""
        return self._request("wait")

    def answer(self, **said: Any) -> dict[str, Any]:
        """Return an answer. A later attempt makes the call again, unless a message was sent as an effect before."""
        return said if self.sent and not self.reads else {**said, "again": True}

    def opened(self, real: Any) -> dict[str, Any]:
        """Return the answer of a server that accepted the connection."""
        self.real = real
        return {**_response(real.response), "again": True}

    def begin(self) -> None:
        """Note that the handler has the connection: it cannot be put away before it has closed it."""
        self.io.open_sessions.add(self)

    def end(self) -> None:
        """Note that the connection is closed."""
        self.io.open_sessions.discard(self)

    @property
    def lost(self) -> bool:
        """True if a message was sent on the connection of an earlier attempt, which ended with its process."""
        return self.performed < self.sent

    def _request(self, does: str) -> dict[str, Any]:
        return {"do": does, "url": self.url, "connection": self.number}


def refused(error: exceptions.InvalidStatus) -> dict[str, Any]:
    """Return the answer of a server that refused the connection."""
    return {**_response(error.response), "again": True}


def failure(url: str, error: Exception) -> IoError:
    """Return the recorded error for an exception of a connection that was not opened."""
    code = Code.HTTP_CONNECT
    if isinstance(error, TimeoutError):
        code = Code.HTTP_TIMEOUT
    elif isinstance(error, ssl.SSLError):
        code = Code.HTTP_TLS
    elif not isinstance(error, OSError):
        code = Code.HTTP_PROTOCOL
    details: dict[str, Any] = {"exception": type(error).__name__, "text": str(error), "url": url}
    if isinstance(error, OSError) and error.errno is not None:
        details |= {"errno": error.errno, "strerror": error.strerror or ""}
    return TransportError(
        f"the WebSocket {url} was not opened: {error}", code=code, retryable=True, details=details
    )


def exception_for(error: IoError) -> BaseException:
    """Return the exception for a recorded failure; what machine itself refused stays as it is."""
    details = error.info.details or {}
    if "exception" not in details:
        return error
    name, text, number = details["exception"], str(details["text"]), details.get("errno")
    if name == "gaierror" and isinstance(number, int):
        return socket.gaierror(number, str(details["strerror"]))
    if name in _FROM_TEXT:
        return _FROM_TEXT[name](text)
    if isinstance(number, int):
        return OSError(number, str(details["strerror"]))
    return exceptions.InvalidHandshake(text)


_FROM_TEXT: Final[Mapping[Any, Callable[[str], BaseException]]] = {
    "InvalidMessage": exceptions.InvalidMessage,
    "InvalidProxyMessage": exceptions.InvalidProxyMessage,
    "OSError": OSError,
    "ProxyError": exceptions.ProxyError,
    "SSLCertVerificationError": ssl.SSLCertVerificationError,
    "SSLError": ssl.SSLError,
    "TimeoutError": TimeoutError,
}
"""Exceptions that are made of their text."""


def head_of(answer: Mapping[str, Any], key: str) -> bytes:
    """Return a recorded answer to the handshake as it is received, for a connection with this key."""
    headers, body = Headers(), unpack(answer["body"])
    for name, value in answer["headers"]:
        if name in {"transfer-encoding", "content-length"}:
            continue
        headers[name] = accept_key(key) if name == "sec-websocket-accept" else value
    if answer["status"] != SWITCHING:
        headers["content-length"] = str(len(body))
    return Response(answer["status"], answer["reason"], headers, body).serialize()


def frame_of(answer: Mapping[str, Any]) -> bytes:
    """Return a recorded message as it is received."""
    text = answer.get("text")
    frame = (
        Frame(Opcode.BINARY, unpack(answer["binary"])) if text is None else Frame(Opcode.TEXT, text.encode())
    )
    return frame.serialize(mask=False)


def message_of(data: str | bytes) -> dict[str, Any]:
    """Return a received message as it is recorded."""
    return {"text": data} if isinstance(data, str) else {"binary": pack(data)}


def end_of(real: Any) -> dict[str, Any]:
    """Return how a connection was closed: what each side said, and whether the other side said it first."""
    protocol = real.protocol
    said = {"received": protocol.close_rcvd, "sent": protocol.close_sent}
    return {
        "closed": {
            **{name: None if end is None else [int(end.code), end.reason] for name, end in said.items()},
            "received_first": protocol.close_rcvd_then_sent,
        }
    }


LOST: Final[Mapping[str, Any]] = {
    "closed": {"received": None, "sent": None, "received_first": None},
    "again": True,
}
"""The answer of a connection that was lost together with the process that had it."""


def put_end(protocol: Any, answer: Mapping[str, Any]) -> None:
    """Let a protocol know how its connection was closed."""
    said = answer["closed"]
    protocol.close_rcvd = None if said["received"] is None else Close(*said["received"])
    protocol.close_sent = None if said["sent"] is None else Close(*said["sent"])
    protocol.close_rcvd_then_sent = said["received_first"]


def _response(response: Any) -> dict[str, Any]:
    headers = [[name.lower(), value] for name, value in response.headers.raw_items()]
    body = pack(bytes(response.body or b""))
    return {
        "status": response.status_code,
        "reason": response.reason_phrase,
        "headers": headers,
        "body": body,
    }


def _encoded(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if isinstance(part, bytes | bytearray | memoryview):
        return {"binary": pack(bytes(part))}
    raise TypeError("data must be str, bytes, bytearray, or memoryview")
