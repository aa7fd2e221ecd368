"""A run that a worker drives: in a thread with an event loop of its own, so that it holds up nothing else.

The thread is a daemon: a handler that hangs for ever cannot keep a worker that was asked to stop.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from machine.engine.reporter import Reporter
from machine.engine.run_result import RunResult
from machine.plan import Graph

Drive: TypeAlias = Callable[[Reporter], Coroutine[Any, Any, RunResult]]
"""A coroutine function that drives a run and reports to what it is given."""


class _Beginning(Reporter):
    """A reporter that notes that a run was driven here, and was not found ended by another driver."""

    def __init__(self, run: DrivenRun) -> None:
        self._run = run

    def starting(self, run_id: str, graph: Graph) -> None:
        del run_id, graph
        self._run.was_driven = True


class DrivenRun:
    """The driving of one run, from `start` until `ended` is called with it, from its thread."""

    def __init__(
        self,
        key: str,
        drive: Drive,
        ended: Callable[[DrivenRun], None],
    ) -> None:
        self.key = key
        """The run's id, or the invocation key of a run that may not be there yet."""
        self.result: RunResult | None = None
        self.error: BaseException | None = None
        self._drive = drive
        self._ended = ended
        self._lock = threading.Lock()
        self.was_driven = False
        """True once it is known that nobody else drives it, nor has ended it before."""
        self.was_interrupted = False
        """True once the worker has interrupted it."""
        self._cancel: Callable[[], object] | None = None

    def start(self) -> None:
        """Begin to drive, with the context variables of the caller, such as the name of the worker."""
        live = functools.partial(contextvars.copy_context().run, self._live)
        threading.Thread(target=live, name=f"machine run {self.key}", daemon=True).start()

    def interrupt(self) -> None:
        """Interrupt its attempts, as Ctrl-C does: it can be resumed. Twice is harmless."""
        with self._lock:
            self.was_interrupted = True
            if self._cancel is not None:
                self._cancel()

    def _live(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as exc:  # noqa: BLE001 - reported by the worker, whose other runs go on
            self.error = exc
        finally:
            self._ended(self)

    async def _main(self) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        with self._lock:
            if self.was_interrupted:
                task.cancel()
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            self.result = await self._drive(_Beginning(self))
        finally:
            with self._lock:  # from here on the loop may close at any time
                self._cancel = None
