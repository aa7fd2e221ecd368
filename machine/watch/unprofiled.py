"""Work of machine's own at full speed, where a thread is profiled to see what a handler calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

__all__ = ["unprofiled"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_WATCH: Final = "machine.watch.setprofile"
"""Not imported for it: most runs have no use for it."""


def unprofiled(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call a plain function in which nothing is to be seen; a profiler of the user's sees it all the same."""
    profile = sys.getprofile()
    if getattr(profile, "__module__", None) != _WATCH:
        return function(*args, **kwargs)
    sys.setprofile(None)
    try:
        return function(*args, **kwargs)
    finally:
        sys.setprofile(profile)
