"""Blocking connections of websockets: each message that is received or sent is a call of `websocket`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import attrs
from websockets import exceptions
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.sync.client import ClientConnection, reconnect

from machine.clients import websockets_link as link_module
from machine.clients.recording import recorder, replaced
from machine.clients.websockets_link import LOST, NAMESPACE, Link
from machine.errors import IoError
from machine.watch.watch import unguarded


@attrs.frozen
class _Wire:
    """A recorded connection, and the other end of its socket, which is in this process."""

    link: Link
    end: socket.socket


class _Answering(socket.socket):
    """The socket of a recorded connection: what is sent first is answered with a head, all else with nothing."""

    def __init__(self, number: int, end: socket.socket, head: bytes) -> None:
        super().__init__(fileno=number)
        self._head: bytes | None = head
        self._end = end

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send nothing."""
        del data, flags
        if self._head is not None:
            head, self._head = self._head, None
            self._end.sendall(head)


_wires: Final[WeakKeyDictionary[Any, _Wire]] = WeakKeyDictionary()


def patches() -> list[Callable[[], None]]:
    """Record what connections receive and send; return the functions that undo it."""
    return [
        replaced(reconnect, "open_connection", _opening),
        replaced(ClientConnection, "recv", _receiving),
        replaced(ClientConnection, "recv_streaming", _receiving_parts),
        replaced(ClientConnection, "send", _sending),
        replaced(ClientConnection, "ping", _pinging),
        replaced(ClientConnection, "close", _closing),
        replaced(ClientConnection, "wait_closed", _waiting),
    ]


def _opening(original: Callable[..., Any]) -> Callable[..., Any]:
    def open_connection(opening: reconnect, deadline: Any) -> Any:
        io = recorder("websockets")
        if io is None:
            return original(opening, deadline)
        link = Link.of(io, opening.uri, reads=False)
        given: dict[str, Any] = opening.protocol_kwargs
        options: dict[str, Any] = {**opening.connection_kwargs, "ping_interval": None}  # nobody would answer
        protocol = ClientProtocol(opening.ws_uri, **given)

        def send(request: Any) -> Any:
            del request
            try:
                real = original(opening, deadline)
            except exceptions.InvalidStatus as error:
                return link_module.refused(error)
            except (OSError, exceptions.WebSocketException) as error:
                raise link_module.failure(link.url, error) from error
            real.start_keepalive()
            real.pending_legacy_warning = False  # the handler's own connection warns
            return link.opened(real)

        request = link.opening(protocol, opening.additional_headers)
        try:
            answer = io.client_call_blocking(NAMESPACE, request, send)
        except IoError as error:
            raise link_module.exception_for(error) from error
        with unguarded():
            end, own = socket.socketpair()
            head = link_module.head_of(answer, protocol.key)
            made = opening.create_connection(_Answering(own.detach(), end, head), protocol, **options)
        try:
            made.handshake(opening.additional_headers, opening.user_agent_header)
        except BaseException:
            end.close()
            made.recv_events_thread.join()
            raise
        _wires[made] = _Wire(link, end)
        link.begin()
        return made

    return open_connection


def _call(
    made: ClientConnection, wire: _Wire, request: dict[str, Any], send: Callable[[], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Make a call for a connection, and let it know if that was closed."""
    link = wire.link

    def performed(sent: Any) -> Mapping[str, Any]:
        del sent
        if link.lost:
            return LOST
        try:
            return send()
        except exceptions.ConnectionClosed:
            return link.answer(**link_module.end_of(link.real))

    answer: Mapping[str, Any] = link.io.client_call_blocking(NAMESPACE, request, performed)
    if "closed" in answer and made.state is not State.CLOSED:
        with made.protocol_mutex:
            link_module.put_end(made.protocol, answer)
        wire.end.close()
        made.recv_events_thread.join()
        _drop(link)
    return answer


def _drop(link: Link) -> None:
    """Leave the real connection, which the recording has closed or the handler has left."""
    link.end()
    if link.real is not None and link.real.state is not State.CLOSED:
        link.real.close_socket()
        link.real.recv_events_thread.join()


def _wire_of(made: ClientConnection) -> _Wire | None:
    return None if made.state is State.CLOSED else _wires.get(made)


def _received(made: ClientConnection, wire: _Wire, timeout: float | None = None) -> None:
    """Put the next message into a connection. Raises `TimeoutError` if none came in time."""
    link = wire.link

    def send() -> Mapping[str, Any]:
        try:
            return link.answer(**link_module.message_of(link.real.recv(timeout)))
        except TimeoutError as error:
            return link.answer(late=str(error))

    answer = _call(made, wire, link.receiving(), send)
    if "late" in answer:
        raise TimeoutError(answer["late"])
    if "closed" not in answer:
        wire.end.sendall(link_module.frame_of(answer))


def _receiving(original: Callable[..., Any]) -> Callable[..., Any]:
    def recv(made: ClientConnection, timeout: float | None = None, decode: bool | None = None) -> Any:
        wire = _wire_of(made)
        if wire is None:
            return original(made, timeout, decode)
        _received(made, wire, timeout)
        return original(made, None, decode)

    return recv


def _receiving_parts(original: Callable[..., Any]) -> Callable[..., Any]:
    def recv_streaming(made: ClientConnection, *args: Any, **options: Any) -> Iterator[Any]:
        if (wire := _wire_of(made)) is not None:
            _received(made, wire)
        yield from original(made, *args, **options)

    return recv_streaming


def _sending(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(made: ClientConnection, message: Any, *, text: bool | None = None) -> None:
        wire = _wire_of(made)
        if wire is None:
            original(made, message, text=text)
            return
        link = wire.link
        parts = hasattr(message, "__iter__") and not isinstance(
            message, str | bytes | bytearray | memoryview | Mapping
        )
        whole = list(message) if parts else message

        def sent() -> Mapping[str, Any]:
            original(link.real, whole, text=text)
            link.performed += 1
            return {"again": True} if link.reads else {}

        answer = _call(made, wire, link.sending(whole, text=text), sent)
        if "closed" in answer:
            original(made, whole, text=text)  # raises what it raises
        link.sent += 1

    return send


def _pinging(original: Callable[..., Any]) -> Callable[..., Any]:
    def ping(made: ClientConnection, *args: Any, **options: Any) -> Any:
        wire = _wire_of(made)
        if wire is None:
            return original(made, *args, **options)
        link = wire.link

        def sent() -> Mapping[str, Any]:
            original(link.real, *args, **options).wait()
            return link.answer(latency=link.real.latency)

        answer = _call(made, wire, link.pinging(), sent)
        if "closed" in answer:
            return original(made, *args, **options)  # raises what it raises
        made.latency = answer["latency"]
        pong = threading.Event()
        pong.set()
        return pong

    return ping


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    def close(made: ClientConnection, code: int = 1000, reason: str = "") -> None:
        wire = _wire_of(made)
        if wire is None:
            original(made, code, reason)
            return
        link = wire.link

        def sent() -> Mapping[str, Any]:
            original(link.real, code, reason)
            return link.answer(**link_module.end_of(link.real))

        try:
            _call(made, wire, link.closing(code, reason), sent)
        finally:
            _drop(link)

    return close


def _waiting(original: Callable[..., Any]) -> Callable[..., Any]:
    def wait_closed(made: ClientConnection, timeout: float | None = None) -> bool:
        wire = _wire_of(made)
        if wire is None:
            closed: bool = original(made, timeout)
            return closed
        link = wire.link

        def waited() -> Mapping[str, Any]:
            closed = original(link.real, timeout)
            return link.answer(**link_module.end_of(link.real)) if closed else link.answer(open=True)

        return "closed" in _call(made, wire, link.waiting(), waited)

    return wait_closed
