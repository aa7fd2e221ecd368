"""Concurrent states: a group of workers that perform decisions as soon as they can be made.

Nothing here decides what comes next, and no attempt knows of another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from machine.engine.in_process_waits import LOOK_SECONDS
from machine.engine.stop_signal import Control
from machine.io.settle_barrier import current_task
from machine.kernel.decisions import AwaitAttempts, Decision, Done, EnterState


class Driver(Protocol):
    """The driver of a run as the concurrent states see it; `engine/driver.py` (`Run`) is the only one."""

    control: Control

    def decided(self) -> Decision:
        """Return the next decision of the run."""
        ...

    async def enter(self, decision: EnterState) -> None:
        """Run one attempt of a state, from its `state_entered` to what ends it."""
        ...

    async def perform(self, decision: Decision) -> None:
        """Perform a decision other than to enter a state, and record its result."""
        ...

    @property
    def waits(self) -> bool:
        """True while a handler waits for external input whose attempt is put away."""
        ...

    def delivered(self) -> bool:
        """Record the answers to such waits that have come by now, and say whether there were any."""
        ...


class Concurrent:
    """Workers, each of which makes one attempt after another, because a task for each attempt would be slower.

    A worker starts others for decided attempts that would otherwise have to wait for it.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.busy: set[str] = set()
        """The states whose attempts are being made."""
        self.scope: anyio.CancelScope | None = None
        """Cancel scope of the task group that runs concurrent attempts."""
        self.tasks: set[Any] = set()
        """The tasks of the event loop that belong to no handler."""
        self._begun: deque[EnterState] = deque()
        """Attempts that were decided and that no worker has taken."""
        self._starting = 0
        """The number of workers that were created and have not started yet."""
        self._failure: BaseException | None = None
        self._done = False
        self._listening = False

    async def drive(self) -> None:
        """Perform decisions until the run is done, is suspended or is asked to stop."""
        while not (self._done or self._driver.control.ending):
            try:
                async with anyio.create_task_group() as group:
                    self.scope = group.cancel_scope
                    await self._work(group)
            except BaseExceptionGroup:
                if self._failure is not None:
                    raise self._failure from None
                raise
            finally:
                # a worker that was cancelled before it started has updated neither of these
                self._starting = 0
                self._listening = False
                self._begun.clear()
                self.busy.clear()

    async def _work(self, group: TaskGroup) -> None:
        """Perform decisions until the run is done, or until open attempts are cancelled after a failed state."""
        with self._keeping_failure():
            while not self._done:
                if not self._begun:
                    await self._decisions(group)
                    if not self._begun:
                        return  # a worker with an open attempt decides what follows it
                decision = self._begun.popleft()
                while self._starting < len(self._begun):
                    self._starting += 1
                    group.start_soon(self._start, group)
                try:
                    await self._driver.enter(decision)
                finally:
                    self.busy.discard(decision.state_id)

    async def _decisions(self, group: TaskGroup) -> None:
        """Perform decisions until all that remains is to make, or to await, attempts that were decided."""
        while True:
            if self._driver.control.ending:
                return  # what is left is done once all attempts are interrupted
            decision = self._driver.decided()
            if isinstance(decision, AwaitAttempts | Done):
                break
            if isinstance(decision, EnterState):
                self.busy.add(decision.state_id)
                self._begun.append(decision)
            else:
                await self._driver.perform(decision)
        self._done = isinstance(decision, Done)
        if not self._done and self._driver.waits and not self._listening:
            self._listening = True
            group.start_soon(self._listen, group)
        if isinstance(decision, AwaitAttempts) and decision.cancel and not self._begun:
            group.cancel_scope.cancel()

    async def _start(self, group: TaskGroup) -> None:
        self._starting -= 1
        with self._own_task():
            await self._work(group)

    async def _listen(self, group: TaskGroup) -> None:
        """Look for answers to suspended attempts while others are made, and go on with what is answered."""
        with self._own_task():
            try:
                while self.busy and self._driver.waits and not self._done:
                    await anyio.sleep(LOOK_SECONDS)
                    if self._driver.delivered():
                        break
                else:
                    return  # the worker that makes the last attempt decides
            finally:
                self._listening = False
            await self._work(group)

    @contextmanager
    def _own_task(self) -> Iterator[None]:
        """Let the current task count as one that belongs to no handler."""
        task = current_task()
        self.tasks.add(task)
        try:
            yield
        finally:
            self.tasks.discard(task)

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """Save the exception that ends the run: the task group would raise it inside an exception group."""
        try:
            yield
        except BaseException as exc:
            if not isinstance(exc, anyio.get_cancelled_exc_class()):
                self._failure = self._failure or exc
            raise
