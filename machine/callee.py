"""A function of the user's, and which of the values that the engine offers it takes: those that it names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from machine.errors import PlanError

OF_WORK: Final = ("ctx", "io", "rec")
"""The values that a handler is offered."""

OF_CLEANUP: Final = (*OF_WORK, "failure")
"""The values that the handler of a cleanup state is offered."""

_ALL: Final = (0, 1, 2)
"""The positions of a function that takes all three values by position, as most do: none is left for a keyword."""


@attrs.frozen
class Callee:
    """A function, and the positions of its parameters among the offered values."""

    function: Callable[..., Any]
    positional: tuple[int, ...] = _ALL
    keywords: tuple[tuple[str, int], ...] = ()

    def call(self, *offered: Any) -> tuple[Any, ...]:
        """Return the function, followed by the values to call it with."""
        function = self.function
        if self.positional == _ALL and not self.keywords:
            return (function, *offered[:3])
        if self.keywords:
            function = functools.partial(function, **{name: offered[place] for name, place in self.keywords})
        return (function, *(offered[place] for place in self.positional))


def callee_of(what: str, function: Callable[..., Any], offered: Sequence[str] = OF_WORK) -> Callee:
    """Return a function with its choice of the offered values: those that it names, in its own order.

    A function with other parameters takes the first three in order; one beyond them is given by name alone. Raises
    `PlanError` when neither call is possible.
    """
    try:
        signature = _own_signature(function)
    except ValueError:  # a builtin without a signature: only calling it can tell
        return Callee(function)
    places = {name: place for place, name in enumerate(offered)}
    positional: list[int] = []
    keywords: dict[str, int] = {}
    unknown: list[str] = []
    passed_over = False
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            keywords.update((name, place) for name, place in places.items() if place not in positional)
        elif name not in places:
            passed_over = True
            if parameter.default is parameter.empty:
                unknown.append(name)
        elif passed_over or parameter.kind is parameter.KEYWORD_ONLY or places[name] >= len(_ALL):
            passed_over = True
            keywords[name] = places[name]
        else:
            positional.append(places[name])
    if not unknown:
        taken = _ALL if tuple(positional) == _ALL else tuple(positional)
        return Callee(function, taken, tuple(keywords.items()))
    try:
        signature.bind(*offered[:3])
    except TypeError:
        raise PlanError(
            f"{what} asks for {', '.join(unknown)}; it takes what it names of {', '.join(offered)}, in any order"
        ) from None
    return Callee(function)


def reconcile_callee(function: Callable[..., Any]) -> Callee:
    """Return a reconcile function with the parameters that it takes.

    Raises `PlanError` when it cannot be called.
    """
    return callee_of("the reconcile function", function, ("ctx", "io", "effect"))


def _own_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature; for a wrapper that passes everything on, that of the wrapped function."""
    signature = inspect.signature(function, follow_wrapped=False)
    passes_on = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in signature.parameters.values())
    return inspect.signature(function) if passes_on else signature
