"""Undeclared IO: what a handler does to the outside, or learns from it, without `io`; and who is told of it.

A watch is kept in a context variable, so that it goes wherever the handler's context goes: into its tasks, and with
`asyncio.to_thread` into threads. Code that runs in another context while a handler has its thread is the handler's
too: `in_step`. Everything behind `io` runs `unguarded`. Nothing here finds anything: that is `watch.audit_hook` and
`watch.user_calls`.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar, Token
from pathlib import PurePath
from types import FrameType
from typing import Any, Final, Literal, TypeAlias

import attrs

from machine.watch.code_origin import own_frame
from machine.watch.static import never_raises
from machine.watch.user_code import packages_of

__all__ = [
    "ALLOWED",
    "SETTING",
    "Undeclared",
    "Watch",
    "behind_io",
    "guarded",
    "in_step",
    "unguarded",
    "watching",
]

SETTING: Final = ', or allow it: --undeclared-io allow, from Python undeclared_io="allow"'
NO_CALL: Final = f"make it a transport of the run's own{SETTING}"


@attrs.frozen
class Undeclared:
    """One thing that a handler was about to do by itself.

    `event` names it as Python does (`time.time`, or the audit event `socket.connect`), `does` says it in words,
    `file` and `line` are where the handler's code led to it, and `remedy` is what to write instead. `effect` says
    whether it reaches or changes the outside, which no replay does; else it is learned from the outside.
    """

    event: str
    does: str
    file: str
    line: int
    remedy: str
    effect: bool = False

    @property
    def place(self) -> str:
        """The file's name and the line: the same wherever the code is checked out."""
        return f"{PurePath(self.file).name}:{self.line}"

    def __str__(self) -> str:
        return f"{self.does} without io at {self.place}; {self.remedy}"


class Watch:
    """Who is told of what one call of a handler does by itself.

    `found` is called in place, before the thing is done; what it raises is raised there, and then it is not done.
    `function` is what will be called, `remedy` what to do instead where that is no call of `io`; `alone` says
    whether it has started no task of its own. One that `follows` goes into the threads that are started, where it
    has `effects_only`: it is told of nothing but what reaches or changes the outside.
    """

    def __init__(
        self,
        found: Callable[[Undeclared], None],
        function: Callable[..., Any],
        *,
        plain: bool,
        remedy: str | None = None,
        alone: Callable[[], bool] = lambda: True,
        follows: bool = False,
        effects_only: bool = False,
    ) -> None:
        self.own: frozenset[str] = frozenset()
        """The packages whose code is the handler's own although it is installed like a library."""
        self.alone = alone
        self.follows = follows
        self.effects_only = effects_only
        self.ended = False
        self.temporary: set[str] = set()
        """What the handler has made with `tempfile`: what is done there, nobody else can see."""
        self._function = function
        self._found = found
        self._plain = plain
        self._remedy = remedy
        self.reach(function)

    @classmethod
    def listen(cls) -> None:
        """Begin to listen to what own code calls, for one more run."""

    @classmethod
    def unlisten(cls) -> None:
        """Listen no more, for one run."""

    def reach(self, function: Callable[..., Any]) -> None:
        """See to it that the code of what will be called is looked at, and what that can reach."""
        self.own = packages_of(function)

    def in_thread(self) -> Watch:
        """Return the watch over a thread that the code which is watched starts."""
        watch = Watch(
            self._found,
            self._function,
            plain=self._plain,
            remedy=self._remedy,
            follows=True,
            effects_only=True,
        )
        watch.temporary = self.temporary
        return watch

    def note(
        self,
        event: str,
        does: str,
        instead: str | None,
        frame: FrameType | None,
        *,
        remedy: str | None = None,
        effect: bool = False,
    ) -> None:
        """Tell of what the code of `frame` is about to do.

        `instead` is the call of `io` to make, `remedy` what to do where that is none; `effect` says whether it
        reaches or changes the outside.
        """
        if self.effects_only and not effect:
            return
        at = own_frame(frame, self.own)
        file, line = (at.f_code.co_filename, at.f_lineno) if at is not None else _home(self._function)
        call = instead if self._plain else f"await {instead}"
        remedy = self._remedy or remedy or (f'use "{call}"' if instead else NO_CALL)
        token = _watching.set(False)  # whatever is made of it may write to a log of its own
        try:
            self._found(Undeclared(event, does, file, line, remedy, effect))
        finally:
            _watching.reset(token)

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Awaitable[Any]:
        """Call a handler, watched, and return what to await. To be entered `guarded` by this watch."""
        return function(*args)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a handler that is a plain function, watched, in the thread it is to run in."""
        return function(*args)

    def imports(self) -> None:
        """Note that a module is about to be loaded by the code that is watched."""

    def pause(self) -> None:
        """Look away: what follows is done behind `io`."""

    def resume(self) -> None:
        """Look again."""

    def end(self) -> None:
        """Note that the handler has come to its end, one way or another."""
        self.ended = True


_Watching: TypeAlias = Watch | Literal[False] | None

_watching: Final[ContextVar[_Watching]] = ContextVar("machine_watching", default=None)
"""The watch over the code that runs in this context, False where it may do as it likes, None where nobody said."""


class _Here(threading.local):
    context: Context | None = None
    """The context of the handler that has this thread now."""


_here: Final = _Here()


def in_step(context: Context, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what has this thread for a handler whose context is `context`, and return what it returns.

    What it runs in a context that knows of no watch is watched as the handler is then.
    """
    outer = _here.context
    _here.context = context
    try:
        return step(*args, **kwargs)
    finally:
        _here.context = outer


def watching() -> Watch | None:
    """Return the watch over the code that runs now, None where nobody watches."""
    watch = _watching.get()
    # a context that knows of none, or was kept by a handler that has ended: then it is whose step this is
    if (watch is None or (watch and watch.ended)) and (context := _here.context) is not None:
        watch = context.get(_watching, False)
    return watch or None


ALLOWED: Final[ContextVar[frozenset[str]]] = ContextVar("machine_allowed", default=frozenset())
"""The events that runs and replays driven in this context let through: a golden test may name some."""


@never_raises(("<unknown>", 0))
def _home(function: Any) -> tuple[str, int]:
    """Return where a handler stands, for what no line of the user's own led to."""
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else (type(function).__qualname__, 0)


class guarded:  # noqa: N801 - a context manager, used like a function
    """Have a watch told of what the code in this context does, and its tasks, and what they do `to_thread`."""

    __slots__ = ("_token", "_watch")

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __enter__(self) -> None:
        self._token = _watching.set(self._watch)

    def __exit__(self, *exc: object) -> None:
        _reset(self._token)


class unguarded:  # noqa: N801 - a context manager, used like a function
    """Let this context do as it likes: what `io` and the engine do on behalf of a handler.

    Entered at every call of `io`, so no generator.
    """

    __slots__ = ("_token", "_watch")

    def __enter__(self) -> None:
        self._watch = watching()
        if self._watch is not None:
            self._token = _watching.set(False)
            self._watch.pause()

    def __exit__(self, *exc: object) -> None:
        if self._watch is not None:
            _reset(self._token)
            self._watch.resume()


def _reset(token: Token[_Watching]) -> None:
    try:
        _watching.reset(token)
    except ValueError:  # closed by another context than it was begun in: that one is not ours to change
        return


def behind_io(function: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Return a function that loads what a handler reads of its context: the engine's doing, not the handler's."""

    def load(artifact_id: str) -> bytes:
        with unguarded():
            return function(artifact_id)

    return load
