"""Exceptions of steps as facts, and back.

An exception is raised as itself when its class is at hand (a builtin, a class in `raises=`, one of the function's
own module) and it survives the trip through JSON. Any other becomes a `StepError`. No module is imported because a
recording names it. The live handler gets what a replay will raise.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from machine import canonical
from machine.errors import Code, CodecError, ErrorInfo, MachineError, StepError
from machine.exception_to_error_info import clean, said
from machine.io.function_names import home_of, unwrapped
from machine.io.step_values import decode, encode

_MOST_CAUSES: Final = 8


def failure_of(
    exc: BaseException, function: Callable[..., Any], raises: Sequence[type[Exception]]
) -> StepError:
    """Return the error to record for an exception that the function of a step raised."""
    info = getattr(exc, "info", None)
    own = info if isinstance(exc, MachineError) and isinstance(info, ErrorInfo) else None
    details: dict[str, Any] = {"exception": type(exc).__qualname__}
    if causes := _causes(exc):
        details["causes"] = causes
    error = StepError(
        said(exc),
        code=Code.STEP_FAILED if own is None else own.code,
        retryable=True if own is None else own.retryable,
        details={**details, **_rebuildable(exc, function, raises)},
    )
    rebuilt = original_of(error, function, raises)
    if rebuilt is None or not _same(exc, rebuilt):
        error.info = StepError(
            error.message, code=error.code, retryable=error.retryable, details=details
        ).info
    return error


def original_of(
    error: StepError, function: Callable[..., Any], raises: Sequence[type[Exception]]
) -> Exception | None:
    """Return the exception that a recorded failure of a step stands for, None for the `StepError` itself."""
    details = error.info.details or {}
    name, home = details.get("exception"), details.get("class")
    cls = _class_at(str(home), str(name), function, raises)
    if cls is None:
        return None
    try:
        args = decode(details["args"])
        state = decode(details.get("state", {}))
    except (CodecError, LookupError):
        return None
    makes: tuple[Callable[[], Any], ...] = (lambda: cls(*args), lambda: _without_init(cls, args))
    for make in makes:
        try:
            made = make()
            BaseException.__setstate__(made, state)
        except Exception:  # noqa: BLE001, S112 - constructors of users may refuse anything
            continue
        if type(made) is cls and _reduced(made) == (args, state):
            found: Exception = made
            return found
    return None


def _without_init(cls: type[Exception], args: tuple[Any, ...]) -> Exception:
    made: Exception = cls.__new__(cls, *args)
    made.args = args
    return made


def _rebuildable(
    exc: BaseException, function: Callable[..., Any], raises: Sequence[type[Exception]]
) -> Mapping[str, Any]:
    """Return where the class of an exception is at hand, its arguments and attributes; empty if it is not."""
    cls = type(exc)
    homes = ("builtin", "raises", "module")
    home = next((home for home in homes if _class_at(home, cls.__qualname__, function, raises) is cls), None)
    reduced = _reduced(exc)
    if home is None or reduced is None:
        return {}
    args, state = reduced
    try:
        stored = {"class": home, "args": encode(args), **({"state": encode(state)} if state else {})}
        canonical.encode(stored)
    except MachineError:
        return {}
    return stored


def _class_at(
    home: str, name: str, function: Callable[..., Any], raises: Sequence[type[Exception]]
) -> type[Exception] | None:
    found: Any = None
    if home == "builtin":
        found = getattr(builtins, name, None)
    elif home == "raises":
        found = next((cls for cls in raises if cls.__qualname__ == name), None)
    elif home == "module":
        module = getattr(unwrapped(function), "__module__", None)
        try:
            found = operator.attrgetter(name)(home_of(function, str(module)))
        except AttributeError:
            return None
        if getattr(found, "__module__", None) != module:  # one that it has imported
            return None
    fits = isinstance(found, type) and issubclass(found, Exception) and found.__qualname__ == name
    return found if fits else None


def _reduced(exc: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the arguments and the attributes of an exception as `pickle` would keep them, None if it could not."""
    try:
        reduced = exc.__reduce__()
    except Exception:  # noqa: BLE001 - a class of the user's may define anything
        return None
    if not isinstance(reduced, tuple) or reduced[0] is not type(exc):
        return exc.args, dict(vars(exc))
    args, state = reduced[1], reduced[2] if len(reduced) > 2 else None  # noqa: PLR2004 - the protocol of pickle
    if not isinstance(args, tuple) or not isinstance(state, dict | None):
        return None
    return args, dict(state or {})


def _same(exc: BaseException, rebuilt: Exception) -> bool:
    try:
        return (
            type(exc) is type(rebuilt)
            and str(exc) == str(rebuilt)
            and repr(_reduced(exc)) == repr(_reduced(rebuilt))
        )
    except Exception:  # noqa: BLE001 - the same
        return False


def _causes(exc: BaseException) -> list[str]:
    """Return what is behind an exception, nearest first, without places in the code, which change too easily."""
    found: list[str] = []
    seen = {id(exc)}
    behind = exc
    while len(found) < _MOST_CAUSES:
        hidden = behind.__suppress_context__ or behind.__context__ is None
        following = behind.__cause__ or (None if hidden else behind.__context__)
        if following is None or id(following) in seen:
            break
        seen.add(id(following))
        found.append(clean(said(following)))
        behind = following
    return found
