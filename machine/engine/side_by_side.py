"""Driving states side by side: decisions as they can be made, each attempt in a task of its own.

Nothing here decides what comes next, and no attempt knows of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from machine.config import FanOutJoin, OnFailure
from machine.io.scope import current_task
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
                await beside.decisions(group)
        except BaseExceptionGroup:
            if beside.failure is not None:
                raise beside.failure from None
            raise
        finally:
            # a task that was cancelled before it began did not say that it has ended
            if run.schedule is not None:
                run.schedule.busy.clear()


class _SideBySide:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._ended = anyio.Event()
        self.failure: BaseException | None = None
        self.done = False

    async def decisions(self, group: TaskGroup) -> None:
        """Perform decisions until the run is done, or what is going on was cancelled because a state has failed."""
        self._run.beside = group.cancel_scope
        with self._noting():
            await self._decisions(group)

    async def _decisions(self, group: TaskGroup) -> None:
        run = self._run
        held: EnterState | None = None  # decided and not begun: it needs no task when nothing runs beside it
        while not isinstance(decision := run.decided(), Done):
            waits = isinstance(decision, AwaitAttempts)
            cancels = waits and self._cancels()
            if held is not None:
                begun, held = held, None
                if waits and not cancels and len(self._busy) == 1:  # nothing can begin before it ends
                    await self._enter(begun)
                    continue
                group.start_soon(self._attempt, begun)
            if isinstance(decision, EnterState):
                self._busy.add(decision.state_id)
                held = decision
            elif cancels:
                await checkpoint()  # what was decided is begun
                group.cancel_scope.cancel()
                return
            elif waits:
                await self._ended.wait()
                self._ended = anyio.Event()
            else:
                await run.perform(decision)
        self.done = True

    @property
    def _busy(self) -> set[str]:
        assert self._run.schedule is not None
        return self._run.schedule.busy

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

    async def _attempt(self, decision: EnterState) -> None:
        task = current_task()
        self._run.tasks.add(task)
        try:
            with self._noting():
                await self._enter(decision)
        finally:
            self._run.tasks.discard(task)
            self._ended.set()

    async def _enter(self, decision: EnterState) -> None:
        try:
            await self._run.enter(decision)
        finally:
            self._busy.discard(decision.state_id)
