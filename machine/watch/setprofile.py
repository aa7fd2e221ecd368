"""Detection of user calls by a profile function, before Python 3.12, only while a thread runs a handler's code.

It is used only where the handler's code has a name by which it could make a call to detect, because a profile
function slows down all code it sees. An existing profiler is left alone, and then nothing is detected.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from collections.abc import Set as AbstractSet
from types import FrameType
from typing import Any, Final, Self

from machine.watch.model_defaults import asks, load_makers, makers
from machine.watch.nondeterministic_calls import resolved
from machine.watch.open_handles import bound_handle, is_handle
from machine.watch.reachable_names import all_names, reachable_names
from machine.watch.safe_inspection import is_a, module_dict, never_raises
from machine.watch.user_calls import own_caller, own_code, seen_builtin, seen_function, seen_handle, seen_made
from machine.watch.user_code import OwnCode, may_load_own
from machine.watch.watch import Watch, watching

_shared: Final[Counter[int]] = Counter()
"""Maps a thread to its number of running handlers with hidden steps; it is profiled while there are any."""


_looked_at: Final[dict[int, OwnCode]] = {}
"""The code whose uncalled functions this run has looked at."""


class ProfiledWatch(Watch):
    """A watch that turns the profile function on while the handler's own code runs."""

    _needed = _is_shared = False
    _thread = 0

    @classmethod
    def listen(cls) -> None:
        """Look again, in the next run, for what has come to hold a function since."""
        _looked_at.clear()

    def reach(self, function: Callable[..., Any]) -> None:
        """Determine whether the code to be called could make a call to detect at all."""
        own = own_code(function)
        self.own = own.own
        load_makers()
        if own.unheld and id(own) not in _looked_at:
            _looked_at[id(own)] = own
            if not all(each.still for each in own.unheld):
                own.suspected = None
        if own.suspected is None:
            own.suspected = _is_suspect(own)
        self._needed = own.suspected

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Awaitable[Any]:
        """Call a handler, with its steps profiled if necessary, and return its awaitable."""
        if self._needed:
            return _Steps(self, function, args)
        self._thread = threading.get_ident()
        return function(*args)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a plain-function handler in its thread, profiled."""
        self.step_begins()
        try:
            return function(*args)
        finally:
            self._off()

    def imports(self, name: str) -> None:
        """Profile from here on if the module may be the user's, because its contents are unknown."""
        if not may_load_own(name, self.own):
            return
        if not self._needed:
            self._needed = True
            self._share()  # nothing marks where the steps of the handler begin and end
        self.resume()

    def step_begins(self) -> None:
        """Start profiling, because code of the handler is about to run in this thread."""
        self._thread = threading.get_ident()
        if watching() is self:
            self._on()

    def step_ends(self) -> None:
        """Stop profiling, because the event loop is about to continue with other code."""
        if self._needed and not self._is_shared and not self.alone():
            self._share()
        self._off()

    def pause(self) -> None:
        """Stop profiling during work behind `io`."""
        if threading.get_ident() == self._thread:
            self._off()

    def resume(self) -> None:
        """Resume profiling."""
        if threading.get_ident() == self._thread:
            self._on()

    def end(self) -> None:
        """End profiling."""
        self.ended = True
        if self._is_shared:
            self._is_shared = False
            _shared[self._thread] -= 1
        if self._needed:
            self._off()

    def _share(self) -> None:
        self._is_shared = True
        _shared[self._thread] += 1

    def _on(self) -> None:
        if self._needed and sys.getprofile() is None:
            sys.setprofile(_profile)

    def _off(self) -> None:
        if sys.getprofile() is _profile and not _shared[threading.get_ident()]:
            sys.setprofile(None)


class _Steps:
    """An awaitable of a handler that reports to its watch where each step begins and ends."""

    def __init__(self, watch: ProfiledWatch, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._watch = watch
        self._function = function
        self._args = args
        self._inner: Any = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has all that `await` needs of a generator

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Run the handler's next step with a value, and report to the watch where the step begins and ends."""
        self._watch.step_begins()
        try:
            if self._inner is None:
                self._inner = self._function(*self._args).__await__()
            send = getattr(self._inner, "send", None)
            awaited = send(value) if send is not None else next(self._inner)
        except BaseException:  # it has come to its end
            self._watch.pause()
            raise
        self._watch.step_ends()
        return awaited

    def throw(self, *exc: Any) -> Any:
        """Run the handler's next step with an exception, and report to the watch as `send` does."""
        self._watch.step_begins()
        try:
            awaited = self._inner.throw(*exc)
        except BaseException:  # the same
            self._watch.pause()
            raise
        self._watch.step_ends()
        return awaited

    def close(self) -> None:
        """Close the handler."""
        if self._inner is not None:
            self._inner.close()


def _profile(frame: FrameType, event: str, arg: Any) -> None:
    if event == "c_call":
        ambient = resolved().builtins.get(arg)
        handle = bound_handle(arg) if ambient is None else None
        watch = watching() if ambient is not None or handle is not None else None
        if watch is not None and own_caller(frame, watch) is not None:
            if ambient is not None:
                seen_builtin(ambient, frame, watch)
            elif handle is not None:
                seen_handle(handle, arg.__self__, frame, watch)
    elif event == "call":
        ambient = resolved().codes.get(id(frame.f_code))
        if ambient is not None and (watch := watching()) is not None:
            seen_function(ambient, frame, watch)
    elif event == "return" and id(frame.f_code) in makers() and (watch := watching()) is not None:
        seen_made(frame, arg, watch)


@never_raises(True)  # noqa: FBT003 - then it is looked at
def _is_suspect(own: OwnCode) -> bool:
    """Say whether code may make a call to detect: it has an alias of it, or the names of it and its module."""
    own.unheld = ()
    if any(is_a(value, type) and asks(value) for value in own.held.values()):
        return True
    if not _may_call(own, all_names(own)):
        return False
    names, unheld = reachable_names(own)
    if _may_call(own, names):
        return True
    own.unheld = unheld
    return False


def _may_call(own: OwnCode, names: AbstractSet[str]) -> bool:
    """Say whether code that uses these names may make a call to detect."""
    found = resolved()
    modules = [module_dict(module) for module in own.modules]
    values = [value for inside in modules for name, value in list(inside.items()) if name in names]
    values += own.held.values()
    if any(map(is_handle, values)):
        return True
    bound = set(map(id, values))
    if bound & found.targets or any(type(value) is type(len) and value in found.builtins for value in values):
        return True
    bound |= {id(sys.modules.get(name)) for name in names}
    return any(word in names and bound & leading for word, leading in found.words.items())
