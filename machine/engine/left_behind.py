"""Tasks that a handler left behind when it returned: they are given a chance to end, and are watched."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from machine.engine.cancellation import Stopped
from machine.errors import StateError
from machine.io.scope import AttemptScope

__all__ = ["left_behind"]

LEFT_SECONDS: Final = 1.0
"""How long they are waited for."""


async def left_behind(scope: AttemptScope) -> StateError | None:
    """Wait for the tasks that a handler left behind; return how they first used `io` or `rec`, None if none did."""
    until, running = time.monotonic() + LEFT_SECONDS, scope.begun.running
    try:
        while running and scope.left_behind is None and (rest := until - time.monotonic()) > 0:
            await asyncio.wait(running, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError as exc:
        raise Stopped(exc) from None
    return scope.left_behind
