"""Driving states side by side: decisions as they can be made, each attempt in a task of its own.

Nothing here decides what comes next, and no attempt knows of another.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from machine.config import FanOutJoin, OnFailure
from machine.errors import Code, StateError
from machine.io.scope import current_task
from machine.kernel.decisions import AwaitAttempts, Done, EnterState
from machine.plan import Graph, StateOutcome

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from machine.engine.driver import Run

__all__ = ["branch", "side_by_side"]


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
            if (
                run.schedule is not None
            ):  # a task that was cancelled before it began did not say that it has ended
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
        only: EnterState | None = None  # an attempt that may be the only one
        while not isinstance(decision := run.decided(), Done):
            if isinstance(decision, EnterState):
                if only is not None:
                    group.start_soon(self._attempt, only)
                self._busy.add(decision.state_id)
                only = decision
            elif not isinstance(decision, AwaitAttempts):
                await run.perform(decision)
            elif self._cancels():
                if only is not None:
                    group.start_soon(self._attempt, only)
                await checkpoint()  # what was decided is begun
                group.cancel_scope.cancel()
                return
            elif only is not None and len(self._busy) == 1:  # nothing can begin before it ends
                await self._enter(only)
                only = None
            else:
                if only is not None:
                    group.start_soon(self._attempt, only)
                    only = None
                await self._ended.wait()
                self._ended = anyio.Event()
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


def branch(graph: Graph, state_id: str, outcome: StateOutcome) -> tuple[str, ...] | None:
    """Return the states that an outcome chose not to go on to, in the order of the plan, None for no choice.

    Raises `StateError` (`unknown_branch`) when it names what does not follow the state.
    """
    if outcome.goto is None and not outcome.skip:
        return None
    children = graph.children[state_id]
    named = [_child(graph, state_id, name) for name in outcome.goto or outcome.skip]
    return tuple(child for child in children if (child in named) is (outcome.goto is None))


def _child(graph: Graph, state_id: str, name: str) -> str:
    full = name if name.count(".") == 2 else f"{graph.op_id}.{name}"  # noqa: PLR2004 - three segments
    children = graph.children[state_id]
    if full not in children:
        near = difflib.get_close_matches(full, children, 1)
        follows = f"what follows it is {', '.join(children)}" if children else "nothing follows it"
        raise StateError(
            f"{state_id} chose to go on to or to skip {name!r}, which does not follow it",
            code=Code.UNKNOWN_BRANCH,
            hint=f"did you mean {near[0]!r}?" if near else follows,
        )
    return full
