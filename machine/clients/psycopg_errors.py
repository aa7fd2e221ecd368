"""Errors of psycopg as facts, with what their `diag` holds, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from psycopg import errors
from psycopg.pq import DiagnosticField

from machine.clients.sql_errors import failed
from machine.errors import Code, OtherIoError

_CLASSES: Final[Mapping[str, type[Exception]]] = {
    kind.__name__: kind
    for kind in (
        errors.Error,
        errors.InterfaceError,
        errors.DatabaseError,
        errors.DataError,
        errors.OperationalError,
        errors.IntegrityError,
        errors.InternalError,
        errors.ProgrammingError,
        errors.NotSupportedError,
        errors.ConnectionTimeout,
        errors.PipelineAborted,
        TypeError,
        ValueError,
        OverflowError,
        IndexError,
        KeyError,
    )
}
_NOT_OURS: Final = {
    DiagnosticField.SOURCE_FILE,
    DiagnosticField.SOURCE_LINE,
    DiagnosticField.SOURCE_FUNCTION,
}
"""Fields that only say where in the server's own code an error was raised."""
_AGAIN: Final = ("08", "40", "53", "57P", "55P03")
"""Beginnings of the codes of errors after which the same may succeed."""
_READ_ONLY: Final = "25006"


def recorded(exc: Exception, database: str, *, status: str, read_only: bool, broken: bool) -> OtherIoError:
    """Return the error to record for what psycopg raised; `status` is that of the transaction after it."""
    state = getattr(exc, "sqlstate", None)
    if read_only and state == _READ_ONLY:
        return OtherIoError(
            f"a statement changes {database}, and the state has not declared that it does: {exc}",
            code=Code.SIDE_EFFECT_NOT_DECLARED,
            hint='declare side_effects="apply_side_effect" and an idempotency key',
        )
    said: dict[str, Any] = {
        "class": next((kind.__name__ for kind in type(exc).__mro__ if kind.__name__ in _CLASSES), "Error"),
        "message": str(exc),
        "status": status,
    }
    if state:
        said["sqlstate"] = state
        said["diag"] = _diag(exc)
    if broken:
        said["broken"] = True
    again = (
        broken or (state or "").startswith(_AGAIN) or (not state and isinstance(exc, errors.OperationalError))
    )
    return failed(database, exc, said, retryable=again)


def _diag(exc: Any) -> dict[str, str]:
    known = ((field, getattr(exc.diag, _attribute(field), None)) for field in DiagnosticField)
    return {field.name: value for field, value in known if value is not None and field not in _NOT_OURS}


def _attribute(field: DiagnosticField) -> str:
    return field.name.lower()


def rebuilt(said: Mapping[str, Any]) -> Exception:
    """Return the exception of psycopg that an error was recorded for."""
    state = said.get("sqlstate")
    if not state:
        return _CLASSES.get(str(said["class"]), errors.DatabaseError)(said["message"])
    try:
        kind: Any = errors.lookup(state)
    except KeyError:
        kind = errors.get_base_exception(state)
    diag = said.get("diag", {})
    info = {field: diag[field.name].encode() if field.name in diag else None for field in DiagnosticField}
    exc: Exception = kind(said["message"], info=info, encoding="utf-8")
    return exc
