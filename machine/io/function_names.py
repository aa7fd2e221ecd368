"""The names of functions: by module and qualified name, the same however the file of a plan was loaded."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import operator
import sys
import types
from typing import Any

from machine.importable_names import OF_TARGET, module_name


def unwrapped(function: Any) -> Any:
    """Return the function under partials and bound methods, and the `__call__` of any other object."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__qualname__"):
        return type(function).__call__
    return function


def found_by_name(function: Any) -> str | None:
    """Return the module and qualified name by which a function is found again, or None."""
    name, module = getattr(function, "__qualname__", None), getattr(function, "__module__", None)
    owner = getattr(function, "__self__", None)
    if name is None or isinstance(function, functools.partial):
        return None
    if isinstance(owner, types.ModuleType):  # a function written in C
        module = owner.__name__
    elif owner is not None:
        cls = owner if isinstance(owner, type) else type(owner)
        name, module = f"{cls.__qualname__}.{function.__name__}", cls.__module__
    try:
        found: Any = operator.attrgetter(name)(home_of(function, str(module)))
    except (AttributeError, KeyError, TypeError):
        return None
    same = getattr(found, "__func__", found) is getattr(function, "__func__", function)
    stands_for = same or owner is not None or getattr(found, "__wrapped__", None) is function
    return f"{module_name(str(module))}:{name}" if stands_for else None


def home_of(function: Any, module: str) -> Any:
    """Return a module of this name, with the names that a function sees; it may not have been imported by name."""
    imported = sys.modules.get(module)
    return (
        types.SimpleNamespace(**getattr(unwrapped(function), "__globals__", {}))
        if imported is None
        else imported
    )


def name_to_be(function: Any) -> str | None:
    """Return the module and qualified name by which a function that is being defined will be found, or None."""
    local = not isinstance(function, types.FunctionType) or "<" in function.__qualname__
    return None if local else f"{module_name(function.__module__)}:{function.__qualname__}"


# -- functions in another process ------------------------------------------------------------------------------

Reference = tuple[str, str | None, str, Any, tuple[Any, ...], dict[str, Any]]
"""A call by name: the module and its file, the qualified name, a bound object, the arguments."""


def reference_of(function: Any, call: functools.partial[Any]) -> Reference:
    """Return a call of a function that has a name, in a form that another process can resolve."""
    plain = unwrapped(function)
    owner = getattr(call.func, "__self__", None)
    owner = None if isinstance(owner, types.ModuleType) else owner
    module = plain.__module__ if owner is None else type(owner).__module__
    of_file = module == "__main__" or module.startswith(OF_TARGET)
    file = getattr(sys.modules.get(module), "__file__", None) if of_file else None
    name = function.__name__ if owner is not None else function.__qualname__
    return module, file, name, owner, call.args, call.keywords


def load_module(module: str, file: str | None) -> None:
    """Import a module; one that was loaded from a file gets the name under which its classes are known."""
    if module in sys.modules and (file is None or module != "__main__"):
        return
    if file is None:
        importlib.import_module(module)
        return
    if getattr(sys.modules.get(module), "__file__", None) == file:
        return
    spec = importlib.util.spec_from_file_location("__mp_main__" if module == "__main__" else module, file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = sys.modules[module] = made
    spec.loader.exec_module(made)


def resolved_reference(reference: Reference) -> functools.partial[Any]:
    """Return the call that a reference names, of the function itself and not of a step made of it."""
    module, _, name, owner, args, keywords = reference
    found: Any = operator.attrgetter(name)(sys.modules[module] if owner is None else owner)
    found = getattr(getattr(found, "__machine_step__", None), "function", found)
    return functools.partial(found, *args, **keywords)
