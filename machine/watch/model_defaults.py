"""Detection of default factories of pydantic models that read the time or randomness.

Compiled code calls them, so the calls are invisible: the finished object shows which of its fields had no given
value.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Container, Iterator
from functools import partial
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType
from typing import Any, Final

from machine.watch.nondeterministic_calls import Ambient, resolved
from machine.watch.safe_inspection import class_dict, is_a, never_raises, static_name

_MAKERS: Final = {
    ("pydantic.main", "BaseModel"): (
        *("__init__", "model_validate", "model_validate_json", "model_validate_strings", "model_construct"),
    ),
    ("pydantic.root_model", "RootModel"): ("__init__", "model_construct"),
    ("pydantic.type_adapter", "TypeAdapter"): ("validate_python", "validate_json", "validate_strings"),
}
_DATACLASSES: Final = "pydantic._internal._dataclasses"
_MOST: Final = 500
"""The largest number of values of one object to inspect."""

_GIVEN: Final = ("data", "obj", "object", "root", "values")
"""The variables in which makers hold the values that a caller gave."""

_made_codes: Final[dict[int, CodeType]] = {}
_looked_at: Final = [0]
"""The number of loaded modules when the result was computed."""


def load_makers() -> None:
    """Load, without warnings, the code that pydantic would load later. Called before a handler begins."""
    if "pydantic.main" in sys.modules:
        _load()


@never_raises(None)
def _load() -> None:
    if static_name("pydantic.main", "BaseModel") is not None:
        for module, _ in _MAKERS:
            if module not in sys.modules:
                importlib.import_module(module)
        _look()  # whatever the number of modules says, for others may have been unloaded


def makers() -> dict[int, CodeType]:
    """Return the code that makes models, by id, for the loaded parts of pydantic."""
    if _looked_at[0] != len(sys.modules):
        _look()
    return _made_codes


def _look() -> None:
    _looked_at[0] = len(sys.modules)
    if "pydantic" in sys.modules:
        _made_codes.update((id(code), code) for code in _maker_codes())


def _maker_codes() -> Iterator[CodeType]:
    for (module, name), methods in _MAKERS.items():
        cls = static_name(module, name)
        for method in methods if is_a(cls, type) else ():
            function = class_dict(cls).get(method)
            function = getattr(function, "__func__", function)
            if is_a(function, FunctionType):
                yield function.__code__
    complete = static_name(_DATACLASSES, "complete_dataclass")
    if is_a(complete, FunctionType):
        yield from (c for c in complete.__code__.co_consts if is_a(c, CodeType) and c.co_name == "__init__")


@never_raises({})
def factories_of(cls: type) -> dict[str, Any]:
    """Return the default factories of a pydantic model by field, including private attributes."""
    inside = class_dict(cls)
    fields = {**(inside.get("__pydantic_fields__") or {}), **(inside.get("__private_attributes__") or {})}
    return {name: f for name, field in fields.items() if (f := getattr(field, "default_factory", None))}


@never_raises(None)
def _ambient(factory: Any) -> Ambient | None:
    """Return the nondeterministic call of a factory, or None if there is none."""
    while is_a(factory, partial):
        factory = factory.func
    if is_a(factory, BuiltinFunctionType):
        return resolved().builtins.get(factory)
    if (
        is_a(factory, MethodType)
        and not is_a(factory.__self__, type)
        and id(factory) not in resolved().targets
    ):
        return None  # of a generator of the user's own, which may have a seed
    function = getattr(factory, "__func__", factory)
    return resolved().codes.get(id(function.__code__)) if is_a(function, FunctionType) else None


def asks(cls: type) -> bool:
    """Say whether a default factory of a model has a nondeterministic result."""
    return any(_ambient(factory) is not None for factory in factories_of(cls).values())


def first_asked(cls: type, given: Container[str]) -> Ambient | None:
    """Return the nondeterministic call of the first default that is used for a missing field, or None."""
    asked = (_ambient(factory) for name, factory in factories_of(cls).items() if name not in given)
    return next((ambient for ambient in asked if ambient is not None), None)


def made_in(frame: FrameType, returned: Any) -> Iterator[tuple[type, Container[str]]]:
    """Yield the class of each model that the code of a maker has made, and its given fields."""
    local = frame.f_locals
    made = local.get("__dataclass_self__")
    if made is None:
        before = {id(model) for model in _models([local.get(name) for name in _GIVEN])}
        for model in _models(returned if returned is not None else local.get("self")):
            if id(model) not in before:
                yield type(model), model.__pydantic_fields_set__
        return
    fields = class_dict(type(made)).get("__pydantic_fields__") or {}
    yield type(made), {*[*fields][: len(local["args"])], *local["kwargs"]}


def _models(made: Any) -> Iterator[Any]:
    """Yield the models contained in an object, up to the limit of inspected values."""
    pending, left = [made], _MOST
    while pending and left:
        value, left = pending.pop(), left - 1
        if is_a(value, dict):
            pending += list(value.values())[:_MOST]
        elif is_a(value, list, tuple, set, frozenset):
            pending += list(value)[:_MOST]
        elif "__pydantic_validator__" in class_dict(type(value)) and hasattr(
            value, "__pydantic_fields_set__"
        ):
            yield value
            # a plain default was made with its class, and is copied
            made = value.__pydantic_fields_set__ | factories_of(type(value)).keys()
            pending += [inner for name, inner in value.__dict__.items() if name in made]
