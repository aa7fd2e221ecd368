"""Lazily loaded names of a module, and old names that still work, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    module: str, homes: Mapping[str, str], moved: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a module that loads its public names on first use.

    `homes` maps a name to the module that defines it, and a submodule to itself. `moved` maps an old name to the
    dotted name that replaces it; using the old one gives a `DeprecationWarning`.
    """
    moved = moved or {}

    def get(name: str) -> Any:
        if name in moved:
            new = moved[name]
            text = f"{module}.{name} has moved: use {new}; the old name goes with the next release"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            home, _, name = new.rpartition(".")
            return getattr(importlib.import_module(home), name)
        home = homes.get(name, "")
        if not home:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        loaded = importlib.import_module(home)
        value = loaded if home == f"{module}.{name}" else getattr(loaded, name)
        setattr(sys.modules[module], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[module]), *homes})
