"""Sees the calls that a handler's own code makes of clocks, randomness and the environment (`io.ambient`).

What is the same however they are seen: `io.monitored` (from Python 3.12) or `io.profiled`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Hashable
from types import FrameType, FunctionType, MethodType
from typing import Any, Final, cast

from machine.io.ambient import Ambient
from machine.io.own_code import OwnCode, packages_of
from machine.io.places import Origin, origin_of
from machine.io.undeclared import Watch

__all__ = ["own_code", "seen_builtin", "seen_function"]

_MOST_KEPT: Final = 256


def own_code(function: Any) -> OwnCode:
    """Return the code of a handler and of what it can reach of the modules that are loaded now."""
    simple = isinstance(function, FunctionType | MethodType | functools.partial)
    return _own_code(cast("Hashable", function if simple else type(function)), len(sys.modules))


@functools.lru_cache(maxsize=_MOST_KEPT)
def _own_code(source: Any, _: int) -> OwnCode:
    code = OwnCode(packages_of(source))
    code.reach(source)
    return code


def seen_builtin(ambient: Ambient, caller: FrameType, watch: Watch) -> None:
    """Tell a watch that the code of a frame is about to call a builtin, if that counts."""
    if ambient.counts is None or ambient.counts(caller):
        watch.note(ambient.name, ambient.told(None), ambient.instead, caller)


def seen_function(ambient: Ambient, callee: FrameType, watch: Watch) -> None:
    """Tell a watch of a function that has just been entered, if the user's own code called it."""
    caller = callee.f_back
    if ambient.name.startswith(
        "os._Environ."
    ):  # the methods of a mapping stand between the reader and what it reads
        while caller is not None and caller.f_globals.get("__name__") in {"os", "_collections_abc"}:
            caller = caller.f_back
    while caller is not None and origin_of(caller, watch.own) is Origin.MADE:
        caller = caller.f_back
    if caller is None or origin_of(caller, watch.own) is not Origin.OWN:
        return
    if ambient.counts is None or ambient.counts(callee):
        watch.note(ambient.name, ambient.told(callee), ambient.instead, caller)
