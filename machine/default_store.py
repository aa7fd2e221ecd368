"""The default store, for calls that name none."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from machine.stores.base import Store

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_URL: Final = "sqlite:///.machine/runs.db"


class _DefaultStore:
    def __repr__(self) -> str:
        return "the default store"


DEFAULT_STORE: Final = cast("Store", _DefaultStore())
"""The default of a parameter `store`, replaced by the store that `default_url` names while the call lasts."""


def default_url() -> str:
    """Return the URL of the default store: `$MACHINE_STORE`, else `DEFAULT_URL`."""
    return os.environ.get("MACHINE_STORE") or DEFAULT_URL


@contextmanager
def _with_store(kwargs: dict[str, Any], *, create: bool) -> Iterator[dict[str, Any]]:
    """Give the arguments with a store: the one that is among them, or the default, open meanwhile."""
    if kwargs.get("store", DEFAULT_STORE) is not DEFAULT_STORE:
        yield kwargs
        return
    from machine.stores.open_url import open_store  # noqa: PLC0415 - `machine --help` reads the default's name alone

    with open_store(default_url(), create=create) as store:
        yield {**kwargs, "store": store}


def with_default_store(*, create: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that opens the default store for a call without `store`; `create` makes its file."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        called: Any = function

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with _with_store(kwargs, create=create) as complete:
                return await called(*args, **complete)

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            with _with_store(kwargs, create=create) as complete:
                return called(*args, **complete)

        return cast("Callable[P, R]", awaited if inspect.iscoroutinefunction(function) else plain)

    return decorate
