"""Placeholders of format 1: `{"$secret": name, "mac": hash}`, or within a longer text the same as canonical JSON.

A placeholder does not reveal the value: the hash is keyed, with a key that stays in the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from machine.secrets.secret_value import Secret

MARK: Final = "$secret"
"""The member that makes an object a placeholder."""

_NAME: Final = r"[A-Za-z0-9_.-]{1,128}"
_PLAIN: Final = (
    rf'\{{(?P<slashes>\\*)"\$secret(?P=slashes)":(?P=slashes)"(?P<name>{_NAME})(?P=slashes)",'
    r'(?P=slashes)"mac(?P=slashes)":(?P=slashes)"(?P<mac>[0-9a-f]{32})(?P=slashes)"\}'
)
_QUOTED: Final = (
    rf"%7[Bb]%22(?:%24|\$)secret%22(?:%3[Aa]|:)%22(?P<quoted_name>{_NAME})%22"
    r"(?:%2[Cc]|,)%22mac%22(?:%3[Aa]|:)%22(?P<quoted_mac>[0-9a-f]{32})%22%7[Dd]"
)

PLACEHOLDER: Final = re.compile(_PLAIN)
"""The text of a placeholder, plain or escaped as in JSON within JSON, at any depth."""

EITHER_PLACEHOLDER: Final = re.compile(f"{_PLAIN}|{_QUOTED}")
"""The text of a placeholder, plain, escaped, or percent-encoded in a query or a form."""

_MACS: Final = re.compile(
    rb'(secret\\*":\\*"[A-Za-z0-9_.-]{1,128}\\*",\\*"mac\\*":\\*"'
    rb"|secret%22(?:%3[Aa]|:)%22[A-Za-z0-9_.-]{1,128}%22(?:%2[Cc]|,)%22mac%22(?:%3[Aa]|:)%22)([0-9a-f]{32})"
)
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]")


def safe_name(name: str) -> str:
    """Return a name as it is written in a placeholder, with characters that a URL, a header and JSON all allow."""
    return _NOT_IN_A_NAME.sub("_", name)[:128] or "_"


def placeholder_text(name: str, mac: str) -> str:
    """Return the canonical JSON of a placeholder (RFC 8785: `$` sorts before `m`)."""
    return f'{{"$secret":"{name}","mac":"{mac}"}}'


def as_object(text: str) -> dict[str, str] | None:
    """Return the JSON object of a text that is exactly one placeholder, None for any other text."""
    found = PLACEHOLDER.fullmatch(text)
    if found is None or found["slashes"]:
        return None
    return {MARK: found["name"], "mac": found["mac"]}


def is_placeholder(value: Any) -> bool:
    """Say whether a JSON value is a placeholder object."""
    if not isinstance(value, dict) or len(value) != 2 or MARK not in value:  # noqa: PLR2004 - it has two members
        return False
    name, mac = value[MARK], value.get("mac")
    return (
        isinstance(name, str)
        and isinstance(mac, str)
        and PLACEHOLDER.fullmatch(placeholder_text(name, mac)) is not None
    )


def has_placeholder(data: bytes) -> bool:
    """Say whether encoded JSON may hold a placeholder."""
    return b"$secret" in data or b"%24secret" in data or b"eyIkc2VjcmV0" in data


def stripped(data: bytes) -> bytes:
    """Return encoded JSON with the hash of every placeholder left out."""
    return _MACS.sub(rb"\1", data)


def with_macs(data: bytes, hashes: Iterable[str]) -> bytes:
    """Return encoded JSON with the hashes of its placeholders replaced by these, in order."""
    rest = iter(hashes)
    return _MACS.sub(lambda found: found[1] + next(rest).encode(), data)


def macs(data: bytes) -> list[str]:
    """Return the hashes of the placeholders in encoded JSON, in order."""
    return [found[2].decode() for found in _MACS.finditer(data)]


class Placeholder(Secret):
    """A secret that `io.secret` read: a text that stands for the value and does not contain it.

    Put it where the value is to go: a header, a field, an argument, an f-string. The value takes its place when the
    call leaves the process. Its `str`, its `repr`, its pickle and everything formatted from it is the text of the
    placeholder.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return str.__str__(self)

    def __reduce__(self) -> tuple[object, ...]:
        return (Placeholder, (str(self),))

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name it was read under."""
        found = PLACEHOLDER.fullmatch(self)
        return found["name"] if found else ""
