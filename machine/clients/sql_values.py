"""Parameters and columns of databases as JSON that gives them back equal.

On top of what steps can hold (`machine/io/step_values.py`), it holds the values of the drivers: networks, ranges
and JSON wrappers of psycopg. Any other class is refused by its name.
"""

from __future__ import annotations

import base64
import ipaddress
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from machine.errors import CanonicalError, Code, OtherIoError
from machine.io import step_values

_NETWORKS: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind
    for kind in (
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
        ipaddress.IPv4Interface,
        ipaddress.IPv6Interface,
        ipaddress.IPv4Network,
        ipaddress.IPv6Network,
    )
}
_JSON: Final = {"Json": "$json", "Jsonb": "$jsonb"}


Kinds: TypeAlias = dict[str, type[Any]]
"""The classes of the user's own among the parameters of a connection, by name."""


def stored(value: Any, what: str, kinds: Kinds | None = None) -> Any:
    """Return the JSON of a value. Raises `OtherIoError` (`sql_value`), which says where the value came from."""
    try:
        return _stored(value, kinds)
    except CanonicalError as exc:
        raise OtherIoError(
            f"{what} cannot be recorded: {exc}",
            code=Code.SQL_VALUE,
            hint="give the database a plain value, or cast the column to one in the statement",
        ) from None


def _stored(value: Any, kinds: Kinds | None = None) -> Any:
    kind = type(value)
    if kind is list:
        return [_stored(item, kinds) for item in value]
    if kind is tuple:
        return {"$tuple": [_stored(item, kinds) for item in value]}
    if kind is dict and all(type(key) is str and not key.startswith("$") for key in value):
        return {key: _stored(item, kinds) for key, item in value.items()}
    if kind in {bytearray, memoryview}:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind in _NETWORKS.values():
        return {"$network": [kind.__name__, str(value)]}
    module = kind.__module__
    if module.startswith("psycopg.types.json") and kind.__name__ in _JSON:
        return {_JSON[kind.__name__]: _stored(value.obj, kinds)}
    if module.startswith("psycopg.types.range") and hasattr(value, "bounds"):
        return {"$range": [_stored(value.lower), _stored(value.upper), value.bounds if value else None]}
    return step_values.encode(value, kinds)


def restored(value: Any, kinds: Kinds | None = None) -> Any:
    """Return the value that `stored` wrote."""
    if type(value) is list:
        return [restored(item, kinds) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        ((tag, inner),) = value.items()
        reader = _READERS.get(tag)
        if reader is not None:
            return reader(inner)
        if tag.startswith("$"):
            return step_values.decode(value)
    if "$object" in value:
        return step_values.decode(value, kinds)
    return {key: restored(item, kinds) for key, item in value.items()}


def _json(name: str) -> Callable[[Any], Any]:
    return lambda inner: getattr(sys.modules["psycopg.types.json"], name)(restored(inner))


def _range(inner: Any) -> Any:
    kind = sys.modules["psycopg.types.range"].Range
    lower, upper, bounds = inner
    return kind(empty=True) if bounds is None else kind(restored(lower), restored(upper), bounds)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$tuple": lambda inner: tuple(restored(item) for item in inner),
    "$network": lambda inner: _NETWORKS[inner[0]](inner[1]),
    "$json": _json("Json"),
    "$jsonb": _json("Jsonb"),
    "$range": _range,
}


def stored_params(params: Any, kinds: Kinds | None = None) -> Any:
    """Return the JSON of the parameters of one statement: a list, an object, or None."""
    if params is None:
        return None
    if isinstance(params, Mapping):
        return {str(name): stored(value, f"the parameter {name}", kinds) for name, value in params.items()}
    return [stored(value, f"parameter {at}", kinds) for at, value in enumerate(params, 1)]


def restored_params(params: Any, kinds: Kinds | None = None) -> Any:
    """Return the parameters that `stored_params` wrote."""
    if params is None:
        return None
    if isinstance(params, dict):
        return {name: restored(value, kinds) for name, value in params.items()}
    return tuple(restored(value, kinds) for value in params)


def stored_rows(rows: Any, names: Any) -> list[list[Any]]:
    """Return the JSON of rows, given the names of their columns."""
    return [[stored(value, f"the column {names[at]}") for at, value in enumerate(row)] for row in rows]


def restored_rows(rows: Any) -> list[tuple[Any, ...]]:
    """Return the rows that `stored_rows` wrote."""
    return [tuple(restored(value) for value in row) for row in rows]
