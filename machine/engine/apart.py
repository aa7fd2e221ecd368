"""Handlers apart: each attempt has context variables of its own, so that none sees what another left in them.

What a handler sets there (`decimal.setcontext`, what a logging library binds) is not in the log. If it reached the
next state, a resumed run would not have it, and side by side it would depend on who came first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextvars import copy_context
from typing import Any, Self

__all__ = ["Apart"]


class Apart:
    """Calls a function and awaits what it returns, each step of it in a copy of the context of now."""

    __slots__ = ("_context", "_steps")

    def __init__(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._context = copy_context()
        self._steps = _steps(function, args)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has what `await` uses of a generator

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._context.run(self._steps.send, None)

    def send(self, value: Any) -> Any:
        """Go on."""
        return self._context.run(self._steps.send, value)

    def throw(self, *exc: Any) -> Any:
        """Go on, where it awaits, with an exception."""
        return self._context.run(self._steps.throw, *exc)

    def close(self) -> None:
        """Close what is awaited."""
        self._context.run(self._steps.close)


async def _steps(function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
    return await function(*args)
