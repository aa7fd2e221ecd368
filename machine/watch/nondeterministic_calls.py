"""What the standard library answers differently every time: clocks, randomness, the environment, the file system.

A table, and nothing is called here. A call counts when code of the handler's own makes it directly; which code that
is, and how its calls are seen, is in `watch.user_calls`.
"""

from __future__ import annotations

import dis
import functools
import importlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType
from typing import Any, Final

import attrs

from machine.watch.static import is_a

__all__ = ["AMBIENT", "Ambient", "Found", "resolved"]


@attrs.frozen
class Ambient:
    """One call: the dotted `name` it goes by, what it `does` in words, the call of `io` to make `instead`."""

    name: str
    does: str
    instead: str | None
    counts: Callable[[FrameType], bool] | None = None
    """Says whether this very call counts: of a builtin given the calling frame, else the frame of the callee."""
    shows: bool = False
    """Whether the first argument after self says of what."""

    @property
    def word(self) -> str:
        """The name by which a program that has not renamed it makes this call."""
        last = self.name.rpartition(".")[2]
        return {"random.Random": "Random", "os._Environ": "environ"}.get(self.name.rpartition(".")[0], last)

    def told(self, callee: FrameType | None) -> str:
        """Return in words what a call does."""
        if not self.shows or callee is None:
            return f"{self.does} ({self.name})"
        value = _argument(callee, 1)
        return f"{self.does} {str.__repr__(value)}" if is_a(value, str) else self.does


def _argument(callee: FrameType, position: int) -> Any:
    names = callee.f_code.co_varnames[: callee.f_code.co_argcount]
    return callee.f_locals.get(names[position]) if position < len(names) else None


def _at_most(count: int) -> Callable[[FrameType], bool]:
    """Return whether the call that a frame is making has so few arguments that a builtin takes the time now."""

    def counts(caller: FrameType) -> bool:
        code, at = caller.f_code.co_code, caller.f_lasti
        name = dis.opname[code[at]]
        return name in {"CALL", "CALL_KW", "PRECALL"} and code[at + 1] <= count

    return counts


def _is_shared(callee: FrameType) -> bool:
    """Say whether a method of a generator is called on the one that all share, or on the system's."""
    generator = _argument(callee, 0)
    return generator is _SHARED or is_a(generator, random.SystemRandom)


def _is_unseeded(callee: FrameType) -> bool:
    return _argument(callee, 1) is None


_SHARED: Final = getattr(random.random, "__self__", None)
_RANDOM: Final = "io.random()"
_BYTES: Final = "io.random_bytes(n)"
_NOW: Final = "io.now()"
_ENV: Final = "io.env(name)"
_READ: Final = "io.read_file(path)"


def _each(names: str, does: str, instead: str | None, **options: Any) -> Iterator[Ambient]:
    prefix, _, last = names.partition(": ")
    for name in last.split():
        yield Ambient(f"{prefix}.{name}", does, instead, **options)


AMBIENT: Final[tuple[Ambient, ...]] = (
    *_each(
        "time: time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns "
        "thread_time thread_time_ns clock_gettime clock_gettime_ns",
        "reads the clock",
        _NOW,
    ),
    *_each("time: localtime gmtime ctime asctime", "reads the clock", _NOW, counts=_at_most(0)),
    Ambient("time.strftime", "reads the clock", _NOW, _at_most(1)),
    Ambient("time.sleep", "waits", "io.sleep(seconds)"),
    *_each("datetime.datetime: now utcnow today", "reads the clock", _NOW),
    Ambient("datetime.date.today", "reads the clock", _NOW),
    *_each(
        "random: random uniform triangular randint choice randrange sample shuffle choices normalvariate "
        "lognormvariate expovariate vonmisesvariate gammavariate gauss betavariate binomialvariate paretovariate "
        "weibullvariate getstate setstate getrandbits randbytes seed",
        "uses the generator that all share",
        _RANDOM,
        counts=_is_shared,
    ),
    Ambient("random.Random.__init__", "makes a generator without a seed", _RANDOM, _is_unseeded),
    *_each("random.SystemRandom: random getrandbits randbytes", "draws randomness", _RANDOM),
    *_each("uuid: uuid1 uuid4 uuid6 uuid7 uuid8", "makes a UUID", "io.uuid()"),
    Ambient("uuid.getnode", "asks for the address of this machine", None),
    *_each("os: urandom getrandom", "draws randomness", _BYTES),
    *_each(
        "secrets: token_bytes token_hex token_urlsafe randbelow choice randbits", "draws randomness", _BYTES
    ),
    *_each("os._Environ: __getitem__", "reads the environment variable", _ENV, shows=True),
    *_each("os._Environ: __iter__ __len__ copy __repr__", "reads the environment", _ENV),
    *_each("os: getenv getenvb", "reads the environment", _ENV),
    *_each("os: getpid getppid getlogin times", "asks for what differs in every process", None),
    *_each(
        "_thread: start_new_thread start_joinable_thread", "starts a thread, which nobody can watch", None
    ),
    Ambient("threading.Thread.start", "starts a thread, which nobody can watch", None),
    *_each(
        "concurrent.futures.ThreadPoolExecutor: submit map",
        "hands work to threads, which nobody can watch",
        None,
    ),
    *_each("os: getcwd getcwdb", "asks for the working directory", None),
    *_each("pathlib.Path: cwd home", "asks for a directory of this machine", None),
    *_each("os: cpu_count process_cpu_count uname getloadavg", "asks about this machine", None),
    *_each("platform: node platform uname processor", "asks about this machine", None),
    *_each("getpass: getuser", "asks who runs this", None),
    *_each("os: stat lstat access readlink statvfs", "looks at the file system", _READ),
    *_each(
        "os.path: exists lexists isfile isdir islink getsize getmtime getatime getctime samefile",
        "looks at the file system",
        _READ,
    ),
    *_each(
        "pathlib.Path: exists is_file is_dir is_symlink stat lstat owner group readlink samefile",
        "looks at the file system",
        _READ,
    ),
)
"""What is looked for. Randomness that a generator with a seed gives is no such thing."""


@attrs.frozen
class Found:
    """The table as this interpreter has it: what is written in C by the function, what is not by its code."""

    builtins: Mapping[Any, Ambient]
    codes: Mapping[int, Ambient]
    functions: tuple[CodeType, ...]
    words: Mapping[str, frozenset[int]]
    """For each word, the ids of the modules and classes that lead to what it names."""
    targets: frozenset[int]
    """The ids of what is looked for, and of the classes and objects whose every use is."""


@functools.cache
def resolved() -> Found:
    """Return the table of this interpreter. What an older or newer one has not got is left out."""
    builtins: dict[Any, Ambient] = {}
    codes: dict[int, Ambient] = {}
    functions: list[CodeType] = []
    words: dict[str, set[int]] = {}
    targets = {id(os.environ), id(random.SystemRandom), id(random.Random)}
    for ambient in AMBIENT:
        *parents, thing = _path(ambient.name)
        if thing is None:  # this interpreter or platform has not got it
            continue
        words.setdefault(ambient.word, set()).update(map(id, parents))
        targets.add(id(thing))
        function = getattr(thing, "__func__", thing)
        if isinstance(function, FunctionType):
            code = function.__code__
            codes.setdefault(id(code), ambient)
            functions.append(code)
        elif isinstance(thing, BuiltinFunctionType):
            builtins.setdefault(thing, attrs.evolve(ambient, counts=_of_builtin(ambient)))
    leading = {word: frozenset(parents) for word, parents in words.items()}
    return Found(builtins, codes, tuple(functions), leading, frozenset(targets))


def _of_builtin(ambient: Ambient) -> Callable[[FrameType], bool] | None:
    # the builtins of the shared generator are bound to it, so they are never another one's
    return None if ambient.counts is _is_shared else ambient.counts


def _path(name: str) -> list[Any]:
    """Return what leads to a thing, the module first, and the thing itself last."""
    module, *path = name.split(".")
    try:
        things: list[Any] = [importlib.import_module(module)]
        if module == "concurrent":
            things.append(importlib.import_module(f"{module}.{path.pop(0)}"))
    except ImportError:  # a module that this platform has not got
        return [None]
    for part in path:
        things.append(getattr(things[-1], part, None))
    return things
