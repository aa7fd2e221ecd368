"""Changes to a library that is imported later, if ever: a run need not import what no handler of it uses."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Final, TypeAlias

from machine.watch.after_import import after_import

Undo: TypeAlias = Callable[[], None]

_lock: Final = threading.Lock()
_changes: Final[dict[str, list[_Change]]] = {}
"""The changes in place for a module, by its name, whether it is imported or not."""


class _Change:
    """One change to a module, made once for each time that it is loaded."""

    def __init__(self, make: Callable[[ModuleType], Iterable[Undo]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._changed: ModuleType | None = None
        self._undoing: list[Undo] = []
        self._is_over = False

    def begin(self, module: ModuleType) -> None:
        """Change a module that has been loaded, unless that is done, or is to be undone."""
        with self._lock:
            if self._changed is not module and not self._is_over:
                self._changed = module
                self._undoing += self._make(module)

    def end(self) -> None:
        """Undo what was changed, the last change first."""
        with self._lock:
            self._is_over = True
            while self._undoing:
                self._undoing.pop()()


def on_import(name: str, make: Callable[[ModuleType], Iterable[Undo]]) -> Undo:
    """Change a module as soon as it has been imported, now if it has; return the function that undoes it.

    `make` changes the module and returns the functions that undo the parts of it.
    """
    change = _Change(make)
    with _lock:
        if name not in _changes:
            _changes[name] = []
            after_import(name, _imported)
        _changes[name].append(change)
    if name in sys.modules:  # half of it may be: this waits for the rest
        change.begin(importlib.import_module(name))

    def undo() -> None:
        with _lock:
            _changes[name].remove(change)
        change.end()

    return undo


def _imported(name: str) -> None:
    with _lock:
        changes = list(_changes[name])
    for change in changes:
        change.begin(sys.modules[name])
