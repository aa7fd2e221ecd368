"""Arguments and results of steps as JSON that gives them back equal, with the same types at every level.

JSON stands for itself. A value of a well-known type becomes an object with one key that begins with `$`, such as
`{"$decimal": "1.50"}`. An instance of a class of the user's becomes what `ctx.write_typed` makes of it; to read it,
its class must be given, as no class is imported by a name that was found in a recording.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import math
import pathlib
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from machine import canonical, codec
from machine.errors import CanonicalError, CodecError
from machine.secrets.secret_value import Secret
from machine.typed_values import is_model, remedy, time_from, time_text

Kinds = dict[str, type[Any]]
"""The classes of the user's own in some arguments, by name."""

_MOST_INT: Final = 2**53 - 1
_OBJECT: Final = "$object"
_PATH: Final = type(pathlib.Path())
_NATIVE: Final = {type(None), bool}

_WRITERS: Final[Mapping[type[Any], tuple[str, Callable[[Any], Any]]]] = {
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode()),
    decimal.Decimal: ("$decimal", str),
    uuid.UUID: ("$uuid", str),
    dt.datetime: ("$datetime", time_text),
    dt.time: ("$time", time_text),
    dt.date: ("$date", dt.date.isoformat),
    dt.timedelta: ("$timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    _PATH: ("$path", str),
}
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$bytes": base64.b64decode,
    "$decimal": decimal.Decimal,
    "$uuid": uuid.UUID,
    "$datetime": lambda text: time_from(text, dt.datetime),
    "$time": lambda text: time_from(text, dt.time),
    "$date": dt.date.fromisoformat,
    "$timedelta": lambda parts: dt.timedelta(*parts),
    "$path": pathlib.Path,
    "$int": int,
    "$float": float,
}


def encode(value: Any, kinds: Kinds | None = None, path: str = "$") -> Any:
    """Return the JSON of a value, from which `decode` makes an equal one.

    With `kinds`, instances of the user's own classes are written too, and their classes added to it. Raises
    `CanonicalError` with the path of a part that cannot be written.
    """
    try:
        return _encoded(value, kinds, path)
    except RecursionError:
        raise CanonicalError(path, "it is nested too deeply, or contains itself") from None


def _encoded(value: Any, kinds: Kinds | None, path: str) -> Any:
    kind = type(value)
    if kind is str or kind is Secret:
        text = str.__str__(value)
        canonical.encode(text)  # which refuses text that no JSON can hold
        return text
    if kind in _NATIVE:
        return value
    if kind is int:
        return value if abs(value) <= _MOST_INT else {"$int": str(value)}
    if kind is float:  # JSON has one kind of number
        return {"$float": repr(value)} if not math.isfinite(value) or value.is_integer() else value
    if kind is list or kind is tuple:
        items = [_encoded(item, kinds, f"{path}[{at}]") for at, item in enumerate(value)]
        return items if kind is list else {"$tuple": items}
    if kind is dict:
        return _mapping(value, kinds, path)
    if kind is set or kind is frozenset:
        members = [_encoded(item, kinds, f"{path}[...]") for item in value]
        return {f"${kind.__name__}": sorted(members, key=canonical.encode)}
    if kind in _WRITERS:
        if kind is dt.datetime or kind is dt.time:
            _refuse_odd_zone(value, path)
        tag, write = _WRITERS[kind]
        return {tag: write(value)}
    return _instance(value, kinds, path)


def _mapping(value: dict[Any, Any], kinds: Kinds | None, path: str) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: _encoded(item, kinds, _member(path, key)) for key, item in value.items()}
    pairs = [
        [_encoded(key, kinds, _member(path, key)), _encoded(item, kinds, _member(path, key))]
        for key, item in value.items()
    ]
    return {"$dict": pairs}


def _member(path: str, key: Any) -> str:
    return path + canonical.path_of(key if type(key) is str else repr(key)[:80]).removeprefix("$")


def _refuse_odd_zone(value: Any, path: str) -> None:
    try:
        codec.typed_bytes(value)
    except CanonicalError as exc:
        raise CanonicalError(path, exc.problem) from None


def _instance(value: Any, kinds: Kinds | None, path: str) -> Any:
    kind = type(value)
    name = kind.__qualname__
    if not _is_record(value):
        raise CanonicalError(path, f"{name} cannot be stored; {remedy(value)}")
    if kinds is None:
        raise CanonicalError(path, f"{name} is a class of yours, which only its declaration can name")
    try:
        written = canonical.decode(codec.typed_bytes(value, kind))
    except CanonicalError as exc:
        raise CanonicalError(path + exc.path.removeprefix("$"), exc.problem) from None
    if kinds.setdefault(name, kind) is not kind:
        raise CanonicalError(path, f"{name} is the name of two classes here; give one of them another name")
    return {_OBJECT: name, "value": written}


def _is_record(value: Any) -> bool:
    kind = type(value)
    return (
        isinstance(value, enum.Enum)
        or hasattr(kind, "__attrs_attrs__")
        or hasattr(kind, "__dataclass_fields__")
        or is_model(kind)
        or (isinstance(value, tuple) and hasattr(kind, "_fields"))
    )


def decode(stored: Any, kinds: Mapping[str, type[Any]] | None = None) -> Any:
    """Return the value that `encode` wrote, with the user's own classes by name. Raises `CodecError`."""
    try:
        return _decoded(stored, kinds or {})
    except (ArithmeticError, LookupError, TypeError, ValueError) as exc:
        raise CodecError("a value of a step", [str(exc)]) from None


def _decoded(stored: Any, kinds: Mapping[str, type[Any]]) -> Any:
    if type(stored) is list:
        return [_decoded(item, kinds) for item in stored]
    if type(stored) is not dict:
        return stored
    if _OBJECT in stored:
        return codec.structure_typed(stored["value"], kinds[stored[_OBJECT]])
    if len(stored) == 1:
        ((tag, inner),) = stored.items()
        if tag in _READERS:
            return _READERS[tag](inner)
        if tag == "$tuple":
            return tuple(_decoded(item, kinds) for item in inner)
        if tag == "$dict":
            return {_decoded(key, kinds): _decoded(item, kinds) for key, item in inner}
        if tag in {"$set", "$frozenset"}:
            members = (_decoded(item, kinds) for item in inner)
            return set(members) if tag == "$set" else frozenset(members)
    return {key: _decoded(item, kinds) for key, item in stored.items()}


# -- results ---------------------------------------------------------------------------------------------------

UNDECLARED: Final = object()
"""The declared type of a result that has none."""


def annotated_return(function: Callable[..., Any]) -> Any:
    """Return the type that a function is annotated to return, `UNDECLARED` when that says nothing."""
    try:
        kind = typing.get_type_hints(function, include_extras=True).get("return", UNDECLARED)
    except Exception:  # noqa: BLE001 - an annotation may be any expression
        return UNDECLARED
    says_nothing = kind in {Any, object, types.NoneType} or isinstance(kind, typing.TypeVar)
    return UNDECLARED if says_nothing else kind


def encode_result(value: Any, returns: Any, annotated: Callable[[], Any]) -> dict[str, Any]:
    """Return the response of a step with this result; `returns` is the declared type, or `UNDECLARED`.

    Raises `CanonicalError` with the path of a part that would not come back equal.
    """
    if returns is not UNDECLARED:
        return {"typed": canonical.decode(codec.typed_bytes(value, returns))}
    try:
        return {"value": encode(value)}
    except CanonicalError as exc:
        kind = annotated()
        if kind is not UNDECLARED:
            return {"typed": canonical.decode(codec.typed_bytes(value, kind))}
        problem = f"{exc.problem}; declare the type of the result, returns=..."
        raise CanonicalError(exc.path, problem) from None


def decode_result(response: Mapping[str, Any], returns: Any, annotated: Callable[[], Any]) -> Any:
    """Return the result of a step from its response. Raises `CodecError` when it does not fit the declared type.

    The form `given` is that of an outcome which a person gave, as JSON.
    """
    if "value" in response:
        return decode(response["value"])
    form: Iterable[str] = response.keys() & {"typed", "given"}
    name = next(iter(form), None)
    if name is None:
        raise CodecError("the response of a step", ["it has none of value, typed and given"])
    kind = returns if returns is not UNDECLARED else annotated()
    if kind is UNDECLARED:
        if name == "given":
            return response[name]
        raise CodecError("the result of a step", ["its type is not declared any more; give returns=..."])
    return codec.structure_typed(response[name], kind)
