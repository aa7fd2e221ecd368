"""Concurrent attempts: decisions performed as they can be made, by as many tasks as there is work for.

Nothing here decides what comes next, and no attempt knows of another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from machine.io.attempt_scope import current_task
from machine.kernel.decisions import AwaitAttempts, Decision, Done, EnterState

__all__ = ["Concurrent"]


class Driver(Protocol):
    """What decides, and performs what was decided."""

    def decided(self) -> Decision:
        """Return what comes next."""
        ...

    async def enter(self, decision: EnterState) -> None:
        """Run one attempt of a state, from its `state_entered` to what ends it."""
        ...

    async def perform(self, decision: Decision) -> None:
        """Do what was decided and write down what came of it."""
        ...


class Concurrent:
    """Workers, each of which makes one attempt after another: a task for each of them would cost more than they do.

    A worker begins others for what was decided and would have to wait for it.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.busy: set[str] = set()
        """The states whose attempts are being made."""
        self.scope: anyio.CancelScope | None = None
        """Cancel scope of the task group that runs concurrent attempts."""
        self.tasks: set[Any] = set()
        """The tasks of the event loop that are no handler's own."""
        self._begun: deque[EnterState] = deque()
        """Attempts that were decided on, and that no worker makes yet."""
        self._coming = 0
        """How many workers were begun and have not set to work yet."""
        self._failure: BaseException | None = None
        self._done = False

    async def drive(self) -> None:
        """Perform decisions until the run is done, is suspended or is told to stop."""
        while not self._done:
            try:
                async with anyio.create_task_group() as group:
                    self.scope = group.cancel_scope
                    await self._work(group)
            except BaseExceptionGroup:
                if self._failure is not None:
                    raise self._failure from None
                raise
            finally:
                # a worker that was cancelled before it set to work did not say so, nor what it would have done
                self._coming = 0
                self._begun.clear()
                self.busy.clear()

    async def _work(self, group: TaskGroup) -> None:
        """Perform decisions until the run is done, or what is going on was cancelled because a state has failed."""
        with self._noting():
            while not self._done:
                if not self._begun:
                    await self._decisions(group)
                    if not self._begun:
                        return  # who makes one of the attempts sees what comes after it
                decision = self._begun.popleft()
                while self._coming < len(self._begun):
                    self._coming += 1
                    group.start_soon(self._come, group)
                try:
                    await self._driver.enter(decision)
                finally:
                    self.busy.discard(decision.state_id)

    async def _decisions(self, group: TaskGroup) -> None:
        """Perform decisions until nothing is left to do but to make, or to await, attempts that were decided on."""
        while not isinstance(decision := self._driver.decided(), AwaitAttempts | Done):
            if isinstance(decision, EnterState):
                self.busy.add(decision.state_id)
                self._begun.append(decision)
            else:
                await self._driver.perform(decision)
        self._done = isinstance(decision, Done)
        if isinstance(decision, AwaitAttempts) and decision.cancel and not self._begun:
            group.cancel_scope.cancel()

    async def _come(self, group: TaskGroup) -> None:
        self._coming -= 1
        task = current_task()
        self.tasks.add(task)
        try:
            await self._work(group)
        finally:
            self.tasks.discard(task)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note what the run cannot go on for: a task group would tell of it in a group of its own."""
        try:
            yield
        except BaseException as exc:
            if not isinstance(exc, anyio.get_cancelled_exc_class()):
                self._failure = self._failure or exc
            raise
