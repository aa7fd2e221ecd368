"""Undeclared IO: acts of a handler on the outside world, or reads of it, without `io`, and their reports.

A watch is held in a context variable, so that it follows the handler's context into its tasks, and with
`asyncio.to_thread` into threads. Code that runs in another context while a handler has its thread belongs to the
handler too: `in_step`. Everything behind `io` runs `unguarded`. Nothing is detected here: `watch.audit_hook` and
`watch.user_calls` do that.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, ContextVar, Token, copy_context
from pathlib import PurePath
from types import FrameType
from typing import Any, Final, Literal, TypeAlias

import attrs

from machine.watch.code_origin import own_frame
from machine.watch.code_owner import CALLER, ENGINE, RunningStep
from machine.watch.opened_files import Opened
from machine.watch.safe_inspection import never_raises
from machine.watch.user_code import packages_of

SETTING: Final = ', or allow it: --undeclared-io allow, from Python undeclared_io="allow"'
STEP: Final = "io.step(function, ...)"
"""The call of `io` for what has no other."""


@attrs.frozen
class Undeclared:
    """An undeclared act that a handler was about to perform.

    `event` is its name in Python (`time.time`, or the audit event `socket.connect`), `does` a description, `file`
    and `line` the place in the handler's code that led to it, and `remedy` the replacement. `effect` is true when
    it reaches or changes the outside world, which no replay does; otherwise it only reads it.
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
    """The watch over one call of a handler, which reports undeclared acts.

    `found` is called in place, before the act; an exception it raises prevents the act. `function` is the function
    to be called, `remedy` the replacement where that is no call of `io`; `alone` says whether it has started no
    task of its own. A watch that `follows` continues into started threads, where it has `effects_only`: it reports
    only acts that reach or change the outside world.
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
        """The packages whose code is the handler's own although they are installed like a library."""
        self.alone = alone
        self.follows = follows
        self.effects_only = effects_only
        self.ended = False
        self.temporary: set[str] = set()
        """The files that the handler has made with `tempfile`, which no other code can see."""
        self.opened = Opened()
        self._function = function
        self._found = found
        self._plain = plain
        self._remedy = remedy
        self.reach(function)

    @classmethod
    def listen(cls) -> None:
        """Begin to listen to calls of user code, for one more run."""

    @classmethod
    def unlisten(cls) -> None:
        """Stop listening, for one run."""

    def reach(self, function: Callable[..., Any]) -> None:
        """Find the packages that count as the handler's own code; a subclass also prepares what it can reach."""
        self.own = packages_of(function)

    def in_thread(self) -> Watch:
        """Return the watch over a thread that the watched code starts."""
        watch = Watch(
            self._found,
            self._function,
            plain=self._plain,
            remedy=self._remedy,
            follows=True,
            effects_only=True,
        )
        watch.temporary = self.temporary
        watch.opened = self.opened
        return watch

    def call_of_io(self, call: str) -> str:
        """Return a call of `io` as this handler must write it."""
        return call if self._plain else f"await {call}"

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
        """Report what the code of `frame` is about to do.

        `instead` is the call of `io` to make, and `remedy` the advice where there is no such call. `effect` says
        whether the act reaches or changes the outside world; with `effects_only` no other act is reported.
        """
        if self.effects_only and not effect:
            return
        at = own_frame(frame, self.own)
        file, line = (at.f_code.co_filename, at.f_lineno) if at is not None else _home(self._function)
        if instead:
            remedy = remedy or f'use "{self.call_of_io(instead)}"'
        else:
            remedy = remedy or f'do it in a step: "{self.call_of_io(STEP)}"{SETTING}'
        remedy = self._remedy or remedy
        token = _watching.set(False)  # the reporter may write to a log of its own
        try:
            self._found(Undeclared(event, does, file, line, remedy, effect))
        finally:
            _watching.reset(token)

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Awaitable[Any]:
        """Call a handler, watched, and return its awaitable. Call it in a context `guarded` by this watch."""
        return function(*args)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a plain-function handler in the current thread, watched, and return its result."""
        return function(*args)

    def imports(self, name: str) -> None:
        """Handle the import of a module of this name by the watched code, before it is loaded."""

    def pause(self) -> None:
        """Suspend the watch for work behind `io`."""

    def resume(self) -> None:
        """Resume the watch."""

    def end(self) -> None:
        """Stop watching: the handler has ended."""
        self.ended = True


_Watching: TypeAlias = Watch | Literal[False] | None

_watching: Final[ContextVar[_Watching]] = ContextVar("machine_watching", default=None)
"""The watch over the code of this context: False where everything is allowed, None where it is unset."""


class _Here(threading.local):
    context: Context | None = None
    """The context of the handler that this thread runs now."""


_here: Final = _Here()


def in_step(context: Context, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function for a handler whose context is `context`, and return its result.

    Code that it runs in a context without a watch is watched as the handler is meanwhile.
    """
    outer = _here.context
    _here.context = context
    try:
        return step(*args, **kwargs)
    finally:
        _here.context = outer


def watching() -> Watch | None:
    """Return the watch over the code that runs now, or None."""
    watch = _watching.get()
    # the context has no watch, or one of a handler that has ended: the current step determines it
    if (watch is None or (watch and watch.ended)) and (context := _here.context) is not None:
        watch = context.get(_watching, False)
    return watch or None


ALLOWED: Final[ContextVar[frozenset[str]]] = ContextVar("machine_allowed", default=frozenset())
"""The events that runs and replays driven in this context allow: a golden test may name some."""


@never_raises(("<unknown>", 0))
def _home(function: Any) -> tuple[str, int]:
    """Return the place of a handler, for an act that no line of the user's own led to."""
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else (type(function).__qualname__, 0)


class guarded:  # noqa: N801 - a context manager, used like a function
    """Watch the code in this context, its tasks, and their work in `to_thread`."""

    __slots__ = ("_token", "_watch")

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __enter__(self) -> None:
        self._token = _watching.set(self._watch)

    def __exit__(self, *exc: object) -> None:
        _reset(self._token)


def guarded_copy(watch: Watch) -> Context:
    """Return a copy of this context in which the code, its tasks, and their work in `to_thread` are watched."""
    context = copy_context()
    context.run(_watching.set, watch)
    return context


class unguarded:  # noqa: N801 - a context manager, used like a function
    """A context without a watch, for work of `io` and the engine on behalf of a handler; its owner is `ENGINE`.

    What runs as a step stays that. It is a class and not a generator for speed, because it is entered at every
    call of `io`.
    """

    __slots__ = ("_owner", "_token", "_watch")

    def __enter__(self) -> None:
        self._watch = watching()
        if self._watch is not None:
            self._token = _watching.set(False)
            self._watch.pause()
        owner = CALLER.get()
        changed = owner is not None and owner is not ENGINE and type(owner) is not RunningStep
        self._owner = CALLER.set(ENGINE) if changed else None

    def __exit__(self, *exc: object) -> None:
        if self._watch is not None:
            _reset(self._token)
            self._watch.resume()
        if self._owner is not None:
            with suppress(ValueError):  # closed in another context than it was begun in
                CALLER.reset(self._owner)


def _reset(token: Token[_Watching]) -> None:
    try:
        _watching.reset(token)
    except ValueError:  # closed in another context than it was begun in, which must not be changed here
        return


def behind_io(function: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Return a function that loads data for a handler's context outside its watch, because the engine reads it."""

    def load(artifact_id: str) -> bytes:
        with unguarded():
            return function(artifact_id)

    return load
