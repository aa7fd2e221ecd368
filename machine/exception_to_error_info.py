"""Conversion of an exception into its recorded form: the same words for the same failure, on every machine."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from machine import canonical
from machine.error_codes import CUT_CODES
from machine.errors import (
    CanonicalError,
    Code,
    ErrorCategory,
    ErrorInfo,
    IdError,
    IoError,
    MachineError,
    StateError,
)
from machine.ids import ErrorCode

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_ENGINE_CODES = CUT_CODES | {Code.CALL_CANCELLED.value, Code.NOT_DETERMINISTIC.value}
_CATEGORIES = frozenset(ErrorCategory)
_FRAMES = 8
_HERE = str(Path(__file__).parent)
_MESSAGE_MAX = 8192


def describe(exc: BaseException, *, hint: bool = True, redact: Callable[[str], str] = str) -> ErrorInfo:
    """Return the stored form of an exception that a handler or a transport raised.

    Errors of this library keep their own code and words; any other is `handler_error`, retryable, with its type
    under details; a group of several is retryable only if every one of them is. Memory addresses in the message are
    blanked and characters that no JSON string can hold are escaped, so that a replay produces the same text. `hint`
    adds what to do next to the message of an error of this library; `redact` removes secrets from messages before
    they are shortened.
    """
    while (only := sole_member(exc)) is not None:
        exc = only
    info = getattr(exc, "info", None)
    if isinstance(exc, MachineError) and isinstance(info, ErrorInfo):
        category = info.category if info.category in _CATEGORIES else ErrorCategory.UNKNOWN
        return ErrorInfo(
            _honest(info.code, exc),
            ErrorCategory(category),
            bool(info.retryable),
            clean(redact(_text(exc) if hint else str(info.message))),
            _json(info.details),
        )
    name = type(exc).__qualname__
    details: dict[str, Any] = {
        "exception": name
    }  # not its module, whose name depends on how the plan was loaded
    if isinstance(exc, BaseExceptionGroup):
        details["inner"] = [
            clean(redact(f"{type(sub).__qualname__}: {_text(sub)}")) for sub in exc.exceptions
        ]
    text = _text(exc)
    return ErrorInfo(
        Code.HANDLER_ERROR.value,
        ErrorCategory.UNKNOWN,
        retryable=_retryable(exc),
        message=clean(redact(f"{name}: {text}" if text else name)),
        details=_json(details),
    )


def sole_member(exc: BaseException) -> BaseException | None:
    """Return the only exception of a group, else None: a task group with one failure failed for that reason."""
    only: BaseException | None = None
    if isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        only = exc.exceptions[0]
    return only


def _retryable(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_retryable, exc.exceptions))
    info = getattr(exc, "info", None)
    return not (isinstance(exc, MachineError) and isinstance(info, ErrorInfo)) or bool(info.retryable)


def said(exc: BaseException) -> str:
    """Return an exception's type and text, as far as they are available."""
    text = _text(exc)
    name = type(exc).__qualname__
    return f"{name}: {text}" if text else name


def place(exc: BaseException) -> str:
    """Return the innermost frame of `trace`."""
    return trace(exc).rpartition("\n")[2]


def _honest(code: str, exc: MachineError) -> str:
    """Return an error's code, unless it is invalid or claims a fact that only the engine can know."""
    try:
        valid = str(ErrorCode(code))
    except IdError:
        valid = ""
    if valid and valid not in _ENGINE_CODES:
        return valid
    return (Code.IO_TRANSPORT_FAILED if isinstance(exc, IoError) else Code.HANDLER_ERROR).value


def refused(message: str, code: Code, *, retryable: bool = False) -> ErrorInfo:
    """Return the stored form of a failure the engine itself decides."""
    return StateError(message, code=code, retryable=retryable).info


def orphaned(state_id: str, *, limited: bool = False) -> ErrorInfo:
    """Return the error that closes an attempt which a crash left open, perhaps at a limit of its run."""
    if limited:  # as if its driver had closed it
        return interrupted(state_id, cancelled=False, limited=True)
    text = f"the attempt of {state_id} was left open by a crash"
    return refused(text, Code.ORPHAN_ATTEMPT_RECOVERED, retryable=True)


def interrupted(state_id: str, *, cancelled: bool, limited: bool = False) -> ErrorInfo:
    """Return the error of an interrupted attempt: by a limit or a cancel of its run, or by a stop of its driver."""
    if limited:
        return refused(f"the run has used up a limit in {state_id}", Code.LIMIT_EXCEEDED)
    if cancelled:
        return refused(f"the run was cancelled in {state_id}", Code.RUN_CANCELLED)
    return refused(f"the attempt of {state_id} was interrupted", Code.ATTEMPT_INTERRUPTED, retryable=True)


def suspended(state_id: str) -> ErrorInfo:
    """Return the error of an attempt that was put away at a wait and will go on with the answer."""
    return refused(f"the attempt of {state_id} waits", Code.ATTEMPT_SUSPENDED, retryable=True)


def trace(exc: BaseException) -> str:
    """Return where an exception was raised: file, line and function of frames outside this library, one a line.

    The first is that of the handler, however deep in other libraries the exception was raised.

    Empty for an error of this library after the handler had returned: the message is sufficient.
    """
    raised = traceback.extract_tb(exc.__traceback__)
    own = [frame for frame in raised if not frame.filename.startswith(_HERE)]
    frames = own if own or isinstance(exc, MachineError) else raised
    if len(frames) > _FRAMES:
        frames = [frames[0], *frames[1 - _FRAMES :]]
    lines = [f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames]
    return clean("\n".join(lines))


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # noqa: BLE001 - a user's __str__ may do anything
        return f"(its text cannot be had: {type(broken).__qualname__})"


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a user's __repr__ may do anything, and nesting may be too deep for any
        return f"a {type(value).__qualname__}"


def clean(text: str) -> str:
    """Return a text without memory addresses, shortened, with characters that no JSON string can hold escaped."""
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
        return {clean(str(key)): clean(_shown(value)) for key, value in details.items()}
    return value
