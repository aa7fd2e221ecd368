"""The origin of a frame's code: the user, a library, the standard library or this package."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any, Final


class Origin(Enum):
    """The origin of code."""

    OWN = "own"
    """The user's code: the handler, and the modules it uses that are not installed as a library."""
    LIBRARY = "library"
    STANDARD = "standard"
    ENGINE = "engine"
    """This package's code."""
    MADE = "made"
    """Code made at run time for some module, such as an `__init__`: it belongs to its caller."""


_BOTTOMS: Final = frozenset(
    {
        "machine.engine.handler_runner",
        "machine.engine.handler_threads",
        "asyncio.events",
        "asyncio.runners",
        "trio._core._run",
    }
)
"""Modules below which a stack is no longer the handler's: they call a handler, or run its tasks."""


_GO_ON: Final = frozenset(
    {
        *("importlib", "logging"),
        *("pdb", "bdb", "debugpy", "pydevd", "_pydevd_bundle", "coverage"),
    }
)
"""Packages whose acts never count, by whatever code: loading of modules, loggers, monitoring tools."""

_ACT: Final = frozenset({"platform", "uuid", "ctypes"})
"""Packages that start programs to inspect the system for needs of their own."""

_HARMLESS: Final = frozenset(
    {
        *_GO_ON,
        *_ACT,
        *("zipimport", "pkgutil", "encodings", "sysconfig", "zoneinfo", "gettext", "mimetypes", "ssl"),
        *("warnings", "traceback", "linecache", "inspect", "tokenize", "tracemalloc"),
    }
)
"""Packages that inspect the system for the interpreter's own needs, or for monitoring tools."""


def is_harmless(frame: FrameType | None, *, effect: bool = False) -> bool:
    """Say whether a frame acts only on behalf of an import, a log message, an error report or the like.

    An effect is harmless only in packages that may do anything, or by the standard library alone.
    """
    standard = True
    for at in above(frame):
        package = name_of(at.f_globals).partition(".")[0]
        if package in _GO_ON or _is_finaliser(at, package):
            return True
        if package in _HARMLESS and (not effect or (standard and package in _ACT)):
            return True
        standard = standard and origin_of(at, frozenset()) in {Origin.STANDARD, Origin.MADE}
    return False


def _is_finaliser(frame: FrameType, package: str) -> bool:
    """Say whether `weakref.finalize` calls something because an object is gone, so that nobody requested it."""
    return package == "weakref" and frame.f_code.co_name == "__call__" and frame.f_locals.get("_") is not None


def above(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames of the handler's stack, innermost first."""
    while frame is not None and name_of(frame.f_globals) not in _BOTTOMS:
        yield frame
        frame = frame.f_back


def leading_origin(frame: FrameType | None, own: frozenset[str]) -> Origin | None:
    """Return the origin of the code that led to an act, except the standard library, or None."""
    through = (origin_of(at, own) for at in above(frame))
    return next((origin for origin in through if origin not in {Origin.STANDARD, Origin.MADE}), None)


def name_of(namespace: dict[str, Any]) -> str:
    """Return the name of the module whose globals these are, empty when they have none."""
    name = dict.get(namespace, "__name__")  # of an object that is derived from dict, no method of its own
    return name if type(name) is str else ""


def own_frame(frame: FrameType | None, own: frozenset[str]) -> FrameType | None:
    """Return the innermost frame of the user's own code, or None."""
    return next((at for at in above(frame) if origin_of(at, own) is Origin.OWN), None)


def origin_of(frame: FrameType, own: frozenset[str]) -> Origin:
    """Return the origin of a frame's code; the packages `own` are the user's even if installed."""
    return _origin(frame.f_code.co_filename, frame.f_globals, own)


def is_own(filename: str, namespace: dict[str, Any], own: frozenset[str]) -> bool:
    """Say whether code of a file, with these globals, is the user's own."""
    return _origin(filename, namespace, own) is Origin.OWN


def is_made(filename: str, namespace: dict[str, Any]) -> bool:
    """Say whether code of a file, with these globals, was made at run time for some module."""
    return _origin(filename, namespace, frozenset()) is Origin.MADE


def _origin(filename: str, namespace: dict[str, Any], own: frozenset[str]) -> Origin:
    if filename.startswith("<") and not filename.startswith("<frozen "):
        # code without a file: of `python -c` or a prompt, or made by a library in a module that has one
        is_module = dict.__contains__(namespace, "__name__")
        return Origin.MADE if dict.__contains__(namespace, "__file__") or not is_module else Origin.OWN
    found = _origin_of_file(filename)
    if found is Origin.LIBRARY and own and name_of(namespace).partition(".")[0] in own:
        return Origin.OWN
    return found


@functools.lru_cache(maxsize=16384)
def _origin_of_file(filename: str) -> Origin:
    if filename.startswith("<frozen "):
        return Origin.STANDARD
    installed, standard, engine = _homes()
    if filename.startswith(engine):
        return Origin.ENGINE
    if filename.startswith(installed) or f"{os.sep}site-packages{os.sep}" in filename:
        return Origin.LIBRARY
    return Origin.STANDARD if filename.startswith(standard) else Origin.OWN


@functools.cache
def _homes() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the directories of libraries, of the standard library and of this package, each with its slash."""
    paths = {name: sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    standard = [paths["stdlib"], paths["platstdlib"], *(path for path in sys.path if path.endswith(".zip"))]
    standard.append(str(Path(os.__file__).parent))
    installed = [paths["purelib"], paths["platlib"], *(f"{path}/dist-packages" for path in standard)]
    return (_with_slash(installed), _with_slash(standard), _with_slash([str(Path(__file__).parents[1])]))


def _with_slash(paths: list[str]) -> tuple[str, ...]:
    both = {*paths, *(os.path.realpath(path) for path in paths)}
    return tuple(sorted(f"{path}{os.sep}" for path in both if path))
