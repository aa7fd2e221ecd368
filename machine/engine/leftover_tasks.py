"""Tasks that a handler leaves running when it returns: they get some time to end, and are watched."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from machine.engine.cancellation_origin import Stopped
from machine.errors import StateError
from machine.io.attempt_scope import AttemptScope

LEFT_SECONDS: Final = 1.0
"""Seconds to wait for such tasks."""

AGAIN_SECONDS: Final = 0.05
"""Seconds to wait in a run where some tasks have run for longer: a long-lived task is likely at every attempt."""


class Leftovers:
    """The tasks that the handlers of one run leave running."""

    def __init__(self) -> None:
        self._longest = LEFT_SECONDS

    async def used(self, scope: AttemptScope) -> StateError | None:
        """Wait for the tasks that a handler left; return their first use of `io` or `rec`, or None."""
        running = scope.begun.running
        if not running:
            return scope.left_behind
        until = time.monotonic() + self._longest
        try:
            while running and scope.left_behind is None and (rest := until - time.monotonic()) > 0:
                await asyncio.wait(running, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as exc:
            raise Stopped(exc) from None
        if running and scope.left_behind is None:
            self._longest = AGAIN_SECONDS
        return scope.left_behind
