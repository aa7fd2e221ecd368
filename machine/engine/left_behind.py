"""Tasks that a handler left behind when it returned: they are given a chance to end, and are watched."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from machine.engine.cancellation import Stopped
from machine.errors import StateError
from machine.io.attempt_scope import AttemptScope

__all__ = ["Leftovers"]

LEFT_SECONDS: Final = 1.0
"""How long they are waited for."""

AGAIN_SECONDS: Final = 0.05
"""How long, in a run where some have gone on longer than that: what lives long is left at every attempt."""


class Leftovers:
    """What the handlers of one run leave behind."""

    def __init__(self) -> None:
        self._longest = LEFT_SECONDS

    async def used(self, scope: AttemptScope) -> StateError | None:
        """Wait for the tasks that a handler left; return how they first used `io` or `rec`, None if none did."""
        until, running = time.monotonic() + self._longest, scope.begun.running
        try:
            while running and scope.left_behind is None and (rest := until - time.monotonic()) > 0:
                await asyncio.wait(running, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as exc:
            raise Stopped(exc) from None
        if running and scope.left_behind is None:
            self._longest = AGAIN_SECONDS
        return scope.left_behind
