"""From an exception to what a log says of it: the same words for the same failure, on every machine."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from machine import canonical
from machine.errors import CanonicalError, Code, ErrorCategory, ErrorInfo, MachineError, StateError
from machine.events import CUT_CODES

__all__ = ["describe", "trace"]

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_FRAMES = 8
_MESSAGE_MAX = 8192


def describe(exc: BaseException) -> ErrorInfo:
    """Return the stored form of a handler's exception.

    Errors of this library keep their own; any other is `handler_error`, retryable, with its type under details.
    Memory addresses in the message are blanked and what no JSON string can hold is escaped, so that a replay says
    the same.
    """
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]  # a task group with one failure failed for that reason
    if isinstance(exc, MachineError):
        info = exc.info
        if info.code in CUT_CODES:  # what cut an attempt comes from outside it; a handler cannot claim it
            info = ErrorInfo(Code.HANDLER_ERROR.value, info.category, info.retryable, "", info.details)
        message = _clean(_text(exc))
    else:
        name = type(exc).__qualname__
        text = _text(exc)
        info = ErrorInfo(
            Code.HANDLER_ERROR.value,
            ErrorCategory.UNKNOWN,
            retryable=True,
            message="",
            details={"exception": name},  # not its module, whose name depends on how the plan was loaded
        )
        message = _clean(f"{name}: {text}" if text else name)
        if isinstance(exc, BaseExceptionGroup):
            inner = [_clean(f"{type(sub).__qualname__}: {_text(sub)}") for sub in exc.exceptions]
            info = ErrorInfo(
                info.code, info.category, info.retryable, "", {**(info.details or {}), "inner": inner}
            )
    return ErrorInfo(info.code, info.category, info.retryable, message, _json(info.details))


def refused(message: str, code: Code, *, retryable: bool = False) -> ErrorInfo:
    """Return the stored form of a failure the engine itself decides."""
    return StateError(message, code=code, retryable=retryable).info


def trace(exc: BaseException) -> str:
    """Return where an exception was raised: file, line and function of the innermost frames, one a line."""
    frames = traceback.extract_tb(exc.__traceback__)[-_FRAMES:]
    lines = [f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames]
    return _clean("\n".join(lines))


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may do anything
        return f"(its text cannot be had: {type(broken).__qualname__})"


def _clean(text: str) -> str:
    text = _ADDRESS.sub("at 0x...", text)
    if len(text) > _MESSAGE_MAX:
        text = f"{text[:_MESSAGE_MAX]}... ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def _json(details: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if not details:
        return None
    try:
        value: Mapping[str, Any] = canonical.decode(canonical.encode(dict(details)))
    except CanonicalError:
        return {key: _clean(repr(value)) for key, value in details.items() if isinstance(key, str)}
    return value
