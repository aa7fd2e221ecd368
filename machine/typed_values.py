"""Typed values: a value of `ctx.write_typed` returns equal and with equal types at every level, or is refused.

Times with the name of their zone and models of pydantic have a JSON form of their own here; `difference` finds what
a value has lost on its way through JSON and back. Neither pydantic nor any other library is imported for it.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import inspect
import math
import operator
import re
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import attrs

from machine import canonical
from machine.unstorable_values import known_remedy


@attrs.frozen
class Unkept:
    """A substitute for a value that cannot be written: it is not JSON, so its problem is reported with its path."""

    problem: str


# -- times ---------------------------------------------------------------------------------------------------

_TIME: Final = re.compile(r"(?P<time>[^\[]*)(\[(?P<zone>[A-Za-z0-9._+/-]+)\])?(?P<fold>\[fold=1\])?")


def _zone_class() -> Any:
    """Return the class of zones that have a name, if any code has imported it."""
    return getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)


def time_text(value: Any) -> str:
    """Return the text of a time: ISO 8601, followed by its zone by name, as in RFC 9557, and its fold."""
    if not isinstance(value, dt.datetime | dt.time):
        return str(value.isoformat())  # a date, which is read as another type and so refused
    zone = value.tzinfo
    named = zone is not None and type(zone) is _zone_class() and getattr(zone, "key", None)
    return f"{value.isoformat()}{f'[{named}]' if named else ''}{'[fold=1]' if value.fold else ''}"


def time_from(text: Any, kind: Any) -> Any:
    """Return the time of class `kind` that a text represents. Raises `ValueError` and `TypeError`."""
    if not isinstance(text, str) or "[" not in text:
        return kind.fromisoformat(text)
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"Invalid isoformat string: {text!r}")
    value = kind.fromisoformat(found["time"])
    if found["fold"]:
        value = value.replace(fold=1)
    if found["zone"] is None:
        return value
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - reads files, so only for those who use it

    try:
        zoned = value.replace(tzinfo=ZoneInfo(found["zone"]))
    except (ZoneInfoNotFoundError, OSError):
        raise ValueError(f"the time zone {found['zone']} is not known here; install tzdata") from None
    if isinstance(value, dt.datetime) and zoned.utcoffset() != value.utcoffset():
        raise ValueError(f"{found['time']} is no time of {found['zone']}: its rules have changed since")
    return zoned


# -- models of pydantic --------------------------------------------------------------------------------------


def is_model(kind: Any) -> bool:
    """Say whether a type is a model of pydantic."""
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return isinstance(base, type) and isinstance(kind, type) and issubclass(kind, base)


def dump_model(value: Any) -> Any:
    """Return a Pydantic model as the JSON it makes of itself; `Unkept` where it holds bytes that are not UTF-8."""
    try:
        return value.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    except ValueError as exc:
        if "invalid utf-8" not in str(exc):
            raise
        return Unkept(f"{_name(value)} holds bytes that are not UTF-8; {_IN_BASE64}")


_IN_BASE64: Final = (
    'set ser_json_bytes="base64" and val_json_bytes="base64" in the config of the pydantic model'
)


def excluded(value: Any) -> str | None:
    """Return the problem of a model with a field that is required and excluded, or None."""
    if isinstance(value, list | tuple | dict):
        parts = list(value.values() if isinstance(value, dict) else value)
    elif is_model(type(value)):
        for name, field in type(value).model_fields.items():
            if field.exclude and field.is_required():
                return _excluded(value, name)
        parts = list(vars(value).values())
    else:
        return None
    return next((problem for problem in map(excluded, parts) if problem is not None), None)


def _excluded(value: Any, name: str) -> str:
    return (
        f"{_name(value)} does not write its field {name}, which it excludes;"
        " do not exclude it, or write it under a key of its own"
    )


def load_model(value: Any, kind: Any) -> Any:
    """Return the model of class `kind` from its JSON. Raises `ValueError` without the values in it."""
    try:
        return kind.model_validate_json(canonical.encode(value))
    except ValueError as exc:
        problems = exc.errors(include_input=False, include_url=False) if hasattr(exc, "errors") else ()
        if not problems:
            raise
        said = (f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in problems)
        raise ValueError("; ".join(said)) from None


# -- losses ----------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """The place of a difference in a value that was read back, its description, and the remedy."""

    path: str
    problem: str


def difference(value: Any, back: Any, path: str = "$") -> Difference | None:
    """Return the first loss of a value on its way through JSON and back, or None when it is unchanged."""
    if value is back:
        return None
    numbers = type(value) in {int, float} and type(back) in {int, float}
    if type(value) is not type(back) and not numbers:
        return Difference(path, _other_type(value, back))
    problem = _lost(value, back)
    if problem is not None:
        return Difference(path, problem)
    parts = _parts(value, back)
    if parts is not None:
        found = (difference(one, other, path + step) for step, one, other in parts)
        lost = next((lost for lost in found if lost is not None), None)
        if lost is not None:
            return lost
    elif not _equal(value, back):
        return Difference(path, f"{_name(value)} is not equal when read; {_remedy_unequal(value)}")
    problem = _lost_attribute(value, back)
    return None if problem is None else Difference(path, problem)


def _equal(value: Any, back: Any) -> bool:
    if isinstance(value, decimal.Decimal):
        return bool(value.as_tuple() == back.as_tuple())
    if isinstance(value, float) and value == 0:
        return math.copysign(1, value) == math.copysign(1, back)
    if (
        isinstance(value, dt.datetime)
        and isinstance(back, dt.datetime)
        and _same_zone(value.tzinfo, back.tzinfo)
    ):
        # with two objects for one zone, times that the clock shows twice are never equal to Python
        naive = [each.replace(tzinfo=None) for each in (value, back)]
        return naive[0] == naive[1] and value.fold == back.fold
    return bool(value == back)


def _lost(value: Any, back: Any) -> str | None:
    """Return in words how `back` lacks something of `value` that their parts do not show, or None."""
    name = _name(value)
    match value:
        case dt.datetime() | dt.time():
            if value.fold != back.fold:
                return f"{name} loses its fold"
            if not _same_zone(value.tzinfo, back.tzinfo):
                if getattr(value.tzinfo, "key", None):  # a model writes its times by itself
                    return (
                        f"{name} loses its ZoneInfo, which pydantic's JSON cannot keep;"
                        " write the zone's key beside it"
                    )
                zone = _name(value.tzinfo)
                return f"{name} loses its {zone}; use a ZoneInfo with a key, or a timezone without a name"
        case float() if value == 0 and not _equal(value, back):
            return f"{name} -0.0 loses its sign in JSON; use 0.0"
        case collections.OrderedDict() if list(value) != list(back):
            return f"{name} loses its order; write a list of pairs"
        case collections.defaultdict() if value.default_factory != back.default_factory:
            return f"{name} loses its default_factory; write dict(value)"
        case collections.deque() if value.maxlen != back.maxlen:
            return f"{name} loses its maxlen; write list(value)"
        case list() | tuple() | dict() | collections.deque() if len(value) != len(back):
            return f"{name} loses items; {remedy(value)}"
        case _ if is_model(type(value)):
            return _lost_by_model(value, back)
    return None


def _lost_attribute(value: Any, back: Any) -> str | None:
    """Return in words which attribute, not a field, an instance has lost, or None."""
    if isinstance(value, enum.Enum | type):
        return None
    own = getattr(value, "__dict__", {})
    for name in own.keys() - {name for name, _ in _fields(value) or ()}:
        if not _is_computed(value, name) and (
            name not in vars(back) or difference(own[name], vars(back)[name]) is not None
        ):
            return f"{_name(value)} loses its attribute {name}, which is no field; make it one"
    return None


def _is_computed(value: Any, name: str) -> bool:
    """Say whether an attribute is the result of a `cached_property`, which is computed again."""
    found = inspect.getattr_static(type(value), name, None)
    return isinstance(getattr(found, "wrapped", found), functools.cached_property)


def _lost_by_model(value: Any, back: Any) -> str | None:
    if value.__pydantic_private__ != back.__pydantic_private__:
        return f"{_name(value)} loses its private attributes; make them fields"
    for name, field in type(value).model_fields.items():
        one, other = getattr(value, name), getattr(back, name)
        if field.exclude and difference(one, other) is not None:
            return _excluded(value, name)
        if type(one) is float and type(other) is int and int in typing.get_args(field.annotation):
            return f"{_name(value)} would read a whole float in {name} as int; declare float, or write an int"
    return None


def _same_zone(zone: dt.tzinfo | None, back: dt.tzinfo | None) -> bool:
    if zone is None or back is None:
        return zone is back
    if type(zone) is dt.timezone:  # models of pydantic come back with a class of their own for these
        return zone.utcoffset(None) == back.utcoffset(None) and zone.tzname(None) == back.tzname(None)
    same = type(zone) is type(back) and getattr(zone, "key", None) == getattr(back, "key", None)
    return same and (bool(zone == back) or _is_by_key(zone))


def _is_by_key(zone: dt.tzinfo) -> bool:
    """Say whether a zone is that of its key, and not one that was read from a file of the user's."""
    zones = sys.modules.get("zoneinfo")
    if zones is None or not isinstance(zone, zones.ZoneInfo):
        return False
    try:
        copy.copy(zone)
    except Exception:  # noqa: BLE001 - one that was read from a file cannot be copied, or only by its class
        return False
    return zone.key is not None


def _parts(value: Any, back: Any) -> Iterator[tuple[str, Any, Any]] | None:
    """Return the parts of a container, each with its step and its counterpart; None when it is no container."""
    if isinstance(value, list | tuple | collections.deque):
        return ((f"[{at}]", one, other) for at, (one, other) in enumerate(zip(value, back, strict=True)))
    if isinstance(value, dict):
        return _members(value, back)
    fields = None if isinstance(value, enum.Enum) else _fields(value)
    if fields is None:
        return None
    names = [name for name, counts in fields if counts]
    return ((_step(name), getattr(value, name, _ABSENT), getattr(back, name, _ABSENT)) for name in names)


def _fields(value: Any) -> list[tuple[str, bool]] | None:
    """Return the fields of an instance, each with whether it must be restored; None where its class has none."""
    if attrs.has(type(value)):
        return [(field.name, field.init or bool(field.eq)) for field in attrs.fields(type(value))]
    if dataclasses.is_dataclass(value):
        return [(field.name, field.init or field.compare) for field in dataclasses.fields(value)]
    if is_model(type(value)):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return [(name, not _is_computed(value, name)) for name in (*vars(value), *extra)]
    return None


_ABSENT: Final = object()


def _members(value: Mapping[Any, Any], back: Mapping[Any, Any]) -> Iterator[tuple[str, Any, Any]]:
    keys = {key: key for key in back}
    for key, item in value.items():
        yield _step(key), key, keys.get(key, _ABSENT)
        yield _step(key), item, back.get(key, _ABSENT)


def _step(key: Any) -> str:
    return canonical.path_of(key if type(key) is str else str(key)).removeprefix("$")


def part_at(value: Any, path: str) -> Any:
    """Return the part of a value at a path, or the last part before the path ends."""
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        try:
            if index:
                value = value[int(index)]
            else:
                value = value[name] if isinstance(value, Mapping) else getattr(value, name)
        except (AttributeError, LookupError, TypeError):
            break
    return value


# -- remedies --------------------------------------------------------------------------------------------------


def _name(value: Any) -> str:
    return type(value).__name__


def _other_type(value: Any, back: Any) -> str:
    name, declared = _name(value), _name(back)
    if back is _ABSENT:
        return f"{name} does not come back; {remedy(value)}"
    known = known_remedy(value)
    if known is not None:
        return f"{name} would come back as {declared}; {known}"
    if {type(value), type(back)} == {list, tuple}:
        return f"{name} would come back as {declared}; declare {name}[...], or write {declared}(value)"
    if isinstance(value, type(back)):
        return f"{name} would come back as {declared}; declare its own type, or write a plain {declared}"
    if type(back) in {str, int, float, bool, list, dict, type(None)}:
        return (
            f"{name} would come back as {declared};"
            " declare its type alone where it stands, in place of Any, none or a union"
        )
    return f"{name} would come back as {declared}; declare {name}, or write a {declared}"


def remedy_declared(value: Any) -> str:
    """Return the remedy for a value that is not of the declared type."""
    return known_remedy(value) or "declare the type it has, or write a value of the declared one"


def _remedy_unequal(value: Any) -> str:
    if type(value) is bytes:  # only a model writes its values in another form than it reads
        return _IN_BASE64
    return known_remedy(value) or (
        "let what holds it write it and read it as it is: a field of its __init__, with no converter or serializer"
    )


def kind_of(value: Any) -> Any:
    """Return the type of a value with the types of its items, for plain containers."""
    if value is None or type(value) not in {list, tuple, dict} or not value:
        return None if value is None else type(value)
    if type(value) is tuple:
        return tuple[tuple(kind_of(item) for item in value)]  # type: ignore[misc]
    if type(value) is list:
        return list[_any_of(value)]  # type: ignore[misc]
    return dict[_any_of(value), _any_of(value.values())]  # type: ignore[misc]


def _any_of(items: Iterable[Any]) -> Any:
    kinds = dict.fromkeys(kind_of(item) for item in items)
    return functools.reduce(operator.or_, kinds) if kinds != {None: None} else None


def kind_text(kind: Any) -> str:
    """Return a type as it is written in a program that imported its names."""
    if isinstance(kind, type) and not typing.get_args(kind):
        return kind.__name__
    return re.sub(r"(?:[\w<>]+\.)+(?=\w)", "", str(kind))


def remedy(value: Any) -> str:
    """Return in words what to do about a value that cannot be stored: annotate it, or write another."""
    known = known_remedy(value)
    if known is not None:
        return known
    if attrs.has(type(value)) or dataclasses.is_dataclass(type(value)) or is_model(type(value)):
        return "annotate what holds it, and its own fields, with the types they have, or write what it is made of"
    if type(value) is bytes or type(value).__module__ in {"datetime", "decimal", "uuid"}:
        return "declare its type where it stands, in place of another or none"
    return "write what it is made of, or make it an attrs class, a dataclass or a pydantic model with typed fields"
