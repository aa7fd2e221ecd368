"""Hooks before the entry points of libraries that reach files and services in C.

Once a library of the table is loaded, each of its entry points is replaced by a function that reports the call to
the watch of the handler that makes it, if there is one, and passes it on. A function that other modules hold by a
name of theirs is replaced there too. Nothing is imported, and a module that is still loading is left alone until it
has loaded.
"""

from __future__ import annotations

import functools
import gc
import inspect
import sys
import threading
from collections.abc import Mapping, Sequence
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final

from machine.watch.after_import import after_import, is_loading
from machine.watch.code_origin import Origin, leading_origin, name_of
from machine.watch.entry_points import ENTRY_POINTS, EntryPoint
from machine.watch.let_through import is_let_through
from machine.watch.library_uses import Use
from machine.watch.recorded_clients import client_of, has_client
from machine.watch.safe_inspection import bases_of, class_dict, is_a, module_dict, never_raises
from machine.watch.watch import STEP, Watch, unguarded, watching

_BY_MODULE: Final[dict[str, list[EntryPoint]]] = {}
for _point in ENTRY_POINTS:
    _BY_MODULE.setdefault(_point.module, []).append(_point)

_hooked: Final[dict[str, ModuleType]] = {}
"""The modules whose entry points have their hooks, by name."""

CLASSES: Final[dict[type, EntryPoint]] = {}
"""The classes that reach files when called. As no class can be replaced, only `watch.sys_monitoring` sees calls."""

_recorded: Final[set[str]] = set()
"""The modules in which a client that records them was found, which leaves one day."""

_MARK: Final = "__machine_entry_point__"
_CALL: Final = compile("__machine_call__()", "<entry point>", "eval")
_hooking: Final = threading.RLock()


@functools.cache
def hook_imports() -> None:
    """Put hooks into each library of the table from now on, as soon as it is loaded."""
    for name in _BY_MODULE:
        after_import(name, _hook_modules)


def hook_loaded() -> None:
    """Put hooks into the libraries that are loaded now, once more into those that a client has changed since."""
    names = [name for name in _BY_MODULE.keys() & sys.modules.keys() if _is_to_hook(name)]
    if names:
        _hook_modules(*sorted(names))


def _is_to_hook(name: str) -> bool:
    module = sys.modules[name]
    return (_hooked.get(name) is not module or name in _recorded) and not is_loading(module)


@never_raises(None)
def _hook_modules(*names: str) -> None:
    with _hooking:
        replaced: dict[int, tuple[Any, Any]] = {}
        for name in names:
            module = sys.modules.get(name)
            if is_a(module, ModuleType) and module is not None:
                _hooked[name] = module
                for point in _BY_MODULE[name]:
                    _hook(point, module, replaced)
        if replaced:
            _replace_aliases(replaced)


@never_raises(None)
def _hook(point: EntryPoint, module: ModuleType, replaced: dict[int, tuple[Any, Any]]) -> None:
    inside = module_dict(module)
    *classes, last = point.path.split(".")
    file = inside.get("__file__")
    if not classes:
        function = inside[last]
        if is_a(function, type):
            CLASSES[function] = point
        elif not _has_hook(function, point):
            inside[last] = _passing_on(point, function, file)
            replaced[id(function)] = function, inside[last]
        return
    owner = inside[classes[0]]
    for name in classes[1:]:
        owner = class_dict(owner)[name]
    raw = next(class_dict(each)[last] for each in bases_of(owner) if last in class_dict(each))
    is_static = is_a(raw, staticmethod)
    function = raw.__func__ if is_static else raw
    if not _has_hook(function, point):
        hook = _passing_on(point, function, file)
        _set(owner, last, staticmethod(hook) if is_static else hook)


def _has_hook(function: Any, point: EntryPoint) -> bool:
    """Say whether a function has its hook, or is one of a client that records what it does."""
    if is_a(function, FunctionType) and name_of(function.__globals__).startswith("machine.clients."):
        _recorded.add(point.module)
        return True
    return hasattr(function, _MARK)


def _set(owner: type, name: str, value: Any) -> None:
    """Set a method of a class, of one that is immutable too: what is written in C mostly is."""
    try:
        type.__setattr__(owner, name, value)
    except TypeError:
        import ctypes  # noqa: PLC0415 - few libraries need it

        gc.get_referents(class_dict(owner))[0][name] = value
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(owner))


def _replace_aliases(replaced: Mapping[int, tuple[Any, Any]]) -> None:
    """Replace the functions in the other modules that hold them by a name, as `from x import y` leaves them."""
    for module in list(sys.modules.values()):
        if is_a(module, ModuleType):
            inside = module_dict(module)
            for name, value in list(inside.items()):
                if (found := replaced.get(id(value))) is not None and value is found[0]:
                    inside[name] = found[1]


def _passing_on(point: EntryPoint, function: Any, file: Any) -> Any:
    """Return the function that reports calls of an entry point and passes them on."""

    def passed_on(*args: Any, **kwargs: Any) -> Any:
        if (watch := watching()) is not None:
            _seen(point, args, kwargs, sys._getframe(1), watch)  # noqa: SLF001 - the frame of the caller
        return function(*args, **kwargs)

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        if (watch := watching()) is not None:
            _seen(point, args, kwargs, sys._getframe(1), watch)  # noqa: SLF001 - the same
        return await function(*args, **kwargs)

    def in_place(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1)  # noqa: SLF001 - the same
        if (watch := watching()) is not None:
            _seen(point, args, kwargs, caller, watch)
        call = {"__machine_call__": functools.partial(function, *args, **kwargs)}
        return eval(_CALL, caller.f_globals, {**caller.f_locals, **call})  # noqa: S307 - as if the caller called it

    hook: Any = (
        in_place if point.sees_caller else awaited if inspect.iscoroutinefunction(function) else passed_on
    )
    functools.update_wrapper(hook, function)
    hook.__code__ = _placed(hook.__code__, function, file)
    setattr(hook, _MARK, point.name)
    return hook


def _placed(code: CodeType, function: Any, file: Any) -> CodeType:
    """Return the code of a hook in the file of its library, which warnings look for to find who called it."""
    if is_a(function, FunctionType):
        return code.replace(
            co_filename=function.__code__.co_filename, co_firstlineno=function.__code__.co_firstlineno
        )
    return code.replace(co_filename=file) if type(file) is str else code


def seen_class(point: EntryPoint, argument: Any, caller: FrameType, watch: Watch) -> None:
    """Report to a watch that the code of a frame is about to call a class with this first argument."""
    _seen(point, (argument,), {}, caller, watch)


def _seen(
    point: EntryPoint, args: Sequence[Any], kwargs: Mapping[str, Any], frame: FrameType, watch: Watch
) -> None:
    use = _that_counts(point, args, kwargs, frame, watch)
    if use is not None:
        remedy = _recorded_by(client_of(frame, watch.own) or point.client, watch)
        watch.note(point.name, f"{use.does} ({point.name})", STEP, frame, remedy=remedy, effect=use.effect)


@never_raises(None)
def _that_counts(
    point: EntryPoint, args: Sequence[Any], kwargs: Mapping[str, Any], frame: FrameType, watch: Watch
) -> Use | None:
    """Return what a call is about to do, or None when it need not be reported."""
    with unguarded():  # a judge may ask a connection which database it is on
        use = point.judge(args, kwargs)
    if use is None or (not use.effect and leading_origin(frame, watch.own) is Origin.LIBRARY):
        return None  # nothing leads to `asyncio.to_thread(read_csv, path)`, which is the user's
    return None if is_let_through(point.name, use, frame, watch) else use


def _recorded_by(client: str | None, watch: Watch) -> str | None:
    """Return the remedy for the use of a library whose calls this package can record, or None."""
    if client is None or not has_client(client):
        return None
    return f'record the client: Plan(clients=["{client}"]), or use "{watch.call_of_io(STEP)}"'
