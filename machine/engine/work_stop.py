"""The request to stop a worker, and the event that wakes one: both may come from another thread or a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import anyio
from anyio.lowlevel import current_token

_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)  # Windows lacks one of them


class Stop:
    """A request to stop a worker. `ask` may be called from any thread, and from a signal handler.

    The first time, the worker takes no more runs and waits for those it drives, for its grace. The second time, it
    interrupts them.
    """

    def __init__(self) -> None:
        self.times = 0
        """The number of times it was asked."""
        self.listeners: list[Callable[[], None]] = []

    def ask(self) -> None:
        """Ask the worker to stop, or to hurry."""
        self.times += 1
        for listener in self.listeners:
            listener()


class Wake:
    """An event that any thread can set, for one waiting task."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        native: Any = current_token().native_token
        # asyncio's loop uses one method name, trio's token the other
        self._soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon

    def set(self) -> None:
        """Wake the task, now or when it waits next."""
        try:
            self._soon(self._set)
        except RuntimeError:  # the loop has closed: nobody waits
            return

    def _set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Wait until somebody sets it, or for some seconds."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        self._event = anyio.Event()

    @contextmanager
    def listening(self, stop: Stop) -> Iterator[None]:
        """Be set whenever a stop is asked for."""
        stop.listeners.append(self.set)
        try:
            yield
        finally:
            stop.listeners.remove(self.set)


@contextmanager
def asked_by_signals(stop: Stop) -> Iterator[None]:
    """Let SIGTERM, SIGINT and SIGHUP ask for a stop, and then for hurry; the third kills the process.

    Only in the main thread, and only where the program has not installed a handler of its own.
    """
    taken: dict[int, Any] = {}

    def restore() -> None:
        for signum, before in taken.items():
            signal.signal(signum, before)
        taken.clear()

    def received(signum: int, _frame: FrameType | None) -> None:
        del signum
        stop.ask()
        if stop.times >= 2:  # noqa: PLR2004 - asked, and asked to hurry
            restore()

    if threading.current_thread() is threading.main_thread():
        for signum in _SIGNALS:
            before = signal.getsignal(signum)
            if before in {signal.SIG_DFL, signal.default_int_handler}:
                taken[signum] = signal.signal(signum, received)
    try:
        yield
    finally:
        restore()
