"""SIGTERM and SIGHUP: the first interrupts a run as Ctrl-C does, so that it can be resumed; the second kills.

Only in the main thread, and only where the program has not installed a handler of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows lacks one of them


class Terminated(SystemExit):
    """The process was asked to end by a signal. The run can be resumed from what is durable.

    It ends the process with the exit code that shells give to a process which the signal killed.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


class Termination:
    """The signals received so far."""

    def __init__(self) -> None:
        self.signum: int | None = None
        """The signal that was received, or None."""
        self._signals: list[int] = []
        self._task: asyncio.Task[Any] | None = None
        self._main = False
        self._wakeup: tuple[socket.socket, socket.socket] | None = None

    def watch(self) -> None:
        """Let a signal cancel the task that calls this, and wake its loop."""
        self._task = asyncio.current_task()
        if self._main:
            self._wake_loop_at_signals(asyncio.get_running_loop())
        if self.signum is not None and self._task is not None:
            self._task.cancel()

    def begin(self) -> None:
        """Install handlers for the signals that have none."""
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._signals = [each for each in _SIGNALS if signal.getsignal(each) is signal.SIG_DFL]
            for each in self._signals:
                signal.signal(each, self._received)

    def end(self) -> None:
        """Restore the signals, unless other code has taken them meanwhile."""
        for each in self._signals:
            if signal.getsignal(each) == self._received:
                signal.signal(each, signal.SIG_DFL)

    def close(self) -> None:
        """Restore the signals and the wake-up of the loop."""
        self.end()
        if self._wakeup is not None:
            read, write = self._wakeup
            if (fd := signal.set_wakeup_fd(-1)) != write.fileno():
                signal.set_wakeup_fd(fd)
            read.close()
            write.close()

    def _wake_loop_at_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        # Python code sees a signal between two instructions: one that arrives just before the loop waits for
        # its files, Ctrl-C too, would be seen only when the loop wakes for another reason
        if (fd := signal.set_wakeup_fd(-1)) != -1:
            signal.set_wakeup_fd(fd)  # of a loop that does so itself, or of the program
            return
        read, write = self._wakeup = socket.socketpair()
        read.settimeout(0)
        write.settimeout(0)
        loop.add_reader(read, lambda: read.recv(4096))
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)

    def _received(self, signum: int, _frame: FrameType | None) -> None:
        # as asyncio does at Ctrl-C; the next signal kills
        self.signum = signum
        self.end()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            # wakes a loop that waits for something else
            self._task.get_loop().call_soon_threadsafe(lambda: None)


@contextlib.contextmanager
def terminable() -> Iterator[Termination]:
    """Yield an object through which a signal cancels a task. Raises `Terminated` at the end if one arrived."""
    termination = Termination()
    termination.begin()
    try:
        yield termination
    except asyncio.CancelledError:
        if termination.signum is None:
            raise
    finally:
        termination.close()
    if termination.signum is not None:
        raise Terminated(termination.signum)
