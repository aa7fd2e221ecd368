"""The default store, for calls that name none."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from machine.stores.base import Store

__all__ = ["DEFAULT_STORE", "DEFAULT_URL", "default_url", "with_default_store"]

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


def _opened(*, create: bool) -> Store:
    from machine.stores.url import open_store  # noqa: PLC0415 - `machine --help` reads the default's name alone

    return open_store(default_url(), create=create)


def with_default_store(*, create: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that opens the default store for a call without `store`; `create` makes its file."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        called: Any = function

        def is_given(kwargs: dict[str, Any]) -> bool:
            return kwargs.get("store", DEFAULT_STORE) is not DEFAULT_STORE

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            if is_given(kwargs):
                return await called(*args, **kwargs)
            with _opened(create=create) as store:
                return await called(*args, **{**kwargs, "store": store})

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            if is_given(kwargs):
                return called(*args, **kwargs)
            with _opened(create=create) as store:
                return called(*args, **{**kwargs, "store": store})

        return cast("Callable[P, R]", awaited if inspect.iscoroutinefunction(function) else plain)

    return decorate
