"""The entry point of a fresh process: it moves the clock before any other import, then starts a check.

This script is started by its path, because importing it as a module would import its package first. A library
that does `from time import time`, or `from datetime import datetime`, therefore gets the moved clock.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import errno
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

_CLOCKS: Final = ("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime")
_DATES: Final = ("time", "clock_gettime")
_moved_by: Final = {"dates": 0, "others": 0}
"""Nanoseconds."""


class _Moved:
    """A function of `time` that tells another time; like a builtin, it does not bind as a method."""

    def __init__(self, real: Callable[..., Any], call: Callable[..., Any]) -> None:
        self.__name__ = self.__qualname__ = real.__name__
        self.__doc__ = real.__doc__
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


def move_clock(seconds: int) -> None:
    """Move every clock that Python code can read, in this process, by a number of seconds."""
    _moved_by.update(dates=seconds * 10**9, others=seconds * 10**9)
    moved: dict[str, Any] = {}
    for name in _CLOCKS:
        which = "dates" if name in _DATES else "others"
        moved[name] = _later(getattr(time, name, None), which, 10**9)
        moved[f"{name}_ns"] = _later(getattr(time, f"{name}_ns", None), which, 1)
    now = moved["time"]
    for name in ("localtime", "gmtime", "ctime"):
        moved[name] = _at_now(getattr(time, name), now)
    here = moved["localtime"]
    moved["asctime"] = _of_now(time.asctime, 0, here)
    moved["strftime"] = _of_now(time.strftime, 1, here)
    replaced = {id(getattr(time, name)): by for name, by in moved.items() if by is not None}
    # a .pth file may have imported modules that already hold these functions
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name, value in list(vars(module).items()):
                if id(value) in replaced:
                    setattr(module, name, replaced[id(value)])
    _move_datetime(now)


def set_date(nanoseconds: int) -> None:
    """Let the moved clocks that tell the date continue from an instant; the others stay monotonic."""
    _moved_by["dates"] += nanoseconds - time.time_ns()


def _later(real: Callable[..., Any] | None, which: str, unit: int) -> _Moved | None:
    if real is None:
        return None
    if unit == 1:
        return _Moved(real, lambda *args: real(*args) + _moved_by[which])
    return _Moved(real, lambda *args: real(*args) + _moved_by[which] / unit)


def _at_now(real: Callable[..., Any], now: Any) -> _Moved:
    return _Moved(real, lambda seconds=None: real(now() if seconds is None else seconds))


def _of_now(real: Callable[..., Any], place: int, here: Any) -> _Moved:
    return _Moved(real, lambda *args: real(*args) if len(args) > place else real(*args, here()))


def _move_datetime(now: Any) -> None:
    """Replace the two `datetime` methods that ask the system instead of `time`; `today` already uses `time`.

    They are replaced in the class itself: a replacement class would be another type for code that checks the
    type.
    """

    def moved_now(cls: Any, tz: dt.tzinfo | None = None) -> dt.datetime:
        found: dt.datetime = cls.fromtimestamp(now(), tz)
        return found

    def moved_utcnow(cls: Any) -> dt.datetime:
        return moved_now(cls, dt.UTC).replace(tzinfo=None)

    (methods,) = gc.get_referents(dt.datetime.__dict__)
    methods["now"] = classmethod(moved_now)
    methods["utcnow"] = classmethod(moved_utcnow)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(dt.datetime))


def _share_ports() -> None:
    """Give a test server another port where its own is in use by the recording session.

    A replay makes no external call, so no server is needed; but a module or a fixture that starts one must not
    fail.
    """
    import socket  # noqa: PLC0415 - not before the clock was moved

    real = socket.socket.bind

    def bind(self: socket.socket, address: Any) -> None:
        try:
            real(self, address)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not isinstance(address, tuple | str | bytes):
                raise
            real(self, (address[0], 0, *address[2:]) if isinstance(address, tuple) else "")

    vars(socket)["socket"].bind = bind  # of this process, which ends after the check


def main() -> None:
    """Do the job read from stdin; findings go to stdout, and everything printed goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        job: dict[str, Any] = json.loads(sys.stdin.buffer.read())
        if job["clock"] != "real":
            move_clock(job["seconds"])
        sys.path[:] = job["path"]
        sys.argv[:] = job["argv"]
        _share_ports()
        from machine.testing.fresh_session import check  # noqa: PLC0415 - not before the clock was moved

        check(job, out, set_date if job["clock"] == "recorded" else None)


if __name__ == "__main__":
    main()
