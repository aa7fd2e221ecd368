"""Source text of functions and classes, found by the file that their code names.

`inspect.getsource` looks for the module of a code object among all that is imported, so it loads lazy modules and
fails on half-imported ones. Here only the one file is read, and only the interpreter's own data is asked.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import tokenize
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, Final

from machine.watch.safe_inspection import bases_of, class_dict, held_by, is_a, module_dict, module_of

NO_FILE: Final = ("<string>", "")
"""File names of code made from a string: of any `eval`, and from 3.13 on of what `python -c` was given."""


def source_text(item: Any) -> str:
    """Return the source of a function or class, decorators included. Raise OSError when there is none."""
    lines, first = (
        _class(item) if is_a(item, type) else _function(item) if is_a(item, FunctionType) else ([], 0)
    )
    if not 0 <= first < len(lines):
        raise OSError("the source is not available")
    try:
        return "".join(inspect.getblock(lines[first:]))
    except (tokenize.TokenError, SyntaxError):
        raise OSError("the file is not the one that was loaded") from None


def has_code(item: Any) -> bool:
    """Say whether something is a function or class, or a proxy of one, as those of wrapt are."""
    while (inner := _behind_proxy(item)) is not None:
        item = inner
    return is_a(item, FunctionType, type)


def unwrapped(item: Any) -> Any:
    """Return what was decorated, where decorators tell it by `__wrapped__`."""
    passed = {id(item): item}
    while (inner := _wrapped(item)) is not None and id(inner) not in passed:
        passed[id(inner)] = item = inner
    return item


def module_name(item: Any) -> str:
    """Return the name of the module that a function or class was made in, empty when it is unknown."""
    name = item.__module__ if is_a(item, FunctionType) else module_of(item) if is_a(item, type) else ""
    return name if type(name) is str else ""


def names_seen_by(item: Any) -> dict[str, Any]:
    """Return the names that the code of a function or class sees in its module."""
    if is_a(item, FunctionType):
        return item.__globals__  # type: ignore[no-any-return]  # of a function they are a dict
    module = sys.modules.get(module_name(item))
    return module_dict(module) if module is not None and is_a(module, ModuleType) else {}


def _wrapped(item: Any) -> Any:
    if is_a(item, MethodType):
        return item.__func__
    found = held_by(item, "__wrapped__")
    return _behind_proxy(item) if found is None else found


def _behind_proxy(item: Any) -> Any:
    """Return what an object stands for that claims another class and has a slot for it, or None."""
    for cls in bases_of(type(item)):
        slot = class_dict(cls).get("__wrapped__")
        if "__class__" in class_dict(cls) and type(slot) in (GetSetDescriptorType, MemberDescriptorType):
            return slot.__get__(item)
    return None


def _function(function: FunctionType) -> tuple[list[str], int]:
    code = function.__code__
    return _lines(code.co_filename, names_seen_by(function)), code.co_firstlineno - 1


def _class(cls: type) -> tuple[list[str], int]:
    names = names_seen_by(cls)
    file = names.get("__file__")
    lines = _lines(file, names) if type(file) is str else []
    if sys.version_info >= (3, 13):
        first = class_dict(cls).get("__firstlineno__", 0)
    else:
        first = _first_line("".join(lines), vars(type)["__qualname__"].__get__(cls))
    return lines, first - 1 if type(first) is int else -1


def _lines(file: str, names: dict[str, Any]) -> list[str]:
    if file in NO_FILE:
        return []
    linecache.checkcache(file)
    return linecache.getlines(file, names)


def _first_line(text: str, name: str) -> int:
    """Return the number of the first line of the class with this qualified name, 0 when the text has none."""
    pending: list[tuple[str, ast.AST]] = [("", ast.parse(text))]
    while pending:
        prefix, node = pending.pop()
        inner = prefix
        if isinstance(node, ast.ClassDef):
            if prefix + node.name == name:
                return min([node.lineno, *(item.lineno for item in node.decorator_list)])
            inner = f"{prefix}{node.name}."
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{prefix}{node.name}.<locals>."
        pending.extend((inner, child) for child in reversed(list(ast.iter_child_nodes(node))))
    return 0
