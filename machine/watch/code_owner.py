"""The owner of the code that runs in a context: the `io` of a handler, or a step that a handler has called.

A thread begins with an empty context. Once `threads_and_programs.follow_callers` was called, code that is given to
a thread or a pool keeps the owner of the code that gave it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

import attrs


@attrs.frozen
class RunningStep:
    """A function that runs as a step; `name` is its name in the recording."""

    name: str


class _Engine:
    """The engine at work for a handler: behind its `io`, in the transports and in the store."""


ENGINE: Final = _Engine()

CALLER: Final[ContextVar[Any]] = ContextVar("machine_caller", default=None)
"""The `io` of the handler that runs in this context, a `RunningStep`, `ENGINE`, or None outside of handlers."""


def running_step() -> str | None:
    """Return the name of the step that runs in this context, or None."""
    caller = CALLER.get()
    return caller.name if type(caller) is RunningStep else None


class called_by:  # noqa: N801 - a context manager, used like a function
    """Make `caller` the owner of the code in this context.

    It is a class and not a generator for speed, because it is entered at every call of a client.
    """

    __slots__ = ("_caller", "_outer")

    def __init__(self, caller: Any) -> None:
        self._caller = caller

    def __enter__(self) -> None:
        self._outer = CALLER.get()
        CALLER.set(self._caller)

    def __exit__(self, *exc: object) -> None:
        CALLER.set(self._outer)
