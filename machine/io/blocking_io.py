"""Blocking versions of `io` and `rec` for handlers that are plain functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from anyio import from_thread
from anyio.lowlevel import EventLoopToken

from machine.io.lent_work import LentWork, handed_to_loop
from machine.io.put_away import PutAway, end_thread_quietly

F = TypeVar("F", bound=Callable[..., Any])


def in_calling_thread(method: F) -> F:
    """Mark a method that a plain handler's own thread has to run, and which itself goes to the event loop."""
    method.__in_calling_thread__ = True  # type: ignore[attr-defined]  # functions take any attribute
    return method


class Blocking:
    """A wrapper whose coroutine methods are called plainly, from a worker thread.

    Each call runs on the event loop that drives the run and blocks the thread until it has its result.
    """

    def __init__(self, target: Any, token: EventLoopToken, lent: LentWork | None = None) -> None:
        """Take `lent`, the work that the event loop lends to the threads of the handler."""
        self._target = target
        self._token = token
        self._lent = lent

    def __repr__(self) -> str:
        return f"<blocking {self._target!r}>"

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute) or getattr(attribute, "__in_calling_thread__", False):
            return attribute
        run: Callable[..., Any] = (
            from_thread.run if inspect.iscoroutinefunction(attribute) else from_thread.run_sync
        )

        @functools.wraps(attribute)
        def blocking(*args: Any, **kwargs: Any) -> Any:
            try:
                with handed_to_loop(self._lent):
                    return run(functools.partial(attribute, *args, **kwargs), token=self._token)
            except PutAway:
                end_thread_quietly()
                raise

        return blocking
