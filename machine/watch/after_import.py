"""Callbacks for modules that are loaded later: each is called once its module has loaded, never in the middle."""

from __future__ import annotations

import functools
import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from machine.watch.safe_inspection import is_a, module_dict, never_raises

_callbacks: Final[dict[str, list[Callable[[str], None]]]] = {}


def after_import(name: str, callback: Callable[[str], None]) -> None:
    """Call `callback` with the name of a module whenever it has been loaded from now on."""
    _callbacks.setdefault(name, []).append(callback)
    _find_first()


@never_raises(True)  # noqa: FBT003 - then it is left alone
def is_loading(module: Any) -> bool:
    """Say whether a module is only half imported, or is no module."""
    if not is_a(module, ModuleType):
        return True
    spec = module_dict(module).get("__spec__")
    return is_a(spec, importlib.machinery.ModuleSpec) and bool(vars(spec).get("_initializing"))


@functools.cache
def _find_first() -> None:
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """A finder that leaves the finding to the others, and notes when a module has loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec that another finder has for a module with a callback, else None."""
        if name not in _callbacks:
            return None
        for finder in [*sys.meta_path]:
            find: Any = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                _load_noted(name, spec.loader)
                return spec
        return None


@never_raises(None)
def _load_noted(name: str, loader: Any) -> None:
    loader.exec_module = functools.partial(_loaded, name, loader.exec_module)


def _loaded(name: str, load: Callable[[ModuleType], None], module: ModuleType) -> None:
    load(module)
    for callback in _callbacks[name]:
        callback(name)
