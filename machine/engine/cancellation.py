"""Telling a cancellation that comes from outside an attempt from one that a handler makes by itself."""

from __future__ import annotations

import asyncio

import anyio

__all__ = ["Stopped", "cancelled_from_outside", "forget_cancellations", "times_cancelled"]


class Stopped(BaseException):
    """Carries the cancellation of the run itself out of an attempt."""

    def __init__(self, cancellation: BaseException) -> None:
        self.cancellation = cancellation


def cancelled_from_outside(exc: BaseException, before: int) -> bool:
    """Say whether an exception is the cancellation of this very task, not one a handler raised by itself."""
    if not isinstance(exc, anyio.get_cancelled_exc_class()):
        return False
    return anyio.get_current_task().has_pending_cancellation() or times_cancelled() > before


def times_cancelled() -> int:
    """Count the cancellations of this task that are pending, as Ctrl-C asks for one."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # another event loop, which has scopes only
        return 0
    return task.cancelling() if task is not None else 0


def forget_cancellations(before: int) -> None:
    """Take back what a handler leaves behind: before Python 3.13 a task group that failed leaves one pending."""
    while times_cancelled() > before:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
