"""The distinction between a cancellation by the engine or its caller and one that a handler raises."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from machine.io.handler_tasks import BEGUN

_NEVER_TAKEN_BACK: Final = sys.version_info < (3, 13)
"""True where a failed task group may cancel its own task without withdrawing that request afterwards."""


class Stopped(BaseException):
    """The cancellation of the run itself, raised out of an attempt."""

    def __init__(self, cancellation: BaseException) -> None:
        self.cancellation = cancellation


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop of this task, or None for one that is not of asyncio: it has only scopes."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Cancellations:
    """The cancellations of this task requested since the beginning of an attempt, as Ctrl-C requests one.

    `loop` is what `running_loop` returns; the run need not ask for it at every attempt.
    """

    __slots__ = ("_before", "_task", "_unreturned", "reached")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.reached = False
        """True once a cancellation has been thrown into the handler."""
        self._unreturned = 0
        self._task = None if loop is None else asyncio.current_task(loop)
        self._before = 0 if self._task is None else self._task.cancelling()

    @property
    def task(self) -> Any:
        """The task of the attempt, None on another kind of event loop."""
        return self._task

    def beyond(self, own: int) -> bool:
        """Say whether the task was cancelled more often than the engine itself did, `own` times."""
        return self._times() - self._unreturned - own > self._before

    def _times(self) -> int:
        return self._task.cancelling() if self._task is not None else 0

    def from_outside(self, exc: BaseException) -> bool:
        """Say whether an exception is a cancellation of this task rather than one a handler raised by itself."""
        if not isinstance(exc, anyio.get_cancelled_exc_class()):
            return False
        return anyio.get_current_task().has_pending_cancellation() or self._times() > self._before

    def note(self, exc: Any) -> None:
        """Record an exception that is thrown into a handler where it waits."""
        kind = exc if isinstance(exc, type) else type(exc)
        if issubclass(kind, anyio.get_cancelled_exc_class()):
            self.reached = True
            begun = BEGUN.get()
            if begun is not None and begun.failing and _NEVER_TAKEN_BACK:
                # anyio's task group withdraws its request; its message names the group
                self._unreturned += not getattr(exc, "args", ())
                begun.failing = False

    @property
    def requested(self) -> bool:
        """True when a request to cancel the task itself is left, which the run would meet where it waits next."""
        return self._task is not None and self._task.cancelling() - self._unreturned > self._before

    def forget(self) -> None:
        """Withdraw the requests that a handler leaves: before Python 3.13 a failed task group leaves one."""
        while self._task is not None and self._task.cancelling() > self._before:
            self._task.uncancel()


async def told_by_scope(exc: BaseException, *, cut: bool) -> BaseException:
    """Return, if `cut` (the engine cancelled the attempt), the cancellation of its own scope in place of `exc`.

    From Python 3.13 on, a task group that fails while its task is being cancelled requests the cancellation again.
    That request does not name the scope, so the scope would take it for a foreign cancellation.
    """
    if cut and not exc.args:
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class() as own:
            return own
    return exc
