"""The JSON schema of a plan's input, made from the fields of its class (JSON Schema 2020-12)."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Literal, NamedTuple

import attrs

from machine import canonical, codec
from machine.errors import CanonicalError
from machine.typed_values import is_model

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_SCALARS: Final[Mapping[Any, dict[str, Any]]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    dt.datetime: {"type": "string", "format": "date-time"},
    dt.date: {"type": "string", "format": "date"},
    dt.time: {"type": "string", "format": "time"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    decimal.Decimal: {"type": "string", "format": "decimal"},
    bytes: {"type": "string", "contentEncoding": "base64"},
}
_LISTS: Final = frozenset({list, Sequence, Collection, set, frozenset, AbstractSet})
_OBJECTS: Final = frozenset({dict, Mapping})
_MISSING: Final[Any] = object()


class _Field(NamedTuple):
    name: str
    hint: Any
    default: Any


def schema_of(kind: type) -> dict[str, Any]:
    """Return the JSON schema of an input class. A part whose type has no schema takes any JSON."""
    if is_model(kind):
        found: dict[str, Any] = kind.model_json_schema(by_alias=True)  # type: ignore[attr-defined]  # pydantic is optional
        return {"$schema": DIALECT, **found}
    parts: dict[str, Any] = {}
    schema = _object(kind, parts)
    parts.pop(kind.__name__, None)
    return {"$schema": DIALECT, **schema, **({"$defs": parts} if parts else {})}


def _of(hint: Any, parts: dict[str, Any]) -> dict[str, Any]:
    if hint in _SCALARS:
        return dict(_SCALARS[hint])
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _of(args[0], parts)
    if origin in {typing.Union, types.UnionType}:
        return {"anyOf": [_of(arg, parts) for arg in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple and args[1:] != (...,):
        items = [_of(arg, parts) for arg in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if (origin or hint) in _LISTS or origin is tuple:
        return {"type": "array", "items": _of(args[0], parts) if args else {}}
    if (origin or hint) in _OBJECTS:
        return {"type": "object", "additionalProperties": _of(args[1], parts) if args else {}}
    if isinstance(hint, type):
        return _of_class(hint, parts)
    return {}


def _of_class(kind: type, parts: dict[str, Any]) -> dict[str, Any]:
    if issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if is_model(kind):
        return schema_of(kind)
    if attrs.has(kind) or dataclasses.is_dataclass(kind):
        if kind.__name__ not in parts:
            parts[kind.__name__] = {}  # a class may hold itself
            parts[kind.__name__] = _object(kind, parts)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    return _of(str, parts) if issubclass(kind, str) else {}


def _object(kind: type, parts: dict[str, Any]) -> dict[str, Any]:
    fields = _fields(kind)
    properties = {}
    for field in fields:
        described = _of(field.hint, parts)
        if field.default is not _MISSING:
            described["default"] = field.default
        properties[field.name] = described
    required = [field.name for field in fields if field.default is _MISSING]
    doc = (kind.__doc__ or "").split("\n\n")[0].strip()
    own = not doc.startswith(f"{kind.__name__}(")  # what dataclasses write for a class without one
    return {
        "title": kind.__name__,
        **({"description": " ".join(doc.split())} if doc and own else {}),
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _fields(kind: type) -> list[_Field]:
    hints = typing.get_type_hints(kind, include_extras=True)
    if attrs.has(kind):
        return [
            _Field(each.alias or each.name, hints.get(each.name, Any), _attrs_default(each))
            for each in attrs.fields(kind)
            if each.init
        ]
    return [
        _Field(each.name, hints.get(each.name, Any), _dataclass_default(each))
        for each in dataclasses.fields(kind)
        if each.init
    ]


def _attrs_default(field: Any) -> Any:
    if field.default is attrs.NOTHING:
        return _MISSING
    factory = isinstance(field.default, attrs.Factory)  # type: ignore[arg-type]  # a class, for all that it is typed as
    if factory:
        return None if field.default.takes_self else _json(field.default.factory)
    return _json(lambda: field.default)


def _dataclass_default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return _json(lambda: field.default)
    if field.default_factory is not dataclasses.MISSING:
        return _json(field.default_factory)
    return _MISSING


def _json(make: Callable[[], Any]) -> Any:
    """Return a default as JSON, None for one that only the class can make."""
    try:
        return canonical.decode(canonical.encode(codec.unstructure_typed(make())))
    except (CanonicalError, TypeError, ValueError):
        return None


def words_of(schema: Mapping[str, Any]) -> str:
    """Return the type of a field in words, given its schema."""
    if "enum" in schema:
        return " or ".join(map(repr, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(words_of(each) for each in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"list of {words_of(items)}" if items else "list"
    word = schema.get("format") or schema.get("type") or "any JSON"
    return str(word)
