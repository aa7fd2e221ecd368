"""The names that a handler's code can use, without those of functions that nothing can call.

A helper that no code of the handler names, and that only its module holds, is never called by a handler. So
a module may read a clock for others, in its main part or at a prompt, and its handlers run unwatched all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

from machine.watch.safe_inspection import module_dict
from machine.watch.user_code import OwnCode, nested_codes

_BY_MODULE_ALONE: Final = 3
"""The references to a function that only its module holds: of the module, a variable, and the call that counts."""

_ANY_NAME: Final = frozenset(
    {
        *("getattr", "__getattr__", "__getattribute__", "attrgetter", "methodcaller", "getmembers"),
        *(
            "globals",
            "locals",
            "vars",
            "dir",
            "__dict__",
            "__globals__",
            "f_globals",
            "modules",
            "__builtins__",
        ),
        *(
            "eval",
            "exec",
            "__import__",
            "import_module",
            "run_module",
            "run_path",
            "get_objects",
            "get_referrers",
        ),
        *("pickle", "dill", "cloudpickle", "marshal"),
    }
)
"""Names in code that may reach a function without naming it."""


class Unheld(NamedTuple):
    """A function at the top of a module that nothing but the module holds, under its own name."""

    inside: dict[str, Any]
    name: str

    @property
    def still(self) -> bool:
        """True as long as nothing else holds it."""
        function = self.inside.get(self.name)
        return sys.getrefcount(function) == _BY_MODULE_ALONE


def all_names(own: OwnCode) -> set[str]:
    """Return every name in the code of a handler, and in all of its modules."""
    return {name for code in own.codes for name in code.co_names}


def reachable_names(own: OwnCode) -> tuple[set[str], list[Unheld]]:
    """Return the names in the code that a handler can call, and the functions that it cannot."""
    unheld = {id(each.inside[each.name].__code__): each for each in _unheld(own)}
    hidden = {id(code) for each in unheld.values() for code in _codes(each)}
    names: set[str] = set()
    pending = [code for code in own.codes if id(code) not in hidden]
    while pending:
        for code in pending:
            names.update(code.co_names)
            names.update(value for value in code.co_consts if type(value) is str)
        if names & _ANY_NAME:
            return all_names(own), []
        named = [key for key, each in unheld.items() if each.name in names]
        pending = [code for key in named for code in _codes(unheld.pop(key))]
    return names, list(unheld.values())


def _unheld(own: OwnCode) -> Iterator[Unheld]:
    for module in own.modules:
        inside = module_dict(module)
        for name in list(inside):
            function = inside.get(name)
            if type(function) is not FunctionType or function.__globals__ is not inside:
                continue
            if name == function.__qualname__ == function.__code__.co_name and (
                sys.getrefcount(function) == _BY_MODULE_ALONE
            ):
                yield Unheld(inside, name)


def _codes(function: Unheld) -> Iterator[CodeType]:
    return nested_codes(function.inside[function.name].__code__)
