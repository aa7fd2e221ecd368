"""The only converter between payload classes and JSON.

Reading is strict: nothing is coerced, unknown fields are refused, and all problems of a payload are reported
at once, each with its path. What is read may hold instances of payload classes, which are checked like
anything else. Kernel events and configuration have a converter of their own, in `machine.codec`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import attrs
import cattrs
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from machine.catalogue.field_types import MAX_INTEGER, Count, Ratio, Time, in_words
from machine.errors import CodecError
from machine.strict_converter import problems_of

T = TypeVar("T")

_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def typed(payload: Any, kind: type[T], what: str) -> T:
    """Return the instance of `kind` for a payload; `what` names the payload in errors.

    Raises `CodecError` with every problem and its path.
    """
    try:
        return _converter().structure(payload, kind)
    except (cattrs.BaseValidationError, TypeError, ValueError, RecursionError) as exc:
        raise CodecError(what, problems_of(exc)) from None


def plain(payload: Any, kind: type[Any], what: str) -> dict[str, Any]:
    """Return a payload of `kind`, an instance or JSON, as a checked JSON object. Raises `CodecError`."""
    return typing.cast("dict[str, Any]", _converter().unstructure(typed(payload, kind, what)))


def plain_json(payload: Any, what: str) -> dict[str, Any]:
    """Return a copy of any JSON object. Raises `CodecError` with every problem and its path."""
    return typed(payload, dict[str, Any], what)


def unchecked(payload: Any) -> dict[str, Any] | None:
    """Return the object of a payload without validation; None if it is neither a mapping nor a payload class."""
    if isinstance(payload, Mapping):
        payload = dict(payload)
    elif not attrs.has(type(payload)):
        return None
    return typing.cast("dict[str, Any]", _converter().unstructure(payload))


def without_null(value: Any) -> Any:
    """Return a JSON value without null members, at any depth."""
    match value:
        case dict():
            return {key: without_null(item) for key, item in value.items() if item is not None}
        case list():
            return [without_null(item) for item in value]
        case _:
            return value


def _expected(what: str, value: Any) -> TypeError:
    return TypeError(f"expected {what}, got {type(value).__name__}")


def _string(value: Any, kind: Any) -> Any:
    if not isinstance(value, str):
        raise _expected("string", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("a lone surrogate is not JSON") from None
    return str.__str__(value) if kind is str else kind(value)


def _boolean(value: Any, _: Any) -> bool:
    if type(value) is not bool:
        raise _expected("boolean", value)
    return value


def _integer(value: Any, _: Any) -> int:
    if type(value) is not int:
        raise _expected("integer", value)
    if abs(value) > MAX_INTEGER:
        raise ValueError("an integer beyond 2^53-1 is not JSON; write it as a string")
    return value


def _number(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise _expected("number", value)
    if not math.isfinite(value):
        raise ValueError(f"{value} is not JSON")
    number = float(value)
    # canonical JSON writes 1.0 as 1 and 1e17 as its digits, so a number may come back as an integer
    if decimal.Decimal(repr(number)) != value and number != value:
        raise ValueError(f"{value} is not a JSON number; the nearest is {number!r}")
    return number


def _count(value: Any, _: Any) -> int:
    if _integer(value, int) < 0:
        raise ValueError(f"expected 0 or more, got {value}")
    return typing.cast("int", value)


def _ratio(value: Any, _: Any) -> float:
    number = _number(value, float)
    if not 0 <= number <= 1:
        raise ValueError(f"expected 0 to 1, got {value}")
    return number


def _time(value: Any, _: Any) -> str:
    text: str = _string(value, str)
    if _RFC_3339.fullmatch(text) is None or not _is_moment(text):
        raise ValueError(f"expected RFC 3339 time, got {value!r}")
    return text


def _is_moment(text: str) -> bool:
    try:
        dt.datetime.fromisoformat(f"{text[:10]}T{text[11:19]}")
    except ValueError:
        return False
    return True


def _choice(value: Any, kind: Any) -> Any:
    if not isinstance(value, str) or value not in typing.get_args(kind):
        raise ValueError(f"expected {in_words(kind)}, got {value!r}")
    return str.__str__(value)


# cattrs does not convert the items of a list[Any]; it passes those of a list of this type to `_json`
_ANY_JSON: TypeAlias = Annotated[Any, "any JSON"]

_PLAIN: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    str: _string,
    bool: _boolean,
    int: _integer,
    float: _number,
}


def _json(value: Any, _: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return _converter().structure(value, dict[str, Any])
    if isinstance(value, list | tuple):
        return _converter().structure(value, list[_ANY_JSON])
    kind = str if isinstance(value, str) else type(value)
    if kind not in _PLAIN:
        raise TypeError(f"{kind.__name__} is not JSON")
    return _PLAIN[kind](value, kind)


def _array(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    collection: type[Any] = tuple if typing.get_origin(kind) is tuple else list
    item = typing.get_args(kind)[0]
    of: Any = types.GenericAlias(list, _ANY_JSON if item is Any else item)
    items = list_structure_factory(of, converter)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _expected("list", value)
        return collection(items(value, of))

    return structure


def _object(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    entries = mapping_structure_factory(kind, converter, structure_to=dict)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _expected("object", value)
        return entries(value, kind)

    return structure


def _instance(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    fields = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind:
            present = ((field, getattr(value, field.name)) for field in attrs.fields(kind) if field.init)
            value = {
                field.name: item for field, item in present if item is not None or field.default is not None
            }
        if not isinstance(value, Mapping):
            raise _expected(f"object ({kind.__name__})", value)
        return fields(value, kind)

    return structure


def _without_absent(kind: Any, converter: cattrs.Converter) -> Callable[[Any], dict[str, Any]]:
    # only None is omitted: another default may change one day, and an old log must not change with it
    absent: Any = {
        field.name: override(omit_if_default=True) for field in attrs.fields(kind) if field.default is None
    }
    return make_dict_unstructure_fn(kind, converter, **absent)


def _origin(*origins: Any) -> Callable[[Any], bool]:
    return lambda kind: typing.get_origin(kind) in origins


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(unstruct_collection_overrides={tuple: list})
    converter.register_structure_hook_factory(attrs.has, _instance)
    converter.register_unstructure_hook_factory(attrs.has, _without_absent)
    converter.register_structure_hook_factory(_origin(tuple, list, Sequence), _array)
    converter.register_structure_hook_factory(_origin(dict, Mapping), _object)
    converter.register_structure_hook_func(_origin(Literal), _choice)
    converter.register_structure_hook_func(lambda kind: kind in {Any, _ANY_JSON}, _json)
    converter.register_structure_hook_func(lambda kind: kind == Count, _count)
    converter.register_structure_hook_func(lambda kind: kind == Ratio, _ratio)
    converter.register_structure_hook_func(lambda kind: kind == Time, _time)
    for kind, hook in _PLAIN.items():  # str stands for its subclasses too
        converter.register_structure_hook(kind, hook)
    converter.register_unstructure_hook(str, str.__str__)
    return converter
