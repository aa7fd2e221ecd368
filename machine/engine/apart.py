"""Handlers apart: each attempt has context variables of its own, so that none sees what another left in them.

What a handler sets there (`decimal.setcontext`, what a logging library binds) is not in the log. If it reached the
next state, a resumed run would not have it, and side by side it would depend on who came first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextvars import copy_context
from time import monotonic
from typing import Any, Final, Self

from machine.engine.cancellation import Cancellations
from machine.io.undeclared import in_step

__all__ = ["Apart", "Timed"]

HELD_SECONDS: Final = 1.0
"""Seconds for which a handler may hold the event loop before a warning names it."""


class Apart:
    """Calls a function and awaits what it returns, each step of it in a copy of the context of now.

    `cancellations` is told of what is raised in it where it waits.
    """

    __slots__ = ("_cancellations", "_context", "_steps")

    def __init__(
        self, cancellations: Cancellations, function: Callable[..., Awaitable[Any]], *args: Any
    ) -> None:
        self._cancellations = cancellations
        self._context = copy_context()
        self._steps = _steps(function, args)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has what `await` uses of a generator

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._step(self._steps.send, None)

    def send(self, value: Any) -> Any:
        """Go on."""
        return self._step(self._steps.send, value)

    def throw(self, *exc: Any) -> Any:
        """Go on, where it awaits, with an exception."""
        self._cancellations.note(exc[0])
        return self._step(self._steps.throw, *exc)

    def close(self) -> None:
        """Close what is awaited."""
        Apart._step(self, self._steps.close)

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        return in_step(self._context, self._context.run, step, *args)


class Timed(Apart):
    """The same, with `held` told of each step that kept the event loop for long, in seconds.

    `waited` says for how many seconds the loop has waited for the engine so far: that is no handler's doing.
    """

    __slots__ = ("_held", "_waited")

    def telling(self, held: Callable[[float], None], waited: Callable[[], float]) -> Self:
        """Return this, with whom it tells."""
        self._held, self._waited = held, waited
        return self

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        began = monotonic() - self._waited()
        try:
            return super()._step(step, *args)
        finally:
            seconds = monotonic() - self._waited() - began
            if seconds >= HELD_SECONDS:
                self._held(seconds)


async def _steps(function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
    return await function(*args)
