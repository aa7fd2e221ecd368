"""The parts of an HTTP request that are sent and kept, but are no part of its identity."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, cast

import attrs

from machine.errors import Code, ConfigError

NEEDED: Final = "idempotency-key"
"""The header that distinguishes two effects, here and at the receiver."""

_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z?\[\]-]+")
"""The name of a header (RFC 9110 section 5.6.2), or a pattern of names."""

_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")


def _refuse(field: str, problem: str, hint: str | None = None) -> ConfigError:
    return ConfigError(f"Ignore.{field} {problem}", code=Code.INVALID_IGNORE, hint=hint)


def _strings(value: Any) -> tuple[str, ...]:
    # a string is iterable too, and would become its letters
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        return cast("tuple[str, ...]", value)  # for the validator, which knows the name of the field
    items = tuple(value)
    return tuple(sorted(set(items))) if all(isinstance(item, str) for item in items) else items


def _names(value: Any) -> tuple[str, ...]:
    items = _strings(value)
    if not isinstance(items, tuple) or not all(isinstance(item, str) for item in items):
        return items
    return _strings(item.lower() for item in items)


@attrs.frozen(kw_only=True)
class Ignore:
    """The parts of HTTP requests that change by themselves: sent as they are, kept, and not compared.

    `headers` are names of header fields, in any case, with `*` for any letters; `query` are names of query
    parameters; `json` are JSON pointers (RFC 6901) into a body of JSON. Raises `ConfigError` (`invalid_ignore`).
    """

    headers: tuple[str, ...] = attrs.field(default=(), converter=_names)
    query: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    json: tuple[str, ...] = attrs.field(default=(), converter=_strings)

    @headers.validator
    @query.validator
    @json.validator
    def _check_strings(self, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, tuple):
            hint = f"write [{value!r}]" if isinstance(value, str) else None
            raise _refuse(field.name, f"must be a list of strings, not {value!r}", hint)
        for item in value:
            if not isinstance(item, str):
                raise _refuse(field.name, f"must hold strings, not {item!r}")

    @headers.validator
    def _check_headers(self, _: Any, value: tuple[str, ...]) -> None:
        for pattern in value:
            if not _HEADER.fullmatch(pattern):
                raise _refuse("headers", f"cannot hold {pattern!r}, which is not the name of a header")
            if fnmatchcase(NEEDED, pattern):
                raise _refuse(
                    "headers",
                    f"cannot hold {pattern!r}: {NEEDED} is how two effects are distinguished",
                    "for a key that a library makes, give the client own_idempotency_key=False: the key of the "
                    "state is sent in its place",
                )

    @query.validator
    def _check_query(self, _: Any, value: tuple[str, ...]) -> None:
        for name in value:
            if not name or not name.isprintable():
                raise _refuse("query", f"cannot hold {name!r}: give the name of a parameter, decoded")

    @json.validator
    def _check_pointers(self, _: Any, value: tuple[str, ...]) -> None:
        for pointer in value:
            if pointer == "":
                raise _refuse("json", "cannot hold '', which is the whole body")
            if not _POINTER.fullmatch(pointer):
                raise _refuse("json", f"cannot hold {pointer!r}: a JSON pointer is like /params/nonce")

    def __or__(self, other: object) -> Ignore:
        """Return what either ignores."""
        if not isinstance(other, Ignore):
            return NotImplemented
        return Ignore(
            headers=(*self.headers, *other.headers),
            query=(*self.query, *other.query),
            json=(*self.json, *other.json),
        )


def steps_of(pointer: str) -> list[str]:
    """Return the steps of a JSON pointer."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
