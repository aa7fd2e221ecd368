"""A recorded connection of whichever library a given function would open one with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from machine.clients.recording import keep_recording
from machine.errors import UsageError
from machine.recorded_clients import module_of


def connect(io: Any, opener: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return what `opener(*args, **options)` would, recorded by an `io`. Raises `UsageError` for an unknown one."""
    owner = getattr(opener, "__self__", None)
    kind = owner if isinstance(owner, type) else None
    library = _library_of(opener, kind)
    if library is None:
        raise UsageError(
            f"{opener!r} opens no connection that can be recorded",
            hint="give the `connect` of sqlite3, psycopg or duckdb, or that of psycopg.AsyncConnection; or call it "
            "in a step: io.step(function, ...)",
        )
    if "sqlalchemy" in sys.modules:
        keep_recording("sqlalchemy")
    module = module_of(library)
    if library != "psycopg":
        return module.connect(io, *args, **options)
    import psycopg  # noqa: PLC0415 - only for those who give its function

    if kind is not None and issubclass(kind, psycopg.AsyncConnection):
        return module.connect_async(io, *args, kind=kind, **options)
    return module.connect(io, *args, kind=kind or psycopg.Connection, **options)


def _library_of(opener: Callable[..., Any], kind: type[Any] | None) -> str | None:
    names = {base.__module__ for base in kind.__mro__} if kind is not None else {opener.__module__ or ""}
    roots = {name.partition(".")[0].removeprefix("_") for name in names}
    return next((name for name in ("sqlite3", "psycopg", "duckdb") if name in roots), None)
