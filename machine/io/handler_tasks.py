"""The tasks that an attempt's handler has begun; those left running when it returns may still act.

Every task inherits the context variables of the task that began it, so concurrent attempts are distinguished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import attrs

BEGUN: Final[ContextVar[Begun | None]] = ContextVar("machine_begun_tasks", default=None)
"""The tasks of the attempt whose handler runs in this context; None outside of handlers."""


@attrs.define(eq=False)
class Begun:
    """The tasks that one attempt's handler has begun, directly or indirectly, as long as they run."""

    running: set[asyncio.Task[Any]] = attrs.field(factory=set)
    failing: bool = False
    """True when one of them has failed; the reader resets it."""

    def add(self, task: asyncio.Task[Any]) -> None:
        """Track a task until it is done."""
        self.running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.running.discard(task)
        # its method would mark the exception as retrieved, and nobody would be warned of it
        self.failing = self.failing or getattr(task, "_exception", None) is not None

    @property
    def here(self) -> bool:
        """True in the handler's own context, and in one without that variable, as in a bare thread."""
        return BEGUN.get() in {None, self}


class _Noticing:
    """A task factory that makes tasks with the previous factory and records those that handlers start."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.runs = 0
        """The number of runs on one event loop, nested or concurrent, that share this factory."""
        self.made = 0
        """The number of tasks made by it."""

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> Any:
        make = self.before
        self.made += 1
        task = asyncio.Task(coro, loop=loop, **options) if make is None else make(loop, coro, **options)
        begun = BEGUN.get()
        if begun is not None and not task.done():
            begun.add(task)
        return task


def tasks_made(loop: asyncio.AbstractEventLoop | None = None) -> int | None:
    """Return how many tasks an event loop has made since `notice_tasks`; None where nobody counts them.

    Without a loop it is the running one.
    """
    try:
        factory: Any = (loop or asyncio.get_running_loop()).get_task_factory()
    except RuntimeError:  # another kind of event loop
        return None
    return factory.made if type(factory) is _Noticing else None


@contextmanager
def notice_tasks() -> Iterator[None]:
    """Let the running event loop report new tasks to their attempts, for the duration of the context."""
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
        # a factory set meanwhile, perhaps one that calls this one, must stay
        if not noticing.runs and loop.get_task_factory() is made:
            loop.set_task_factory(noticing.before)
