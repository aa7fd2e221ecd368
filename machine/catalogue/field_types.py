"""Types of payload fields: those that JSON represents exactly, and their names in words.

In kinds of this library's own money is an integer in millionths of a US dollar (`..._usd_micros`) and time one in
milliseconds (`..._ms`). Kinds of the systems before it have numbers of dollars (`..._usd`).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import attrs

Count: TypeAlias = Annotated[int, "0 or more"]
"""An integer that is not negative."""

Ratio: TypeAlias = Annotated[float, "0 to 1"]
"""A number from 0 to 1, both included."""

Time: TypeAlias = Annotated[str, "RFC 3339"]
"""A moment as text, with its offset from UTC: `2026-11-30T09:00:00Z` (RFC 3339)."""

MAX_INTEGER = 2**53 - 1
"""The largest integer that JSON represents exactly (RFC 7493 section 2.2, which RFC 8785 builds on)."""

_WORDS: Mapping[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    Any: "any JSON",
    Count: "integer, 0 or more",
    Ratio: "number, 0 to 1",
    Time: "RFC 3339 time",
}


def in_words(hint: Any, *, _within: frozenset[type] = frozenset()) -> str:
    """Return the wire type of a field in words; raises `TypeError` for a type JSON cannot hold.

    Allowed are str, int, float, bool, Any (any JSON), `Count`, `Ratio`, `Time`, identifiers and other subclasses of
    str (StrEnum too), literals of strings, attrs classes of such fields, and of all these `X | None`,
    `tuple[X, ...]`, `list[X]` and `Mapping[str, X]`.
    """
    if hint in _WORDS:
        return _WORDS[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType} and len(args) == 2 and type(None) in args:  # noqa: PLR2004
        return in_words(next(arg for arg in args if arg is not type(None)), _within=_within)
    if origin is Literal and all(isinstance(arg, str) for arg in args):
        return " or ".join(f'"{arg}"' for arg in args)
    if (origin is tuple and args[1:] == (...,)) or origin in {list, Sequence}:
        return f"list of: {in_words(args[0], _within=_within)}"
    if origin in {dict, Mapping} and args[0] is str:
        return f"object of: {in_words(args[1], _within=_within)}"
    if isinstance(hint, type) and attrs.has(hint):
        if hint not in _within:
            for name, inner in field_types(hint).items():
                try:
                    in_words(inner, _within=_within | {hint})
                except TypeError as exc:
                    raise TypeError(f"{hint.__name__}.{name}: {exc}") from None
        return hint.__name__
    if isinstance(hint, type) and origin is None and issubclass(hint, str):
        return hint.__name__
    raise TypeError(f"{getattr(hint, '__name__', hint)} is not a type that JSON can hold exactly")


def field_types(payload: type[Any]) -> dict[str, Any]:
    """Return the init fields of a payload class with their types, in order."""
    hints = typing.get_type_hints(payload, include_extras=True)
    return {field.name: hints[field.name] for field in attrs.fields(payload) if field.init}
