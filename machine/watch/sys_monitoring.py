"""Detection of user calls by `sys.monitoring`, from Python 3.12, with events on the handlers' own code only.

The events are local to that code, and are off while no run is driven. Debuggers, coverage and profilers have tool
numbers of their own and are left alone.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, MethodDescriptorType
from typing import Any, Final

from machine.watch.entry_point_hooks import CLASSES, seen_class
from machine.watch.model_defaults import load_makers, makers
from machine.watch.nondeterministic_calls import resolved
from machine.watch.open_handles import bound_handle, open_handles
from machine.watch.safe_inspection import never_raises
from machine.watch.user_calls import own_code, seen_builtin, seen_function, seen_handle, seen_made
from machine.watch.user_code import OwnCode
from machine.watch.watch import Watch, watching

_monitoring: Final[Any] = getattr(sys, "monitoring", None)
_NUMBERS: Final = (4, 3)
"""Tool numbers that Python assigns to nobody."""


class _Tool:
    """This package's tool of `sys.monitoring`; `number` is None while it has none."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.number: int | None = None
        self.listeners = 0
        self.set_on: dict[int, CodeType] = {}
        self.modules: set[str] = set()
        self.stale = False


_tool: Final = _Tool()


def _heard(on_call: Any, on_start: Any, on_return: Any) -> None:
    _monitoring.register_callback(_tool.number, _monitoring.events.CALL, on_call)
    _monitoring.register_callback(_tool.number, _monitoring.events.PY_START, on_start)
    _monitoring.register_callback(_tool.number, _monitoring.events.PY_RETURN, on_return)


def _claimed() -> bool:
    if _tool.number is None:
        _tool.number = next((number for number in _NUMBERS if _monitoring.get_tool(number) is None), None)
        if _tool.number is not None:
            _monitoring.use_tool_id(_tool.number, "machine")
            for code in resolved().functions:
                _monitoring.set_local_events(_tool.number, code, _monitoring.events.PY_START)
    return _tool.number is not None


def _cover(own: OwnCode) -> None:
    if _tool.number is None:  # all numbers are taken: nothing can be detected
        return
    for code in own.codes:
        if id(code) not in _tool.set_on:
            _tool.set_on[id(code)] = code
            _monitoring.set_local_events(_tool.number, code, _monitoring.events.CALL)
    for code in makers().values():
        if id(code) not in _tool.set_on:
            _tool.set_on[id(code)] = code
            _monitoring.set_local_events(_tool.number, code, _monitoring.events.PY_RETURN)


class MonitoredWatch(Watch):
    """A watch that receives user calls from the events set on the handler's code."""

    @classmethod
    def listen(cls) -> None:
        """Begin to listen to calls of user code, for one more run."""
        with _tool.lock:
            _tool.listeners += 1
            if _tool.listeners == 1 and _claimed():
                _heard(_on_call, _on_start, _on_return)

    @classmethod
    def unlisten(cls) -> None:
        """Stop listening, for one run."""
        with _tool.lock:
            _tool.listeners -= 1
            if _tool.listeners == 0 and _tool.number is not None:
                _heard(None, None, None)

    def reach(self, function: Callable[..., Any]) -> None:
        """Set events on the code to be called and all code that it can reach."""
        own = own_code(function)
        self.own = own.own
        load_makers()
        if not own.covered:
            with _tool.lock:
                own.covered = True
                _tool.modules.update(sys.modules)
                _cover(own)

    def imports(self, name: str) -> None:
        """Inspect newly loaded modules before the next call is made."""
        del name
        _tool.stale = True


@never_raises(None)
def _refresh(watch: Watch) -> None:
    with _tool.lock:
        _tool.stale = False
        own = OwnCode(watch.own)
        own.reach_new(set(sys.modules) - _tool.modules)
        _tool.modules.update(sys.modules)
        _cover(own)


def _on_call(code: CodeType, offset: int, called: Any, argument: Any) -> Any:
    del offset
    if _tool.stale and (watch := watching()) is not None:
        _refresh(watch)
    kind = type(called)
    if kind is BuiltinFunctionType:
        ambient = resolved().builtins.get(called)
        if ambient is not None:
            if (watch := watching()) is not None:
                seen_builtin(ambient, sys._getframe(1), watch)  # noqa: SLF001 - the frame it is about
            return None
        if (handle := bound_handle(called)) is not None:
            if (watch := watching()) is not None:
                seen_handle(handle, called.__self__, sys._getframe(1), watch)  # noqa: SLF001 - the same
            return None
    elif kind is MethodDescriptorType:
        if (handle := open_handles().get(called)) is not None:
            if (watch := watching()) is not None:
                seen_handle(handle, argument, sys._getframe(1), watch)  # noqa: SLF001 - the same
            return None
    elif kind is type:
        if (point := CLASSES.get(called)) is not None:
            if (watch := watching()) is not None:
                seen_class(point, argument, sys._getframe(1), watch)  # noqa: SLF001 - the same
            return None
    else:
        return None
    # called by its own name, so it is meant here: the place need not be inspected again
    return _monitoring.DISABLE if called.__name__ in code.co_names else None


def _on_start(code: CodeType, offset: int) -> None:
    del offset
    watch = watching()
    if watch is not None:
        seen_function(resolved().codes[id(code)], sys._getframe(1), watch)  # noqa: SLF001 - the frame it is about


def _on_return(code: CodeType, offset: int, returned: Any) -> None:
    del code, offset
    watch = watching()
    if watch is not None:
        seen_made(sys._getframe(1), returned, watch)  # noqa: SLF001 - the frame it is about
