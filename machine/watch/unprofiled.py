"""Calls of machine's own functions at full speed, in a thread that is profiled for a handler."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")
_WATCH: Final = "machine.watch.setprofile"
"""The name of the watch module, which is not imported for this: most runs do not need it."""


def unprofiled(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call a plain function in which nothing need be detected; a profiler of the user's sees it all the same."""
    profile = sys.getprofile()
    if getattr(profile, "__module__", None) != _WATCH:
        return function(*args, **kwargs)
    sys.setprofile(None)
    try:
        return function(*args, **kwargs)
    finally:
        sys.setprofile(profile)
