"""Telling a cancellation that comes from outside an attempt from one that a handler makes by itself."""

from __future__ import annotations

import asyncio

import anyio

__all__ = ["Cancellations", "Stopped"]


class Stopped(BaseException):
    """Carries the cancellation of the run itself out of an attempt."""

    def __init__(self, cancellation: BaseException) -> None:
        self.cancellation = cancellation


class Cancellations:
    """The cancellations of this task that are pending, as Ctrl-C asks for one, from an attempt's beginning on."""

    __slots__ = ("_before", "_task")

    def __init__(self) -> None:
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

    def forget(self) -> None:
        """Take back what a handler leaves behind: before Python 3.13 a task group that failed leaves one."""
        while self._task is not None and self._times() > self._before:
            self._task.uncancel()
