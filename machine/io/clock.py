"""The wall clock and waiting, as recorded calls.

The clock must never be read anywhere else for a handler: a time that is not a fact cannot be replayed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import anyio

from machine import canonical
from machine.io.request_fields import checked_seconds, field
from machine.io.transport import BaseTransport

NOW: Final = "clock.now"
"""The namespace of the time."""

SLEEP: Final = "clock.sleep"
"""The namespace of sleeps."""


def now_request() -> dict[str, Any]:
    """Return the request for the time (`clock.now`); the response is integer milliseconds since the epoch."""
    return {}


def sleep_request(seconds: float) -> dict[str, Any]:
    """Return the request that waits (`clock.sleep`): 0 seconds to one year; the response is null.

    Raises `OtherIoError(io_invalid_request)` for anything else, infinities and NaN included.
    """
    return {"seconds": checked_seconds(seconds, "seconds", zero=True)}


def sleep_digest(request: Mapping[str, Any]) -> str:
    """Return the digest under which a sleep is recorded."""
    return canonical.artifact_id(canonical.encode(dict(request)))


class ClockTransport(BaseTransport):
    """The transport of `clock.now` and `clock.sleep`, from this machine's clock."""

    __slots__ = ()

    async def perform(self, namespace: str, request: Any) -> int | None:
        """Return the time in milliseconds since the epoch, or sleep and return None. Safe to cancel."""
        match namespace:
            case _ if namespace == NOW:
                return time.time_ns() // 1_000_000
            case _ if namespace == SLEEP:
                seconds = checked_seconds(field(request, "seconds", int, float), "seconds", zero=True)
                await anyio.sleep(seconds)
                return None
            case _:
                raise self._unknown(namespace)
