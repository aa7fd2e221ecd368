"""Reports of `watch.nondeterministic_calls` that a handler's own code makes.

This is the part that `watch.sys_monitoring` (from Python 3.12) and `watch.setprofile` share.
"""

from __future__ import annotations

import functools
import sys
from types import FrameType, FunctionType, MethodType
from typing import Any, Final

from machine.watch.code_origin import Origin, is_harmless, is_own, name_of, origin_of
from machine.watch.let_through import is_let_through
from machine.watch.library_uses import Use
from machine.watch.model_defaults import first_asked, made_in
from machine.watch.nondeterministic_calls import Ambient
from machine.watch.open_handles import OpenHandle
from machine.watch.safe_inspection import is_a, module_dict, module_of, never_raises
from machine.watch.user_code import OwnCode, holds_code, packages_of
from machine.watch.watch import STEP, Watch, unguarded

_MOST_KEPT: Final = 256
_CALLED: Final = (FunctionType, MethodType, functools.partial)
_THROUGH: Final = {
    "os._Environ.": frozenset({"os", "collections.abc"}),  # the methods of a mapping call one another
    "threading.": frozenset(
        {
            "threading",
            "concurrent.futures.thread",
            "concurrent.futures._base",
            "machine.watch.threads_and_programs",
        }
    ),
    "concurrent.": frozenset({"concurrent.futures._base", "machine.watch.threads_and_programs"}),
}
"""Modules that may stand between own code and the callee, by the beginning of the name."""

_kept: Final[dict[tuple[int, int], tuple[Any, OwnCode]]] = {}
"""The code found so far, by id: codes of a module loaded twice are equal, but only one of them has events."""


def own_code(function: Any) -> OwnCode:
    """Return the code of a handler and of all it can reach in the modules that are loaded now.

    The functions that one `def` makes share their code, so only their held values are inspected again.
    """
    is_function = type(function) is FunctionType
    if not is_function and not is_a(function, *_CALLED):
        function = type(function)
    code = function.__code__ if is_function else _code_of(function)
    key = id(code), len(sys.modules)
    kept = _kept.get(key)
    if kept is not None:
        own = kept[1]
        if is_function and holds_code(function):
            own.reach_held(function)
    else:
        while len(_kept) >= _MOST_KEPT:
            _kept.pop([*_kept][0], None)  # noqa: RUF015 - the oldest; in one step, for other threads do so too
        own = OwnCode(packages_of(function))
        own.reach(function)
        _kept[key] = code, own
    return own


def _code_of(function: Any) -> Any:
    """Return the code of a bound method, or else the object itself."""
    inner = function.__func__ if is_a(function, MethodType) else function
    return inner.__code__ if is_a(inner, FunctionType) else inner


def seen_builtin(ambient: Ambient, caller: FrameType, watch: Watch) -> None:
    """Report to a watch that the code of a frame is about to call a builtin, if that counts."""
    if _counts(ambient, caller, caller):
        watch.note(ambient.name, ambient.told(None), ambient.instead, caller)


def seen_function(ambient: Ambient, callee: FrameType, watch: Watch) -> None:
    """Report to a watch that a function has just been entered, if the user's own code called it."""
    caller = _own_caller(ambient, callee, watch)
    if caller is not None and _counts(ambient, callee, caller):
        watch.note(ambient.name, ambient.told(callee), ambient.instead, caller)


def seen_handle(handle: OpenHandle, one: Any, caller: FrameType, watch: Watch) -> None:
    """Report to a watch that the code of a frame is about to use something that was open before, if it was."""
    use = _of_handle(handle, one, caller, watch)
    if use is not None:
        watch.note(handle.name, use.does, STEP, caller, effect=use.effect)


@never_raises(None)
def _of_handle(handle: OpenHandle, one: Any, caller: FrameType, watch: Watch) -> Use | None:
    with unguarded():  # it may ask a database for its file
        use = handle.judge(one)
    if use is None or is_let_through(handle.name, use, caller, watch):
        return None
    opened = watch.opened.has(use.paths) if use.paths else watch.opened.has_connection(one)
    return None if opened else use


def seen_made(frame: FrameType, returned: Any, watch: Watch) -> None:
    """Report to a watch a model that a frame has made, if one of its used defaults is nondeterministic."""
    found = _asked_by_default(frame, returned, watch)
    if found is not None:
        ambient, caller = found
        watch.note(ambient.name, ambient.told(None), ambient.instead, caller)


@never_raises(None)
def _asked_by_default(frame: FrameType, returned: Any, watch: Watch) -> tuple[Ambient, FrameType] | None:
    caller = frame.f_back
    while caller is not None and name_of(caller.f_globals).startswith("pydantic"):
        caller = caller.f_back
    caller = own_caller(caller, watch)
    if caller is None or is_harmless(caller):
        return None
    for cls, given in made_in(frame, returned):
        inside = module_dict(sys.modules[module_of(cls)])
        ambient = first_asked(cls, given) if is_own(inside.get("__file__") or "", inside, watch.own) else None
        if ambient is not None:
            return ambient, caller
    return None


@never_raises(False)  # noqa: FBT003 - whether it counts
def _counts(ambient: Ambient, frame: FrameType, caller: FrameType) -> bool:
    return (ambient.counts is None or ambient.counts(frame)) and not is_harmless(caller)


@never_raises(None)
def _own_caller(ambient: Ambient, callee: FrameType, watch: Watch) -> FrameType | None:
    """Return the user's own frame that called a function, or None if another did."""
    caller = callee.f_back
    through = next((names for prefix, names in _THROUGH.items() if ambient.name.startswith(prefix)), ())
    while caller is not None and name_of(caller.f_globals) in through:
        caller = caller.f_back
    return own_caller(caller, watch)


def own_caller(frame: FrameType | None, watch: Watch) -> FrameType | None:
    """Return the user's own frame that makes a call, directly or in code made for it; None for others."""
    while frame is not None and origin_of(frame, watch.own) is Origin.MADE:
        frame = frame.f_back
    return frame if frame is not None and origin_of(frame, watch.own) is Origin.OWN else None
