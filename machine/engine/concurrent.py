"""Concurrent states: a group of workers that perform decisions as soon as they can be made.

Nothing here decides what comes next, and no attempt knows of another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from machine.config import FanOutJoin, OnFailure
from machine.io.attempt_scope import current_task
from machine.kernel.decisions import AwaitAttempts, Done, EnterState

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from machine.engine.driver import Run

__all__ = ["run_concurrently"]


async def run_concurrently(run: Run) -> None:
    """Perform decisions until the run is done, is suspended or is asked to stop."""
    workers = _Workers(run)
    while not workers.done:
        try:
            async with anyio.create_task_group() as group:
                await workers.work(group)
        except BaseExceptionGroup:
            if workers.failure is not None:
                raise workers.failure from None
            raise
        finally:
            # a worker that was cancelled before it started has updated neither of these
            workers.starting = 0
            workers.begun.clear()
            run.busy.clear()


class _Workers:
    """Workers, each of which makes one attempt after another, because a task for each attempt would be slower.

    A worker starts others for decided attempts that would otherwise have to wait for it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.begun: deque[EnterState] = deque()
        """Attempts that were decided and that no worker has taken."""
        self.starting = 0
        """The number of workers that were created and have not started yet."""
        self.failure: BaseException | None = None
        self.done = False

    async def work(self, group: TaskGroup) -> None:
        """Perform decisions until the run is done, or until open attempts are cancelled after a failed state."""
        self._run.attempts.concurrent_scope = group.cancel_scope
        with self._keeping_failure():
            await self._work(group)

    async def _work(self, group: TaskGroup) -> None:
        run = self._run
        while not self.done:
            if not self.begun:
                await self._decisions(group)
                if not self.begun:
                    return  # a worker with an open attempt decides what follows it
            decision = self.begun.popleft()
            while self.starting < len(self.begun):
                self.starting += 1
                group.start_soon(self._start, group)
            try:
                await run.enter(decision)
            finally:
                run.busy.discard(decision.state_id)

    async def _decisions(self, group: TaskGroup) -> None:
        """Perform decisions until all that remains is to make, or to await, attempts that were decided."""
        run = self._run
        while not isinstance(decision := run.decided(), AwaitAttempts | Done):
            if isinstance(decision, EnterState):
                run.busy.add(decision.state_id)
                self.begun.append(decision)
            else:
                await run.perform(decision)
        self.done = isinstance(decision, Done)
        if not self.done and not self.begun and self._cancels():
            group.cancel_scope.cancel()

    async def _start(self, group: TaskGroup) -> None:
        self.starting -= 1
        task = current_task()
        self._run.attempts.tasks.add(task)
        try:
            await self.work(group)
        finally:
            self._run.attempts.tasks.discard(task)

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """Save the exception that ends the run: the task group would raise it inside an exception group."""
        try:
            yield
        except BaseException as exc:
            if not isinstance(exc, anyio.get_cancelled_exc_class()):
                self.failure = self.failure or exc
            raise

    def _cancels(self) -> bool:
        """Say whether open attempts are to be cancelled because a state has failed for good."""
        mode, schedule = self._run.config.execution_mode, self._run.schedule
        failing = schedule is not None and schedule.failing
        return failing and isinstance(mode, FanOutJoin) and mode.on_failure is OnFailure.CANCEL
