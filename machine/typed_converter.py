"""The converter for values that a handler gives a type; it writes `Unkept` for values it cannot store."""

from __future__ import annotations

import base64
import binascii
import collections.abc
import datetime as dt
import decimal
import enum
import functools
import operator
import re
import types
import typing
import uuid
from typing import Any, Final

import cattrs
from cattrs.cols import mapping_structure_factory
from cattrs.disambiguators import create_default_dis_func
from cattrs.strategies import configure_union_passthrough

from machine import canonical
from machine.errors import CanonicalError
from machine.strict_converter import in_parts, json_only, strict_converter
from machine.typed_values import (
    Unkept,
    dump_model,
    is_model,
    kind_text,
    load_model,
    remedy_declared,
    time_from,
    time_text,
)

_NATIVE: Final = {str, bool, int, float, type(None)}
_INT_TEXT: Final = re.compile("0|-?[1-9][0-9]*")


class _IntKey:
    """The type of a key that is the text of an int."""


@functools.cache
def typed_converter() -> cattrs.Converter:
    """Return the converter of `ctx.write_typed` and `ctx.read_typed`."""
    converter = strict_converter()
    converter.register_unstructure_hook(bytes, lambda value: base64.b64encode(value).decode())
    converter.register_structure_hook(bytes, _bytes_in)
    converter.register_unstructure_hook(decimal.Decimal, str)
    converter.register_structure_hook(decimal.Decimal, _decimal_in)
    converter.register_unstructure_hook(uuid.UUID, str)
    converter.register_structure_hook(uuid.UUID, lambda value, _: uuid.UUID(value))
    converter.register_unstructure_hook(dt.date, lambda value: value.isoformat())
    converter.register_structure_hook(dt.date, lambda value, kind: kind.fromisoformat(value))
    for kind in (dt.datetime, dt.time):
        converter.register_unstructure_hook(kind, time_text)
        converter.register_structure_hook(kind, time_from)
    converter.register_unstructure_hook_func(is_model, dump_model)
    converter.register_structure_hook_func(is_model, load_model)
    _unions(converter)
    _named_tuples(converter)
    _int_keys(converter)
    # by the JSON of its value: that may be a Decimal or a tuple, which cattrs would not convert
    converter.register_unstructure_hook(enum.Enum, lambda member: converter.unstructure(member.value))
    converter.register_structure_hook(enum.Enum, _member)
    converter.register_unstructure_hook(
        dt.timedelta, lambda value: [value.days, value.seconds, value.microseconds]
    )
    converter.register_structure_hook(dt.timedelta, lambda value, _: dt.timedelta(*value))
    return converter


def _bytes_in(value: Any, _: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError) as exc:
        raise ValueError(f"expected base64 text ({exc})") from None


def _decimal_in(value: Any, _: Any) -> decimal.Decimal:
    if not isinstance(value, str):
        raise TypeError(f"expected the text of a decimal, got {type(value).__name__}")
    try:
        return decimal.Decimal(value)
    except decimal.InvalidOperation:
        raise ValueError(f"expected the text of a decimal, got {value!r}") from None


def _member(value: Any, kind: Any) -> Any:
    for member in kind:
        try:
            carried = canonical.encode(typed_converter().unstructure(member.value))
        except CanonicalError:  # no value of its own that JSON holds
            continue
        if carried == canonical.encode(value):
            return member
    if issubclass(kind, enum.Flag) and type(value) is int:
        return kind(value)
    raise ValueError(f"expected a value of {kind.__name__}, got {value!r}")


# -- unions and numbers --------------------------------------------------------------------------------------


def _members_of(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, empty for any other type."""
    return typing.get_args(kind) if typing.get_origin(kind) in {types.UnionType, typing.Union} else ()


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is typing.Literal


def _unions(converter: cattrs.Converter) -> None:
    def undecided(kind: Any) -> bool:
        members = [one for one in _members_of(kind) if one not in _NATIVE and not _is_literal(one)]
        if len(members) < 2:  # noqa: PLR2004 - two are to be told apart
            return False
        try:
            create_default_dis_func(converter, *members)
        except Exception:  # noqa: BLE001 - it says in its own way that there is nothing to tell them by
            return True
        return False

    def refuse(value: Any, kind: Any) -> Any:
        if value is None and type(None) in _members_of(kind):
            return None
        raise TypeError(_not_told_apart(kind))

    def number(value: Any, kind: Any) -> Any:
        if type(value) in {int, float}:
            return float(value)
        rest = functools.reduce(operator.or_, (one for one in _members_of(kind) if one is not float))
        return converter.structure(value, rest)

    def whole_as_float(kind: Any) -> bool:
        members = _members_of(kind)
        return float in members and int not in members and set(members) != {float, type(None)}

    def number_out(kind: Any, _: Any = None) -> Any:
        whole_only = float in _members_of(kind)

        def write(value: Any) -> Any:
            if type(value) is not float or (whole_only and not value.is_integer()):
                return converter.unstructure(value)
            return _float_for(kind, value)

        return write

    configure_union_passthrough(str | bool | int | float | None, converter)
    converter.register_structure_hook_func(whole_as_float, number)
    # a whole float is written as an int, and where both are possible it is read as one
    converter.register_unstructure_hook_func(
        lambda kind: kind is int,
        lambda value: _float_for(int, value) if isinstance(value, float) else value,
    )
    converter.register_unstructure_hook_factory(
        lambda kind: _is_literal(kind) or (int in _members_of(kind) and len(_members_of(kind)) > 1),
        number_out,
    )
    converter.register_structure_hook_func(undecided, refuse)
    converter.register_unstructure_hook_factory(
        undecided,
        lambda kind, _=None: lambda value: None if value is None else Unkept(_not_told_apart(kind)),
    )


def _float_for(kind: Any, value: float) -> Unkept:
    """Return the problem of a float that would be read as an int, or not at all."""
    name, expected = type(value).__name__, kind_text(kind)
    if float in _members_of(kind):
        return Unkept(
            f"a whole float would come back as int from {expected}; declare float, or write int(value)"
        )
    return Unkept(
        f"{name} is not what is declared there (expected {expected}, got {name}); {remedy_declared(value)}"
    )


def _not_told_apart(kind: Any) -> str:
    return f"the members of {kind_text(kind)} cannot be told apart when they are read; declare one of them"


# -- tuples with names, and keys -----------------------------------------------------------------------------


def _named_tuples(converter: cattrs.Converter) -> None:
    """Convert named tuples by their annotations, which may be text."""

    def is_named(kind: Any) -> bool:
        return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")

    @functools.cache
    def asked(kind: Any) -> Any:
        hints = typing.get_type_hints(kind, include_extras=True)
        return tuple[tuple(hints.get(name, Any) for name in kind._fields)]  # type: ignore[misc]

    def write(kind: Any, value: Any) -> Any:
        plain = isinstance(value, tuple) and len(value) == len(kind._fields)
        return converter.unstructure(tuple(value), asked(kind)) if plain else converter.unstructure(value)

    converter.register_unstructure_hook_factory(is_named, lambda kind, _=None: functools.partial(write, kind))
    converter.register_structure_hook_func(
        is_named, lambda value, kind: kind(*converter.structure(value, asked(kind)))
    )


def _int_keys(converter: cattrs.Converter) -> None:
    """Teach a converter to write the int keys of a dictionary as text, and to read them back as ints."""

    def has_int_keys(kind: Any) -> bool:
        mapping = typing.get_origin(kind) in {dict, collections.abc.Mapping}
        return mapping and typing.get_args(kind)[0] is int

    def key_in(value: Any, _: Any) -> int:
        if not isinstance(value, str) or not _INT_TEXT.fullmatch(value):
            raise ValueError(f"expected the text of an int, got {value!r}")
        return int(value)

    def key_out(key: Any, _: Any = None) -> Any:
        return str(key) if type(key) is int else key  # any other is refused by its type

    converter.register_structure_hook(_IntKey, key_in)
    converter.register_structure_hook_factory(
        has_int_keys,
        lambda kind, _=None: json_only(
            dict, in_parts(mapping_structure_factory(kind, converter, key_type=_IntKey))
        ),
    )
    converter.register_unstructure_hook_factory(
        has_int_keys,
        lambda kind, _=None: converter.gen_unstructure_mapping(kind, key_handler=key_out),
    )
