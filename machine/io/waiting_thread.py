"""A thread that waits for a call, and meanwhile does the part of it that belongs to that thread.

A blocking client of a library works in the thread that called it: its connections may belong to that thread. The
call itself runs on the event loop, as every call does, and gives the thread its part when it is due.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, Final, TypeVar, cast

from anyio.lowlevel import EventLoopToken

from machine.errors import StateError

T = TypeVar("T")


class WaitingThread:
    """The calling thread of one blocking call."""

    def __init__(self) -> None:
        self._parts: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def wait_for(self, call: Callable[[], Coroutine[Any, Any, T]], token: EventLoopToken) -> T:
        """Run a call on an event loop, do in this thread what it gives it, and return its result.

        The thread waits once for each part and once for the result, and for nothing else: to wake a thread takes
        longer than most of what is done between.
        """
        loop = cast("asyncio.AbstractEventLoop", token.native_token)
        tasks: list[asyncio.Task[None]] = []
        outcome: list[T] = []
        failure: list[Exception] = []

        async def made() -> None:
            try:
                outcome.append(await call())
            except Exception as exc:  # noqa: BLE001 - raised again in the thread that waits
                failure.append(exc)
            self._parts.put(None)  # now, so that the thread wakes up while the task ends

        def begin() -> None:
            task = loop.create_task(made())
            task.add_done_callback(lambda _: self._parts.put(None))  # also if it never began
            tasks.append(task)

        context = contextvars.copy_context()
        context.run(_waiting.set, self)
        loop.call_soon_threadsafe(begin, context=context)
        while (part := self._parts.get()) is not None:
            part()
        if outcome:
            return outcome[0]
        if failure:
            raise failure.pop()
        (task,) = tasks
        if not task.cancelled():
            task.result()  # raises what ends a program
        raise CancelledError  # as for a call from any thread

    async def do(self, part: Callable[[], T]) -> T:
        """Do a part of the call in the thread that waits, and return its result."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        outcome: list[T] = []
        failure: list[BaseException] = []
        context = contextvars.copy_context()

        def work() -> None:
            try:
                outcome.append(context.run(part))
            except BaseException as exc:  # noqa: BLE001 - raised again where it is awaited
                failure.append(exc)
            try:
                loop.call_soon_threadsafe(_settle, done)
            except RuntimeError:  # the loop has gone: nobody waits
                return

        self._parts.put(work)
        await done
        if failure:
            raise failure.pop()
        return outcome[0]


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():  # it is, if the call was cancelled meanwhile
        done.set_result(None)


_waiting: Final[ContextVar[WaitingThread | None]] = ContextVar("machine_waiting_thread", default=None)


async def in_caller(function: Callable[..., T], *args: Any) -> T:
    """Call a function in the thread that waits for this call; here if none does."""
    thread = _waiting.get()
    return function(*args) if thread is None else await thread.do(lambda: function(*args))


def alone(call: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Run a call in this thread whose every part is done here: it waits for nothing."""
    token = _waiting.set(None)
    try:
        return at_once(call(*args))
    finally:
        _waiting.reset(token)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on the spot. It may give way to others, but wait for none."""
    try:
        while coroutine.send(None) is None:
            pass
    except StopIteration as ended:
        found: T = ended.value
        return found
    coroutine.close()
    raise StateError("a call on the thread of the event loop waited for the event loop that it had stopped")
