"""Calls of the handler's own code on what was open before: files, sockets, and databases of SQLite.

Their classes are written in C, and Python announces nothing. This is a table, with what a call does; the calls are
found as those of `watch.nondeterministic_calls` are.
"""

from __future__ import annotations

import _io
import functools
import os
from collections.abc import Callable, Mapping
from types import MethodDescriptorType
from typing import Any, Final

import attrs

from machine.watch.library_uses import Use, sqlite_files
from machine.watch.safe_inspection import bases_of, class_dict, is_a, static_name


@attrs.frozen
class OpenHandle:
    """A method of something that was open before: its `name`, and the use of `self` that a call makes, if any."""

    name: str
    judge: Callable[[Any], Use | None]


_FILES: Final = (_io.TextIOWrapper, _io.BufferedReader, _io.BufferedWriter, _io.BufferedRandom, _io.FileIO)
_READING: Final = "read read1 readall readinto readinto1 readline readlines peek"
_RECEIVING: Final = "recv recv_into recvfrom recvfrom_into recvmsg"
_WRITING: Final = "write writelines truncate"


def _file(file: Any, does: str, *, effect: bool) -> Use | None:
    """Judge a call on a file: one that has a name, and is not what the process prints to."""
    if type(file) not in _FILES or any(file is static_name("sys", name) for name in _STREAMS):
        return None
    name = file.name
    if type(name) is bytes:
        name = os.fsdecode(name)
    if type(name) is not str or name == os.devnull or file.fileno() <= _LAST_STREAM:
        return None
    return Use(f"{does} the file {name!r} (open before)", effect, (name,))


_STREAMS: Final = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
_LAST_STREAM: Final = 2  # the descriptor of stderr


def _socket(one: Any) -> Use | None:
    kind: Any = static_name("socket", "socket")
    if kind is None or not is_a(one, kind):
        return None
    return Use("reads from a connection (open before)", effect=False)


def _database(one: Any) -> Use | None:
    kind: Any = static_name("sqlite3", "Cursor")
    paths = tuple(sqlite_files(one.connection if kind and is_a(one, kind) else one))
    return Use(f"uses the database {paths[0]!r} (open before)", effect=True, paths=paths) if paths else None


_SQLITE: Final = {
    "Connection": "execute executemany executescript commit backup blobopen",
    "Cursor": "execute executemany executescript",
}


@functools.cache
def _methods_of_files() -> Mapping[Any, OpenHandle]:
    found: dict[Any, OpenHandle] = {}
    for kind in _FILES:
        for names, does, effect in ((_READING, "reads", False), (_WRITING, "writes to", True)):
            for name in names.split():
                if (method := getattr(kind, name, None)) is not None:
                    owner = method.__objclass__.__name__.lstrip("_")  # methods may be those of a common base
                    judge = functools.partial(_file, does=does, effect=effect)
                    found[method] = OpenHandle(f"{owner}.{name}", judge)
    return found


@functools.cache
def _methods(*, sqlite: bool, sockets: bool) -> Mapping[Any, OpenHandle]:
    found = dict(_methods_of_files())
    if sqlite:
        for kind, names in _SQLITE.items():
            for name in names.split():
                if (method := getattr(static_name("sqlite3", kind), name, None)) is not None:
                    found[method] = OpenHandle(f"sqlite3.{kind}.{name}", _database)
    if sockets:
        for name in _RECEIVING.split():
            found[getattr(static_name("socket", "socket"), name)] = OpenHandle(f"socket.{name}", _socket)
    return found


def open_handles() -> Mapping[Any, OpenHandle]:
    """Return the methods to look for, those of modules that are not loaded excepted."""
    return _methods(
        sqlite=static_name("sqlite3", "Connection") is not None,
        sockets=static_name("socket", "socket") is not None,
    )


_NAMES: Final = frozenset(" ".join((_READING, _WRITING, _RECEIVING, *_SQLITE.values())).split())


def bound_handle(method: Any) -> OpenHandle | None:
    """Return what to look for that a method of an object is, given as `object.method`, or None."""
    if method.__name__ not in _NAMES:
        return None
    methods = open_handles()
    for cls in bases_of(type(method.__self__)):
        raw = class_dict(cls).get(method.__name__)
        if raw is not None:
            return methods.get(raw) if type(raw) is MethodDescriptorType else None
    return None


@functools.cache
def _kinds(sqlite: type | None, sockets: type | None) -> tuple[type, ...]:
    of_sqlite = (sqlite, static_name("sqlite3", "Cursor")) if sqlite else ()
    return (*_FILES, *of_sqlite, *((sockets,) if sockets else ()))


def is_handle(value: Any) -> bool:
    """Say whether a value is a file, a socket or an SQLite database."""
    return is_a(value, *_kinds(static_name("sqlite3", "Connection"), static_name("socket", "socket")))
