"""A simulated process of a run: an event loop of its own, in which waits between attempts take no time."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import anyio

from machine.errors import RunError
from machine.events import Entry
from machine.recordings.double_run import SilentReporter
from machine.torture.simulated_io import SimulatedIo

MOST_SECONDS: Final = 60.0
"""Time limit of one process, without the waits between attempts."""

_LONGEST_BLOW: Final = 1.0
"""Seconds to wait for a thread to be struck; a run that does not come to it is found out afterwards."""

_T = TypeVar("_T")


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be advanced."""

    ahead = 0.0

    def time(self) -> float:
        """Return the time of the loop's own clock, in seconds."""
        return super().time() + self.ahead


class Watch(SilentReporter):
    """A reporter that shows a run to the simulated I/O, and advances the clock where the run would wait."""

    def __init__(
        self,
        simulated: SimulatedIo,
        *,
        pending_after: int | None = None,
        fault_occurred: threading.Event | None = None,
    ) -> None:
        self._simulated = simulated
        self._pending_after = pending_after
        self._fault_occurred = fault_occurred
        self.limit: anyio.CancelScope | None = None

    def entry(self, entry: Entry) -> None:
        """Pass an entry on; if a background fault is pending, first wait until it occurs, at most a second."""
        if (
            self._fault_occurred is not None
            and self._pending_after is not None
            and entry.seq > self._pending_after
        ):
            self._fault_occurred.wait(_LONGEST_BLOW)
        self._simulated.entry(entry)

    def waiting(self, state_id: str, seconds: float) -> None:
        """End the wait immediately."""
        del state_id
        loop = asyncio.get_running_loop()
        if isinstance(loop, _Loop):
            if self.limit is not None:
                self.limit.deadline += seconds
            loop.call_soon(_put_forward, loop, seconds)


def _put_forward(loop: _Loop, seconds: float) -> None:
    loop.ahead += seconds


def live(drive: Callable[[], Awaitable[_T]], watch: Watch | None = None) -> _T:
    """Return the result of `drive`, in a loop of its own. Raises what it raises, or `RunError` when it hangs."""

    async def bounded() -> _T:
        _silence(asyncio.get_running_loop())
        with anyio.move_on_after(MOST_SECONDS) as scope:
            if watch is not None:
                watch.limit = scope
            return await drive()
        raise RunError(f"the run did not end within {MOST_SECONDS:g} s")

    return anyio.run(functools.partial(bounded), backend_options={"loop_factory": _Loop})


def _silence(loop: asyncio.AbstractEventLoop) -> None:
    """Suppress reports of tasks that a dead process leaves unfinished."""

    def ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop, context

    loop.set_exception_handler(ignore)
