"""Asynchronous connections of websockets: each message that is received or sent is a call of `websocket`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from websockets import exceptions
from websockets.asyncio.client import ClientConnection, connect
from websockets.protocol import State

from machine.clients import websockets_link as link_module
from machine.clients.any_loop import call_on_any_loop
from machine.clients.nowhere import Nowhere
from machine.clients.recording import recorder, replaced
from machine.clients.websockets_link import LOST, NAMESPACE, Link
from machine.errors import IoError
from machine.io.client_calls import ClientCalls

owners: Final[WeakKeyDictionary[Any, tuple[ClientCalls, bool]]] = WeakKeyDictionary()
"""The `io` that records what a `connect` opens, and whether its messages only read, where it was made for one."""

_links: Final[WeakKeyDictionary[Any, Link]] = WeakKeyDictionary()
_openings: Final[WeakKeyDictionary[Any, tuple[Any, Callable[[], Awaitable[Any]], float | None]]] = (
    WeakKeyDictionary()
)


def patches() -> list[Callable[[], None]]:
    """Record what connections receive and send; return the functions that undo it."""
    return [
        replaced(connect, "connect", _connecting),
        replaced(connect, "open_tcp_connection", _opening),
        replaced(ClientConnection, "handshake", _handshaking),
        replaced(ClientConnection, "recv", _receiving),
        replaced(ClientConnection, "recv_streaming", _receiving_parts),
        replaced(ClientConnection, "send", _sending),
        replaced(ClientConnection, "ping", _pinging),
        replaced(ClientConnection, "close", _closing),
        replaced(ClientConnection, "wait_closed", _waiting),
    ]


def _recorder_of(opening: connect) -> tuple[ClientCalls | None, bool]:
    return owners.get(opening) or (recorder("websockets"), False)


def _connecting(original: Callable[..., Any]) -> Callable[..., Any]:
    async def connecting(opening: connect) -> Any:
        if _recorder_of(opening)[0] is None:
            return await original(opening)
        timeout, opening.open_timeout = opening.open_timeout, None  # it limits the call, not the handler
        try:
            _timeouts[opening] = timeout
            return await original(opening)
        finally:
            opening.open_timeout = timeout

    return connecting


_timeouts: Final[WeakKeyDictionary[Any, float | None]] = WeakKeyDictionary()


def _opening(original: Callable[..., Any]) -> Callable[..., Any]:
    async def open_tcp_connection(opening: connect) -> Any:
        io, reads = _recorder_of(opening)
        if io is None or opening not in _timeouts:
            return await original(opening)
        made = opening.factory(opening.ws_uri)
        made.connection_made(Nowhere())
        made.ping_interval = None  # nobody would answer
        _links[made] = Link.of(io, opening.uri, reads=reads)
        _openings[made] = opening, partial(original, opening), _timeouts[opening]
        return made

    return open_tcp_connection


def _handshaking(original: Callable[..., Any]) -> Callable[..., Any]:
    async def handshake(made: ClientConnection, headers: Any = None, *args: Any, **options: Any) -> None:
        link = _links.get(made)
        if link is None:
            await original(made, headers, *args, **options)
            return
        _, open_real, timeout = _openings.pop(made)

        async def send(request: Any) -> Any:
            del request
            try:
                async with asyncio.timeout(timeout):
                    real = await open_real()
                    try:
                        await original(real, headers, *args, **options)
                    except BaseException:
                        real.transport.abort()
                        raise
            except exceptions.InvalidStatus as error:
                return link_module.refused(error)
            except (OSError, exceptions.WebSocketException) as error:
                raise link_module.failure(link.url, error) from error
            real.start_keepalive()
            return link.opened(real)

        try:
            answer = await call_on_any_loop(link.io, NAMESPACE, link.opening(made.protocol, headers), send)
        except IoError as error:
            raise link_module.exception_for(error) from error
        head = link_module.head_of(answer, made.protocol.key)
        asyncio.get_running_loop().call_soon(made.data_received, head)
        await original(made, headers, *args, **options)
        link.begin()

    return handshake


async def _call(
    made: ClientConnection,
    link: Link,
    request: dict[str, Any],
    send: Callable[[], Awaitable[Mapping[str, Any]]],
) -> Mapping[str, Any]:
    """Make a call for a connection, and let it know if that was closed."""

    async def performed(sent: Any) -> Mapping[str, Any]:
        del sent
        if link.lost:
            return LOST
        try:
            return await send()
        except exceptions.ConnectionClosed:
            return link.answer(**link_module.end_of(link.real))

    answer: Mapping[str, Any] = await call_on_any_loop(link.io, NAMESPACE, request, performed)
    if "closed" in answer and made.state is not State.CLOSED:
        link_module.put_end(made.protocol, answer)
        made.connection_lost(None)
        _drop(link)
    return answer


def _drop(link: Link) -> None:
    """Leave the real connection, which the recording has closed or the handler has left."""
    link.end()
    if link.real is not None and link.real.state is not State.CLOSED:
        link.real.transport.abort()


def _is_recorded(made: ClientConnection) -> Link | None:
    return None if made.state is State.CLOSED else _links.get(made)


async def _received(made: ClientConnection, link: Link) -> None:
    """Put the next message into a connection."""

    async def send() -> Mapping[str, Any]:
        return link.answer(**link_module.message_of(await link.real.recv()))

    answer = await _call(made, link, link.receiving(), send)
    if "closed" not in answer:
        made.data_received(link_module.frame_of(answer))


def _receiving(original: Callable[..., Any]) -> Callable[..., Any]:
    async def recv(made: ClientConnection, *args: Any, **options: Any) -> Any:
        if (link := _is_recorded(made)) is not None:
            await _received(made, link)
        return await original(made, *args, **options)

    return recv


def _receiving_parts(original: Callable[..., Any]) -> Callable[..., Any]:
    async def recv_streaming(made: ClientConnection, *args: Any, **options: Any) -> AsyncIterator[Any]:
        if (link := _is_recorded(made)) is not None:
            await _received(made, link)
        async for part in original(made, *args, **options):
            yield part

    return recv_streaming


def _sending(original: Callable[..., Any]) -> Callable[..., Any]:
    async def send(made: ClientConnection, message: Any, *, text: bool | None = None) -> None:
        link = _is_recorded(made)
        if link is None:
            await original(made, message, text=text)
            return
        whole = await _whole(message)

        async def sent() -> Mapping[str, Any]:
            await original(link.real, whole, text=text)
            link.performed += 1
            return {"again": True} if link.reads else {}

        answer = await _call(made, link, link.sending(whole, text=text), sent)
        if "closed" in answer:
            await original(made, whole, text=text)  # raises what it raises
        link.sent += 1

    return send


def _pinging(original: Callable[..., Any]) -> Callable[..., Any]:
    async def ping(made: ClientConnection, *args: Any, **options: Any) -> Any:
        link = _is_recorded(made)
        if link is None:
            return await original(made, *args, **options)

        async def sent() -> Mapping[str, Any]:
            waiter = await original(link.real, *args, **options)
            return link.answer(latency=await waiter)

        answer = await _call(made, link, link.pinging(), sent)
        if "closed" in answer:
            return await original(made, *args, **options)  # raises what it raises
        pong = asyncio.get_running_loop().create_future()
        pong.set_result(answer["latency"])
        return pong

    return ping


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    async def close(made: ClientConnection, code: int = 1000, reason: str = "") -> None:
        link = _is_recorded(made)
        if link is None:
            await original(made, code, reason)
            return

        async def sent() -> Mapping[str, Any]:
            await original(link.real, code, reason)
            return link.answer(**link_module.end_of(link.real))

        try:
            await _call(made, link, link.closing(code, reason), sent)
        finally:
            _drop(link)

    return close


def _waiting(original: Callable[..., Any]) -> Callable[..., Any]:
    async def wait_closed(made: ClientConnection) -> None:
        link = _is_recorded(made)
        if link is None:
            await original(made)
            return

        async def waited() -> Mapping[str, Any]:
            await original(link.real)
            return link.answer(**link_module.end_of(link.real))

        await _call(made, link, link.waiting(), waited)

    return wait_closed


async def _whole(message: Any) -> Any:
    """Return a message that was given in parts as a list of them."""
    if isinstance(message, str | bytes | bytearray | memoryview | Mapping):
        return message
    if hasattr(message, "__aiter__"):
        return [part async for part in message]
    return list(message) if hasattr(message, "__iter__") else message
