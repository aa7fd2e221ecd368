"""Telling a cancellation that comes from outside an attempt from one that a handler makes by itself."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from machine.io.begun_tasks import BEGUN

__all__ = ["Cancellations", "Stopped", "told_by_scope"]

_NEVER_TAKEN_BACK: Final = sys.version_info < (3, 13)
"""True where a task group that cancels its own task, because another of it has failed, may leave it at that."""


class Stopped(BaseException):
    """Carries the cancellation of the run itself out of an attempt."""

    def __init__(self, cancellation: BaseException) -> None:
        self.cancellation = cancellation


class Cancellations:
    """The cancellations of this task that are pending, as Ctrl-C asks for one, from an attempt's beginning on."""

    __slots__ = ("_before", "_reached", "_task", "_unreturned")

    def __init__(self) -> None:
        self._reached = False
        self._unreturned = 0
        try:
            self._task = asyncio.current_task()
        except RuntimeError:  # another event loop, which has scopes only
            self._task = None
        self._before = self._times()

    def _times(self) -> int:
        return self._task.cancelling() if self._task is not None else 0

    def from_outside(self, exc: BaseException) -> bool:
        """Say whether an exception is the cancellation of this very task, not one a handler raised by itself."""
        if not isinstance(exc, anyio.get_cancelled_exc_class()):
            return False
        return anyio.get_current_task().has_pending_cancellation() or self._times() > self._before

    def note(self, exc: Any) -> None:
        """Note what is raised in a handler where it waits."""
        kind = exc if isinstance(exc, type) else type(exc)
        if issubclass(kind, anyio.get_cancelled_exc_class()):
            self._reached = True
            begun = BEGUN.get()
            if begun is not None and begun.failing and _NEVER_TAKEN_BACK:
                # a group of anyio's, which says by words that it is its own, takes it back
                self._unreturned += not getattr(exc, "args", ())
                begun.failing = False

    def swallowed(self, *, cut: bool) -> bool:
        """Say whether a handler that has come to its end made nothing, or something else, of a cancellation.

        `cut` says that one of the engine's scopes was cancelled, which counts once it has reached the handler. What
        the task itself was asked counts before that too: it would be raised at the next thing the run waits for.
        """
        return (self._reached and cut) or self._times() - self._unreturned > self._before

    def forget(self) -> None:
        """Take back what a handler leaves behind: before Python 3.13 a task group that failed leaves one."""
        while self._task is not None and self._times() > self._before:
            self._task.uncancel()


async def told_by_scope(exc: BaseException, *, cut: bool) -> BaseException:
    """Return the cancellation of the engine's scope that was `cut`, where an attempt ended with another.

    From Python 3.13 on a task group that fails while its task is being cancelled asks for that once more. It does
    not name the scope, which would take that for a cancellation from outside.
    """
    if cut and not exc.args:
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class() as own:
            return own
    return exc
