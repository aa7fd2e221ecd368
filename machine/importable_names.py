"""The names under which functions and classes are recorded: the same however the file of a plan was loaded."""

from __future__ import annotations

import importlib
import operator
import re
import sys
from types import ModuleType
from typing import Any, Final

OF_TARGET: Final = "machine_target_"
"""The beginning of the names of modules that were loaded from a file."""


def module_name(name: str) -> str:
    """Return the recorded name of a module: the same however a plan's file was loaded."""
    module = sys.modules.get(name)
    if name != "__main__" and not name.startswith(OF_TARGET):
        return name
    spec = getattr(module, "__spec__", None)
    if name == "__main__" and spec is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(module, "__file__", None)
    return re.split(r"[/\\]", file)[-1].removesuffix(".py") if file else name


def class_name(cls: type) -> str:
    """Return the recorded name of a class, `module:Class`."""
    return f"{module_name(cls.__module__)}:{cls.__qualname__}"


def found_class(name: str) -> Any:
    """Return what a user's `module:Class` names, importing the module. Raises whatever the import raises.

    Never to be called with a name that was found in a recording.
    """
    module, _, qualified = name.partition(":")
    return operator.attrgetter(qualified)(_loaded(module) or importlib.import_module(module))


def _loaded(name: str) -> ModuleType | None:
    """Return a module by its recorded name if it is loaded; a plan's file may be under another one."""
    aliases = [known for known in list(sys.modules) if known == "__main__" or known.startswith(OF_TARGET)]
    return next(
        (sys.modules[known] for known in aliases if module_name(known) == name), sys.modules.get(name)
    )
