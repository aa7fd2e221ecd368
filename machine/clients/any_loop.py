"""Recorded calls of asynchronous clients on any event loop: the one of the run, or one that a plain handler runs.

A call is recorded on the loop of the run. What a library does for it stays on the loop where its client is used.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

import attrs
from anyio import from_thread

from machine.io.client_calls import ClientCalls
from machine.io.streamed_answer import CallStream
from machine.io.transport import Opened, PieceSource

T = TypeVar("T")


class Stream(Protocol):
    """An answer in pieces, as `CallStream` describes it."""

    @property
    def head(self) -> dict[str, Any]:
        """The answer without its pieces."""
        ...

    @property
    def size(self) -> int | None:
        """The number of bytes of all pieces, None as long as it is not known."""
        ...

    @property
    def ended(self) -> bool:
        """True once the answer was read to its end or closed."""
        ...

    async def next(self) -> bytes | None:
        """Return the next piece, None at the end."""
        ...

    async def aclose(self) -> None:
        """Stop reading."""
        ...


async def stream_on_any_loop(
    io: ClientCalls, namespace: str, request: Any, open_answer: Callable[[Any], Awaitable[Any]]
) -> Stream:
    """Record a call as `io.client_stream` does; `open_answer` and its pieces work on the loop of the caller."""
    if io.stops_the_loop():
        return await io.client_stream(namespace, request, open_answer)
    here = _Loop(asyncio.get_running_loop())

    async def opened(sent: Any) -> Any:
        answer = await here.run(partial(open_answer, sent))
        return Opened(answer.head, _Source(here, answer.source)) if isinstance(answer, Opened) else answer

    call = partial(io.client_stream, namespace, request, opened)
    return _StreamElsewhere(io, await _on_the_run(io, call))


async def call_on_any_loop(
    io: ClientCalls, namespace: str, request: Any, send: Callable[[Any], Awaitable[Any]]
) -> Any:
    """Record a call as `io.client_call` does; `send` works on the loop of the caller."""
    if io.stops_the_loop():
        return await io.client_call(namespace, request, send)
    here = _Loop(asyncio.get_running_loop())

    def sending(sent: Any) -> Awaitable[Any]:
        return here.run(partial(send, sent))

    return await _on_the_run(io, partial(io.client_call, namespace, request, sending))


async def _on_the_run(io: ClientCalls, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on the loop of the run, which is cancelled there if it is cancelled here."""
    made: Future[asyncio.Task[T]] = Future()
    ended: Future[None] = Future()

    def begin() -> None:
        task = asyncio.get_running_loop().create_task(call())
        task.add_done_callback(lambda _: ended.set_result(None))
        made.set_result(task)

    token = io.scope.run.loop
    from_thread.run_sync(contextvars.copy_context().run, begin, token=token)
    task = made.result()
    here = asyncio.wrap_future(ended)
    try:
        await asyncio.shield(here)
    except asyncio.CancelledError:
        from_thread.run_sync(task.cancel, token=token)
        await _settled(here)  # that it was given up is recorded before the handler goes on
        raise
    if task.cancelled():
        raise asyncio.CancelledError
    return task.result()


async def _settled(done: asyncio.Future[None]) -> None:
    while not done.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(done)


@attrs.frozen
class _Loop:
    """The loop on which a client is used."""

    loop: asyncio.AbstractEventLoop

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do work of the client on its loop, from the loop of the run."""

        async def done() -> T:
            return await work()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(done(), self.loop))


@attrs.frozen
class _Source:
    """Pieces that are received on the loop of the client."""

    here: _Loop
    source: PieceSource

    async def next(self) -> bytes | None:
        return await self.here.run(self.source.next)

    async def aclose(self) -> None:
        await self.here.run(self.source.aclose)


@attrs.frozen
class _StreamElsewhere:
    """A stream of the run, as it is read on the loop of the client."""

    io: ClientCalls
    stream: CallStream

    @property
    def head(self) -> dict[str, Any]:
        return self.stream.head

    @property
    def size(self) -> int | None:
        return self.stream.size

    @property
    def ended(self) -> bool:
        return self.stream.ended

    async def next(self) -> bytes | None:
        return await _on_the_run(self.io, self.stream.next)

    async def aclose(self) -> None:
        if not self.stream.ended:
            await _on_the_run(self.io, self.stream.aclose)
