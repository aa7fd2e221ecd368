"""What a user says of secrets: what is one besides what is known to be, and what is none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs

from machine.errors import Code, ConfigError

__all__ = ["SecretPolicy", "joined"]


def _refuse(field: str, problem: str) -> ConfigError:
    return ConfigError(f"secrets.{field} {problem}", code=Code.INVALID_CONFIG)


def _strings(value: Any) -> tuple[str, ...]:
    # a string is iterable too, and would become its letters
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise _refuse("*", f"must be lists of strings, not {value!r}")
    items = tuple(value)
    if not all(isinstance(item, str) and item for item in items):
        raise _refuse("*", "must hold strings that are not empty")
    return tuple(sorted(set(items)))


@attrs.frozen(kw_only=True)
class SecretPolicy:
    """What is secret besides what is known to be, and what is not. Part of a run's configuration.

    `names` are further names of headers, fields and variables whose text is secret (`-`, `_` and case do not
    matter); `patterns` are regular expressions of text that is secret wherever it stands (of a group, if there is
    one); `allow` lists names, names of built-in patterns, and exact paths (`$.headers.x-token`) that are never
    secret; `stable` lists names whose hash is taken of the name alone, so that a digest does not move when such
    a secret rotates.
    """

    names: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    patterns: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    allow: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    stable: tuple[str, ...] = attrs.field(default=(), converter=_strings)

    @names.validator
    @stable.validator
    def _check_names(self, field: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
        for name in value:
            if not joined(name):
                raise _refuse(field.name, f"cannot hold {name!r}: a name has letters or digits")

    @patterns.validator
    def _check_patterns(self, _: Any, value: tuple[str, ...]) -> None:
        for pattern in value:
            try:
                matches_nothing = re.compile(pattern).search("") is not None
            except (re.error, OverflowError) as exc:
                raise _refuse("patterns", f"cannot hold {pattern!r}: {exc}") from None
            if matches_nothing:
                raise _refuse("patterns", f"cannot hold {pattern!r}: it matches the empty text")


def joined(name: str) -> str:
    """Return a name without what does not matter: case, `-` and `_`."""
    return "".join(char for char in name.lower() if char.isalnum())
