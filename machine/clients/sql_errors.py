"""Errors of databases as facts, and back as exceptions of the library's own classes, live as in a replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machine.errors import Code, IoError, OtherIoError

ERROR: Final = "sql_error"
"""Detail of a recorded error: the class by its name, and what is needed to build one like it."""


def failed(
    database: str, exc: BaseException, said: Mapping[str, Any], *, retryable: bool = False
) -> OtherIoError:
    """Return the error to record for an exception of a library; `said` is what rebuilds it."""
    return OtherIoError(
        f"{database}: {type(exc).__name__}: {exc}".rstrip(),
        code=Code.SQL_ERROR,
        retryable=retryable,
        details={ERROR: dict(said)},
    )


def said_by(exc: IoError) -> Mapping[str, Any] | None:
    """Return what rebuilds the exception of a library, or None for an error of this library's own."""
    said = (exc.info.details or {}).get(ERROR)
    return said if isinstance(said, Mapping) else None


def not_recorded(what: str, hint: str = "call it in a step: io.step(function, ...)") -> OtherIoError:
    """Return the refusal of something that a recorded connection cannot do."""
    return OtherIoError(f"{what} cannot be recorded", code=Code.SQL_NOT_RECORDED, hint=hint)


def uncertain_commit(database: str) -> OtherIoError:
    """Return the error of an effect whose answer was lost with the connection, and which could not be looked up."""
    return OtherIoError(
        f"the connection to {database} broke while an effect was sent, and nobody can say whether it happened",
        code=Code.EFFECT_UNCERTAIN,
        hint="see what is there, and say so with `machine resolve`",
    )
