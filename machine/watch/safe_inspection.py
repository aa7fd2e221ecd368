"""Inspection of foreign objects without running any of their code.

A module may be half imported, load itself at the first access or answer every name by raising; an object may claim
another class, or raise when asked for it. These functions use only the data of the interpreter itself: the true
type, and the dictionary as it is.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import GetSetDescriptorType, ModuleType
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

module_dict: Final[Callable[[ModuleType], dict[str, Any]]] = vars(ModuleType)["__dict__"].__get__
"""Return the names of a module, whatever its class makes of `vars`."""

class_dict: Final[Callable[[type], Any]] = vars(type)["__dict__"].__get__
"""Return the names of a class, whatever its metaclass makes of `vars`."""

bases_of: Final[Callable[[type], tuple[type, ...]]] = vars(type)["__mro__"].__get__
"""Return the classes that a class inherits from, itself first, whatever its metaclass makes of `__mro__`."""


def is_a(value: Any, *types: type) -> bool:
    """Say whether the type of an object is one of these or a subclass, whatever its `__class__` claims."""
    return issubclass(type(value), types)


def static_name(module: str, name: str) -> Any:
    """Return the value of a name in a module, or None where the module or the name does not exist yet."""
    found = sys.modules.get(module)
    return module_dict(found).get(name) if found is not None and is_a(found, ModuleType) else None


def held_by(value: Any, name: str) -> Any:
    """Return the value of a name in an object's own dictionary, or None."""
    for cls in bases_of(type(value)):
        found = class_dict(cls).get("__dict__")
        if found is not None:
            return found.__get__(value).get(name) if type(found) is GetSetDescriptorType else None
    return None


def module_of(cls: type) -> str:
    """Return the name of the module that a class was made in, empty when it is unknown."""
    name = vars(type)["__module__"].__get__(cls)
    return name if type(name) is str else ""


def never_raises(default: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that suppresses errors of a function and returns `default` instead."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def unwatched(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except Exception:  # noqa: BLE001 - a hook that raises breaks the code it is called in
                return default  # type: ignore[no-any-return]

        return unwatched

    return decorate
