"""A user's policy about secrets: further values that are secret, and exceptions that are not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self, cast

import attrs

from machine.errors import Code, ConfigError

_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")


_PATH: Final = re.compile(
    r"""\$(?:\.[^.\[\]*]+|\[[0-9]+\]|\["(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"\])+"""
)
_BRACKETS: Final = re.compile(r"""\[("(?:[^"\\]|\\.)*")\]""")


def _refuse(field: str, problem: str, hint: str | None = None) -> ConfigError:
    return ConfigError(f"secrets.{field} {problem}", code=Code.INVALID_CONFIG, hint=hint)


def _strings(value: Any) -> tuple[str, ...]:
    # a string is iterable too, and would become its letters
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        return cast("tuple[str, ...]", value)  # for the validator, which knows the name of the field
    items = tuple(value)
    return tuple(sorted(set(items))) if all(isinstance(item, str) for item in items) else items


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    try:
        items = dict(value)
    except (TypeError, ValueError):
        items = {None: value}
    if not all(isinstance(text, str) and text for pair in items.items() for text in pair):
        raise _refuse("stand_ins", "must map names to texts that are not empty")
    return tuple(sorted(items.items()))


@attrs.frozen(kw_only=True)
class SecretPolicy:
    """The values that are secret besides those of the built-in rules, and those that are not.

    It is a part of a run's configuration.

    `names` are further names of headers, fields and variables whose text is secret (`-`, `_` and case do not
    matter); `pointers` are JSON pointers (RFC 6901) to what is secret in a request, in a response or in a body of
    JSON; `patterns` are regular expressions (RE2 syntax) of text that is secret wherever it stands (of a group, if
    there is one); `allow` lists names, names of built-in formats, pointers, and exact paths (`$.headers.x-token`)
    that are never secret; `stand_ins` gives texts, by the names of fields or of `io.secret`, that a handler gets in
    place of the secret and that are recorded. `stable` has a meaning for runs of format 1 only: names whose hash is
    taken of the name alone.
    """

    names: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    patterns: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    allow: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    stable: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    pointers: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    stand_ins: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs)

    @classmethod
    def recorded(cls, *, patterns: Iterable[str] = (), allow: Iterable[str] = (), **fields: Any) -> Self:
        """Return the policy of a recording, whose patterns and paths may have the syntax of an earlier version."""
        policy = cls(**fields)
        for field, value in ((attrs.fields(cls).patterns, patterns), (attrs.fields(cls).allow, allow)):
            strings = _strings(value)
            policy._check_strings(field, strings)
            object.__setattr__(policy, field.name, strings)
        return policy

    @names.validator
    @patterns.validator
    @allow.validator
    @stable.validator
    @pointers.validator
    def _check_strings(self, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, tuple):
            hint = f"write [{value!r}]" if isinstance(value, str) else None
            raise _refuse(field.name, f"must be a list of strings, not {value!r}", hint)
        for item in value:
            if not isinstance(item, str) or not item:
                raise _refuse(field.name, f"must hold strings that are not empty, not {item!r}")

    @names.validator
    @stable.validator
    def _check_names(self, field: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
        for name in value:
            if not joined(name):
                raise _refuse(field.name, f"cannot hold {name!r}: a name has letters or digits")

    @allow.validator
    def _check_allow(self, _: Any, value: tuple[str, ...]) -> None:
        for item in value:
            path = {"$": _PATH, "/": _POINTER}.get(item[0])
            if path is None and not joined(item):
                raise _refuse("allow", f"cannot hold {item!r}: a name has letters or digits")
            if path is not None and not path.fullmatch(item):
                raise _refuse(
                    "allow",
                    f"cannot hold {item!r}, which is no path to one value",
                    'a path is like $.json.password, $.items[0].token or $.headers["x-token"], and a pointer like '
                    "/items/0/token; neither has wildcards, for which a name does",
                )

    @patterns.validator
    def _check_patterns(self, _: Any, value: tuple[str, ...]) -> None:
        for pattern in value:
            if compiled(pattern).search("") is not None:
                raise _refuse("patterns", f"cannot hold {pattern!r}: it matches the empty text")

    @pointers.validator
    def _check_pointers(self, _: Any, value: tuple[str, ...]) -> None:
        for pointer in value:
            if not _POINTER.fullmatch(pointer):
                raise _refuse("pointers", f"cannot hold {pointer!r}: a JSON pointer is like /user/pin")

    @stand_ins.validator
    def _check_stand_ins(self, _: Any, value: tuple[tuple[str, str], ...]) -> None:
        if not value:
            return
        from machine.secrets.credential_formats import format_of  # noqa: PLC0415 - needed by few

        for name, text in value:
            if not joined(name):
                raise _refuse("stand_ins", f"cannot hold {name!r}: a name has letters or digits")
            found = format_of(text)
            if found is not None and found != "jwt":  # one that can be decoded is what stand-ins are for
                raise _refuse(
                    "stand_ins",
                    f"cannot have what looks like a secret ({found}) for {name!r}: it is recorded",
                )


def compiled(pattern: str) -> Any:
    """Return a user's pattern, compiled by an engine that takes linear time (RE2).

    Raises `ConfigError` for an invalid pattern.
    """
    import re2  # type: ignore[import-untyped]  # noqa: PLC0415 - only policies with patterns need it

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as exc:
        why = exc.args[0].decode("utf-8", "replace") if isinstance(exc.args[0], bytes) else str(exc)
        raise _refuse("patterns", f"cannot hold {pattern!r}, which must be RE2 syntax: {why}") from None


def joined(name: str) -> str:
    """Return a name in lower case without `-` and `_`, which do not matter."""
    return "".join(char for char in name.lower() if char.isalnum())


def plain_path(path: str) -> str:
    """Return a path as `path_text` spells it: without brackets around names that need none."""
    if not _PATH.fullmatch(path):
        return path
    return _BRACKETS.sub(lambda found: path_text([json.loads(found[1])])[1:], path)


def path_text(steps: Sequence[str | int]) -> str:
    """Return the JSONPath-like name of a value: `$.headers["x-token"]`."""
    parts = ["$"]
    for step in steps:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            parts.append(f".{step}" if step.isidentifier() else f"[{json.dumps(step)}]")
    return "".join(parts)
