"""Plain functions of steps, each in a thread of its own.

A thread cannot be stopped. One whose step was interrupted goes on, and what it does is unknown until it has ended:
the next attempt of its state waits for that.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

import anyio
from anyio import from_thread
from anyio.lowlevel import current_token

_left: Final[dict[tuple[str, str], list[threading.Event]]] = {}
"""The ends of threads whose steps were interrupted, by run and state."""

_POLL: Final = 0.02


class StepThread:
    """A function that runs in a thread; its outcome is in `value`, or in `raised`, once `ended` is set."""

    def __init__(
        self, name: str, function: Callable[[], Any], notify: Callable[[], Any] | None = None
    ) -> None:
        self.ended = threading.Event()
        self.value: Any = None
        self.raised: BaseException | None = None
        self._function = function
        self._notify = notify
        self._context = contextvars.copy_context()
        if (sniffio := sys.modules.get("sniffio")) is not None:  # there is no event loop in the thread
            self._context.run(sniffio.current_async_library_cvar.set, None)
        # a daemon, so that a function that hangs for ever cannot keep the process alive
        threading.Thread(target=self._work, name=f"machine step {name}", daemon=True).start()

    def _work(self) -> None:
        try:
            self.value = self._context.run(self._function)
        except BaseException as exc:  # noqa: BLE001 - raised again where the step is awaited
            self.raised = exc
        self.ended.set()
        if self._notify is not None:
            self._notify()


async def call_in_thread(
    name: str, function: Callable[[], Any], place: tuple[str, str], seconds: float | None
) -> StepThread | None:
    """Call a function in a thread and return the thread when it has ended, None when it takes too long.

    `place` is the run and the state; a thread that has not ended is noted there.
    """
    token, done = current_token(), anyio.Event()

    def notify() -> None:
        try:
            from_thread.run_sync(done.set, token=token)
        except RuntimeError:  # the loop has gone: nobody waits
            return

    thread = StepThread(name, function, notify)
    try:
        with anyio.move_on_after(seconds):
            await done.wait()
    finally:
        if not thread.ended.is_set():
            leave(place, thread)
    return thread if thread.ended.is_set() else None


def leave(place: tuple[str, str], thread: StepThread) -> None:
    """Note that the thread of a step goes on although nobody waits for its result."""
    for other in [other for other, ends in _left.items() if all(ended.is_set() for ended in ends)]:
        del _left[other]  # of runs that nobody went on with
    _left.setdefault(place, []).append(thread.ended)


def threads_left() -> bool:
    """Say whether the thread of any interrupted step may still run."""
    return bool(_left)


async def wait_for_threads(place: tuple[str, str]) -> None:
    """Return when every interrupted thread of a run's state has ended."""
    for ended in _left.get(place, ()):
        while not ended.is_set():  # noqa: ASYNC110 - a thread may have been begun on another event loop
            await anyio.sleep(_POLL)
    _left.pop(place, None)
