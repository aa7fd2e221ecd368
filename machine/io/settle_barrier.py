"""The tasks of an event loop, and the barrier that lets a handler settle before it receives the next outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Set as AbstractSet
from typing import Any

from anyio.lowlevel import checkpoint

from machine.io.handler_tasks import tasks_made

OWN_THREADS = "machine "
"""The beginning of the names of the threads that this library begins."""

QUIET_ROUNDS = 16
"""Turns of the event loop that a handler gets to settle before it receives the next outcome."""


def running_tasks() -> set[Any]:
    """Return the tasks of this event loop.

    The caller holds them, so that no later task can get the identity of one.
    """
    try:
        return asyncio.all_tasks()
    except RuntimeError:  # another kind of event loop: with a fresh object no task counts as alone
        return {object()}


def current_task() -> Any:
    """Return the current task, comparable with those of `running_tasks`."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class SettleBarrier:
    """A barrier that gives outcomes to a handler one by one, each after the handler has settled from the last.

    `others` are the tasks that ran before the handler; `blocking` handlers make each call in a task of its own.

    A handler with a single task is always settled. One that races tasks gets some turns of the event loop, in live
    mode and in replay alike, so that it observes exactly the recorded order of a race.
    """

    __slots__ = ("_alone_since", "_blocking", "_others", "_threads")

    def __init__(self, others: AbstractSet[Any], *, blocking: bool) -> None:
        self._others = others
        self._alone_since: int | None = None
        """The number of tasks made when the handler was found to have none."""
        self._blocking = blocking
        self._threads = threading.enumerate() if blocking else ()

    @property
    def alone(self) -> bool:
        """True when the handler has started no task of its own."""
        started = self.started
        if self._blocking:
            started.discard(asyncio.current_task())
        return not started

    def alone_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Say, in any thread, whether the handler has no task on an event loop, where none of its calls waits."""
        made = tasks_made(loop)
        if made is None or made != self._alone_since:
            if asyncio.all_tasks(loop) - self._others:
                return False
            self._alone_since = made
        return True

    @property
    def started(self) -> set[Any]:
        """The tasks of the event loop that did not run before the handler."""
        return running_tasks() - self._others

    def other_threads(self) -> bool:
        """Say whether a plain handler may have begun threads: any is there that was not, and is none of ours."""
        known = set(self._threads)
        return any(
            thread not in known and not thread.name.startswith(OWN_THREADS)
            for thread in threading.enumerate()
        )

    async def settle(self) -> None:
        """Let the handler's other tasks run until they wait."""
        for _ in range(QUIET_ROUNDS):
            await checkpoint()
