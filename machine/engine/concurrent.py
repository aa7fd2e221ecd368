"""Driving states side by side: decisions as they can be made, by as many tasks as there is work for.

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

__all__ = ["side_by_side"]


async def side_by_side(run: Run) -> None:
    """Perform decisions until the run is done, is suspended or is told to stop."""
    beside = _SideBySide(run)
    while not beside.done:
        try:
            async with anyio.create_task_group() as group:
                await beside.work(group)
        except BaseExceptionGroup:
            if beside.failure is not None:
                raise beside.failure from None
            raise
        finally:
            # a worker that was cancelled before it set to work did not say so, nor what it would have done
            beside.coming = 0
            beside.begun.clear()
            run.busy.clear()


class _SideBySide:
    """Workers, each of which makes one attempt after another: a task for each of them would cost more than they do.

    A worker begins others for what was decided and would have to wait for it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.begun: deque[EnterState] = deque()
        """Attempts that were decided on, and that no worker makes yet."""
        self.coming = 0
        """How many workers were begun and have not set to work yet."""
        self.failure: BaseException | None = None
        self.done = False

    async def work(self, group: TaskGroup) -> None:
        """Perform decisions until the run is done, or what is going on was cancelled because a state has failed."""
        self._run.attempts.concurrent_scope = group.cancel_scope
        with self._noting():
            await self._work(group)

    async def _work(self, group: TaskGroup) -> None:
        run = self._run
        while not self.done:
            if not self.begun:
                await self._decisions(group)
                if not self.begun:
                    return  # who makes one of the attempts sees what comes after it
            decision = self.begun.popleft()
            while self.coming < len(self.begun):
                self.coming += 1
                group.start_soon(self._come, group)
            try:
                await run.enter(decision)
            finally:
                run.busy.discard(decision.state_id)

    async def _decisions(self, group: TaskGroup) -> None:
        """Perform decisions until nothing is left to do but to make, or to await, attempts that were decided on."""
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

    async def _come(self, group: TaskGroup) -> None:
        self.coming -= 1
        task = current_task()
        self._run.attempts.tasks.add(task)
        try:
            await self.work(group)
        finally:
            self._run.attempts.tasks.discard(task)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note what the run cannot go on for: a task group would tell of it in a group of its own."""
        try:
            yield
        except BaseException as exc:
            if not isinstance(exc, anyio.get_cancelled_exc_class()):
                self.failure = self.failure or exc
            raise

    def _cancels(self) -> bool:
        """Say whether what is going on is to be cancelled: a state has failed for good."""
        mode, schedule = self._run.config.execution_mode, self._run.schedule
        failing = schedule is not None and schedule.failing
        return failing and isinstance(mode, FanOutJoin) and mode.on_failure is OnFailure.CANCEL
