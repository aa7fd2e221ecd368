"""A plan in a module that can read a clock, which its handlers never do."""

from __future__ import annotations

import time

from payload import result
from plans import linear

__all__ = ["clocked", "since"]


def since(begun):
    """Return the seconds since a time; no handler calls this."""
    return time.monotonic() - begun


def clocked(steps):
    """Return a plan of states in a row that put 200 bytes into the context."""

    def trivial(number):
        async def handler(ctx, io, rec):
            ctx["result"] = result(number)

        return handler

    return linear(steps, trivial)
