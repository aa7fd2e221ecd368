"""The tasks of a handler that wait for external input, and the moment at which their attempt is put away.

That is when one of them waits, no call is in flight, and the others have not moved for a while. A handler with one
task is put away at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NoReturn

import anyio

from machine.io.attempt_scope import AttemptScope
from machine.io.handler_tasks import tasks_made
from machine.io.outcome_turns import HandOut
from machine.io.put_away import PutAway
from machine.io.settle_barrier import current_task

WAIT_GRACE: Final = 1.0
"""Seconds for which the other tasks of a handler that waits must not have moved."""

LEFT_SECONDS: Final = 1.0
"""Seconds for tasks that a handler has left to end."""

_LOOK_SECONDS: Final = 0.1

_Place = tuple[Any, ...]
"""A snapshot of what the tasks of a handler wait for: equal as long as none of them moves."""


class Parking:
    """The tasks of one attempt that wait.

    `may_end` says whether the attempt may be put away by now; `stuck` is called when it may not and nothing moves.
    """

    def __init__(
        self, scope: AttemptScope, handing: HandOut, may_end: Callable[[], bool], stuck: Callable[[], None]
    ) -> None:
        self._scope = scope
        self._handing = handing
        self._may_end = may_end
        self._stuck = stuck
        self._parked: Counter[Any] = Counter()
        self._released = anyio.Event()
        self._place: _Place | None = None
        self._since = 0.0

    async def park(self) -> NoReturn:
        """Wait until the attempt is put away, and raise `PutAway` then."""
        task, scope = current_task(), self._scope
        self._parked[task] += 1
        if task is not scope.main and isinstance(task, asyncio.Task):
            task.add_done_callback(_retrieved)
        try:
            while not scope.put_away:
                if self._is_still():
                    if self._may_end():
                        self._put_away()
                        break
                    self._stuck()
                with anyio.move_on_after(_LOOK_SECONDS):
                    await self._released.wait()
        finally:
            self._parked[task] -= 1
            self._parked += Counter()  # without those of zero
        raise PutAway

    @property
    def alone(self) -> bool:
        """True when nothing of the handler but what waits here can go on."""
        scope = self._scope
        if self._handing.in_flight or self._others():
            return False
        return scope.main in self._parked or (scope.state.blocking and not scope.barrier.other_threads())

    def _others(self) -> list[Any]:
        """Return the tasks that the handler has begun and that do not wait here."""
        return [task for task in _tasks_of(self._scope) if task not in self._parked]

    def _is_still(self) -> bool:
        """Say whether nothing of the handler moves, or has moved for a while."""
        if self.alone:
            return True
        place, now = self._where(), time.monotonic()
        if place is None or place != self._place:
            self._place, self._since = place, now
        return self._place is not None and now - self._since >= WAIT_GRACE

    def _where(self) -> _Place | None:
        """Return where the other tasks wait, None while one of them can go on."""
        if self._handing.in_flight:
            return None
        place: list[Any] = [self._scope.log.history.head_seq]
        main = [] if self._scope.main is None or self._scope.state.blocking else [self._scope.main]
        for task in [*self._others(), *(task for task in main if task not in self._parked)]:
            waits_for = getattr(task, "_fut_waiter", None)
            if waits_for is None:
                return None
            place += [task, waits_for]
        return tuple(place)

    def _put_away(self) -> None:
        scope = self._scope
        scope.put_away = scope.ending = True
        self._released.set()
        if not scope.state.blocking and (self._others() or scope.main not in self._parked):
            _Unwinding(scope, set(self._parked)).look()


def _tasks_of(scope: AttemptScope) -> list[Any]:
    """Return the tasks that a handler has begun and that run; its own, the driver's, is none of them."""
    # nobody notes the tasks of a replay, which has no attempt concurrent with this one
    found = scope.begun.running if tasks_made() is not None else scope.barrier.started
    return [task for task in found if task is not scope.main and not task.done()]


def _retrieved(task: asyncio.Task[Any]) -> None:
    """Let nobody be warned that a task ended because its attempt was put away."""
    if not task.cancelled() and isinstance(getattr(task, "_exception", None), PutAway):
        task.exception()


class _Unwinding:
    """Cancels the tasks that wait for nothing that could still come, once those that were parked have ended."""

    def __init__(self, scope: AttemptScope, parked: set[Any]) -> None:
        self._scope = scope
        self._parked = parked
        self._loop = asyncio.get_running_loop()
        self._place: list[Any] = []
        self._since = time.monotonic()

    def look(self) -> None:
        """Cancel what has not moved for a while, and look again later."""
        scope = self._scope
        if scope.closed:
            return
        tasks = [task for task in (scope.main, *_tasks_of(scope)) if task is not None]
        place = [part for task in tasks for part in (task, getattr(task, "_fut_waiter", None))]
        if place != self._place or any(task in self._parked for task in tasks):
            self._place, self._since = place, time.monotonic()
        elif time.monotonic() - self._since >= WAIT_GRACE:
            for task in tasks:
                scope.interrupts += task is scope.main
                task.cancel()
            self._place = []
        self._loop.call_later(_LOOK_SECONDS, self.look)


async def end_of_tasks(scope: AttemptScope) -> None:
    """Cancel the tasks that a handler which was put away has left, and wait for them for a while."""
    running = set(_tasks_of(scope))
    for task in running:
        task.cancel()
    if running:
        with anyio.CancelScope(shield=True):
            await asyncio.wait(running, timeout=LEFT_SECONDS)
