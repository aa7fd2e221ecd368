"""The nondeterministic calls of the standard library: clocks, randomness, the environment, the file system.

This is a table, and nothing is called here. A call counts when the handler's own code makes it directly;
`watch.user_calls` determines which code that is, and how its calls are detected.
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

from machine.watch.safe_inspection import is_a


@attrs.frozen
class Ambient:
    """One nondeterministic call: its dotted `name`, a description `does`, and the `io` call to make `instead`."""

    name: str
    does: str
    instead: str | None
    counts: Callable[[FrameType], bool] | None = None
    """Predicate for a call that counts, given the calling frame for a builtin, else the callee's frame."""
    shows: bool = False
    """True when the description includes the first argument after self."""

    @property
    def word(self) -> str:
        """The identifier in source code that makes this call, unless it was renamed: mostly the end of `name`."""
        last = self.name.rpartition(".")[2]
        return {"random.Random": "Random", "os._Environ": "environ"}.get(self.name.rpartition(".")[0], last)

    def told(self, callee: FrameType | None) -> str:
        """Return a description of the call."""
        if not self.shows or callee is None:
            return f"{self.does} ({self.name})"
        value = _argument(callee, 1)
        return f"{self.does} {str.__repr__(value)}" if is_a(value, str) else self.does


def _argument(callee: FrameType, position: int) -> Any:
    names = callee.f_code.co_varnames[: callee.f_code.co_argcount]
    return callee.f_locals.get(names[position]) if position < len(names) else None


def _at_most(count: int) -> Callable[[FrameType], bool]:
    """Say whether a frame's call has so few arguments that a builtin uses the present time."""

    def counts(caller: FrameType) -> bool:
        code, at = caller.f_code.co_code, caller.f_lasti
        name = dis.opname[code[at]]
        return name in {"CALL", "CALL_KW", "PRECALL"} and code[at + 1] <= count

    return counts


def _is_shared(callee: FrameType) -> bool:
    """Say whether a method is called on the shared random generator, or on the system's."""
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
"""The calls to detect. Randomness of a seeded generator is not among them."""


@attrs.frozen
class Found:
    """The table for this interpreter: builtins are keyed by the function, others by their code."""

    builtins: Mapping[Any, Ambient]
    codes: Mapping[int, Ambient]
    functions: tuple[CodeType, ...]
    words: Mapping[str, frozenset[int]]
    """The ids of the modules and classes that lead to each name."""
    targets: frozenset[int]
    """The ids of the functions to detect, and of the classes and objects whose every use counts."""


@functools.cache
def resolved() -> Found:
    """Return the table for this interpreter, without the entries that it lacks."""
    builtins: dict[Any, Ambient] = {}
    codes: dict[int, Ambient] = {}
    functions: list[CodeType] = []
    words: dict[str, set[int]] = {}
    targets = {id(os.environ), id(random.SystemRandom), id(random.Random)}
    for ambient in AMBIENT:
        *parents, thing = _path(ambient.name)
        if thing is None:  # this interpreter or platform lacks it
            continue
        words.setdefault(ambient.word, set()).update(map(id, parents))
        targets.add(id(thing))
        function = getattr(thing, "__func__", thing)
        wrapped = getattr(function, "__wrapped__", None)
        if isinstance(wrapped, BuiltinFunctionType):  # by `follow`, after a program may have imported it
            builtins.setdefault(wrapped, ambient)
        if isinstance(function, FunctionType):
            code = function.__code__
            codes.setdefault(id(code), ambient)
            functions.append(code)
        elif isinstance(thing, BuiltinFunctionType):
            builtins.setdefault(thing, attrs.evolve(ambient, counts=_of_builtin(ambient)))
    leading = {word: frozenset(parents) for word, parents in words.items()}
    return Found(builtins, codes, tuple(functions), leading, frozenset(targets))


def _of_builtin(ambient: Ambient) -> Callable[[FrameType], bool] | None:
    # the builtins of the shared generator are bound to it, so they never belong to another one
    return None if ambient.counts is _is_shared else ambient.counts


def _path(name: str) -> list[Any]:
    """Return the chain of objects that leads to an entry, the module first, and the entry itself last."""
    module, *path = name.split(".")
    try:
        things: list[Any] = [importlib.import_module(module)]
        if module == "concurrent":
            things.append(importlib.import_module(f"{module}.{path.pop(0)}"))
    except ImportError:  # a module that this platform lacks
        return [None]
    for part in path:
        things.append(getattr(things[-1], part, None))
    return things
