"""Which tasks an attempt's handler has begun: what it leaves behind when it returns may still act on the outside.

Every task carries the context variables of whoever began it, so those of concurrent attempts are told apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import attrs

__all__ = ["BEGUN", "Begun", "notice_tasks"]

BEGUN: Final[ContextVar[Begun | None]] = ContextVar("machine_begun_tasks", default=None)
"""The tasks of the attempt whose handler runs in this context; None outside of handlers."""


@attrs.define(eq=False)
class Begun:
    """The tasks that one attempt's handler has begun, and those they began, as long as they run."""

    running: set[asyncio.Task[Any]] = attrs.field(factory=set)
    failing: bool = False
    """True when one of them has failed; whoever asks takes it back."""

    def add(self, task: asyncio.Task[Any]) -> None:
        """Note a task until it is done."""
        self.running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.running.discard(task)
        # not asked by its method, after which nobody would be told of an exception that nobody retrieves
        self.failing = self.failing or getattr(task, "_exception", None) is not None

    @property
    def here(self) -> bool:
        """True in the handler's own context, and in one that tells nothing, as that of a bare thread."""
        return BEGUN.get() in {None, self}


class _Noticing:
    """A task factory that makes tasks as the one before it did."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.runs = 0
        """For how many runs: those on one event loop, one within another or side by side, have it in common."""

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> Any:
        make = self.before
        task = asyncio.Task(coro, loop=loop, **options) if make is None else make(loop, coro, **options)
        begun = BEGUN.get()
        if begun is not None and not task.done():
            begun.add(task)
        return task


@contextmanager
def notice_tasks() -> Iterator[None]:
    """Have the running event loop tell attempts of their tasks, for the duration of the context."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another kind of event loop
        yield
        return
    factory: Any = loop.get_task_factory()
    noticing = factory if isinstance(factory, _Noticing) else _Noticing(factory)
    made: Any = noticing
    loop.set_task_factory(made)
    noticing.runs += 1
    try:
        yield
    finally:
        noticing.runs -= 1
        # who has set another one meanwhile, perhaps one that asks this, is to keep it
        if not noticing.runs and loop.get_task_factory() is made:
            loop.set_task_factory(noticing.before)
