"""The handler's own code: its functions, and the user's modules that it can reach.

It is found by inspecting loaded modules. Nothing here imports a module or runs the code it finds.
"""

from __future__ import annotations

import functools
import importlib.machinery
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from machine.watch.code_origin import is_made, is_own
from machine.watch.model_defaults import factories_of
from machine.watch.nondeterministic_calls import resolved
from machine.watch.open_handles import is_handle
from machine.watch.safe_inspection import class_dict, held_by, is_a, module_dict, module_of, never_raises


@never_raises(frozenset[str]())
def packages_of(function: Any) -> frozenset[str]:
    """Return the top package of a handler: its code is the user's own even where it is installed."""
    module = getattr(inspect.unwrap(function) if callable(function) else function, "__module__", None)
    top = str(module).partition(".")[0]
    return frozenset({top} if module and top not in sys.stdlib_module_names and top != "machine" else ())


@never_raises(True)  # noqa: FBT003 - then it is inspected
def may_load_own(name: str, own: frozenset[str]) -> bool:
    """Say whether a module may be the user's own: False only when its top package is known not to be."""
    top = name.partition(".")[0]
    if top in sys.builtin_module_names:
        return False
    package: Any = sys.modules.get(top)
    if not is_a(package, ModuleType):  # it is not loaded: where is it?
        spec = importlib.machinery.PathFinder.find_spec(top)
        return spec is None or type(spec.origin) is not str or is_own(spec.origin, {"__name__": top}, own)
    inside = module_dict(package)
    file = inside.get("__file__")
    return type(file) is not str or is_own(file, inside, own)


def holds_code(function: FunctionType) -> bool:
    """Say whether a function holds anything in its closure or its defaults that may lead to code."""
    for cell in function.__closure__ or ():
        try:
            if type(cell.cell_contents) not in _PLAIN:
                return True
        except ValueError:  # a name without a value yet
            continue
    return bool(function.__defaults__ or function.__kwdefaults__)


class OwnCode:
    """The code reached so far. Packages `own` are the user's own although they are installed."""

    def __init__(self, own: frozenset[str] = frozenset()) -> None:
        self.own = own
        self._codes: dict[int, CodeType] = {}
        self._modules: dict[str, ModuleType] = {}
        self._pending: list[ModuleType] = []
        self._seen: dict[int, Any] = {}
        self.held: dict[int, Any] = {}
        """The modules, builtins and targets held in closures and defaults of functions, by id."""
        self.suspected: bool | None = None
        """True when any of it could make a call to detect; None until determined."""
        self.unheld: Sequence[Any] = ()
        """The functions that it was taken not to call, as long as only their modules hold them."""
        self.covered = False
        """True when its calls are being detected."""

    def reach(self, function: Any) -> None:
        """Add a function, or a callable object, and all that it can reach."""
        self._thing(function)
        self._follow()

    def reach_held(self, function: FunctionType) -> None:
        """Add the values held by another function of the same code: its closure and its defaults."""
        before = len(self._codes), len(self.held)
        if not self._holds(function):
            return
        self._follow()
        if (len(self._codes), len(self.held)) != before:
            self.suspected, self.covered = None, False

    def reach_new(self, names: Iterable[str]) -> None:
        """Add modules of the user's that were loaded since."""
        for name in names:
            self._module(sys.modules.get(name))
        self._follow()

    @property
    def codes(self) -> Iterable[CodeType]:
        """The code objects."""
        return self._codes.values()

    @property
    def modules(self) -> Iterable[ModuleType]:
        """The user's modules among it."""
        return self._modules.values()

    def _follow(self) -> None:
        while self._pending:
            for value in list(module_dict(self._pending.pop()).values()):
                self._thing(value)
        self._seen.clear()  # functions come and go; code and modules stay

    @never_raises(None)
    def _module(self, module: Any) -> None:
        if not is_a(module, ModuleType):
            return
        inside = module_dict(module)
        name, file = inside.get("__name__"), inside.get("__file__")
        if type(name) is not str or self._modules.get(name) is module:
            return
        if not is_own(file if type(file) is str else "", inside, self.own):
            return
        if file is None and name != "__main__":
            return  # built in, or a namespace package without contents
        self._modules[name] = module
        self._pending.append(module)

    @never_raises(None)
    def _thing(self, value: Any) -> None:
        if is_a(value, ModuleType):
            self._module(value)
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if is_a(value, FunctionType):
            self._function(value)
        elif is_a(value, type):
            self._class(value)
        elif is_a(value, classmethod, staticmethod):
            self._thing(value.__func__)
        elif is_a(value, property):
            for part in (value.fget, value.fset, value.fdel):
                self._thing(part)
        elif is_a(value, functools.partial, functools.partialmethod, functools.cached_property):
            self._thing(value.func)
        elif is_a(value, MethodType):
            self._thing(value.__func__)
            self._thing(type(value.__self__))
        elif (inner := held_by(value, "__wrapped__")) is not None:
            self._thing(inner)
        elif module_of(type(value)) != "builtins":
            self._class(type(value))

    def _class(self, cls: type[Any]) -> None:
        # one made in a function is not in its module
        module: Any = sys.modules.get(module_of(cls))
        if not is_a(module, ModuleType):
            return
        inside = module_dict(module)
        file = inside.get("__file__")
        if not is_own(file if type(file) is str else "", inside, self.own):
            return
        self._module(module)
        for value in list(class_dict(cls).values()):
            if is_a(value, FunctionType, classmethod, staticmethod, property, functools.cached_property):
                self._thing(value)
        for factory in factories_of(cls).values():  # which pydantic has taken out of the class
            self.held[id(cls)] = cls
            self._thing(factory)

    def _function(self, function: FunctionType) -> None:
        code = function.__code__
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self._thing(wrapped)
        if not is_own(code.co_filename, function.__globals__, self.own):
            self._made(function)
            return
        for inner in nested_codes(code):
            if id(inner) not in self._codes:
                self._codes[id(inner)] = inner
                self._named(inner, function.__globals__)
        if type(function.__module__) is str:
            self._module(sys.modules.get(function.__module__))
        self._holds(function)

    def _made(self, function: FunctionType) -> None:
        """Add code generated for a class of the user's, if it holds a target: a `default_factory`."""
        code, before = function.__code__, len(self.held)
        if not is_made(code.co_filename, function.__globals__):
            return
        self._holds(function)
        for name in code.co_names:
            value = function.__globals__.get(name)
            if type(value) not in _PLAIN:
                self._hold(value)
        if len(self.held) != before:
            self._codes[id(code)] = code

    def _holds(self, function: FunctionType) -> bool:
        """Add the values in a function's closure and defaults; return True if one is more than plain data."""
        found = False
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # a name without a value yet
                continue
            if type(value) not in _PLAIN:
                found = True
                self._hold(value)
        for values in (function.__defaults__ or (), (function.__kwdefaults__ or {}).values()):
            for value in values:
                if type(value) not in _PLAIN:
                    found = True
                    self._hold(value)
        return found

    def _hold(self, value: Any) -> None:
        if (
            is_a(value, ModuleType, BuiltinFunctionType)
            or id(value) in resolved().targets
            or is_handle(value)
        ):
            self.held[id(value)] = value
        self._thing(value)

    def _named(self, code: CodeType, namespace: dict[str, Any]) -> None:
        """Add the loaded modules that have a name used in a function's code: it may import them itself."""
        package = namespace.get("__package__")
        for name in code.co_names:
            self._module(sys.modules.get(name))
            if type(package) is str:
                self._module(sys.modules.get(f"{package}.{name}"))


_PLAIN: Final = frozenset({int, str, float, bool, bytes, list, dict, tuple, set, frozenset, type(None)})
"""Types of objects that lead to no code."""


def nested_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those within it."""
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from nested_codes(value)
