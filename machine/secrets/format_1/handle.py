"""What stands in a secret's place: `{"$secret": name, "mac": hash}`, or in a longer text its canonical JSON.

A handle holds no value and can lead nobody to it: the hash is keyed, with a key that stays with the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from machine.secrets.secret import Secret

__all__ = [
    "EITHER_HANDLE",
    "HANDLE",
    "MARK",
    "Handle",
    "as_object",
    "handle_text",
    "has_handle",
    "is_handle",
    "macs",
    "safe_name",
    "stripped",
    "with_macs",
]

MARK: Final = "$secret"
"""The member that makes an object a handle."""

_NAME: Final = r"[A-Za-z0-9_.-]{1,128}"
_PLAIN: Final = (
    rf'\{{(?P<slashes>\\*)"\$secret(?P=slashes)":(?P=slashes)"(?P<name>{_NAME})(?P=slashes)",'
    r'(?P=slashes)"mac(?P=slashes)":(?P=slashes)"(?P<mac>[0-9a-f]{32})(?P=slashes)"\}'
)
_QUOTED: Final = (
    rf"%7[Bb]%22(?:%24|\$)secret%22(?:%3[Aa]|:)%22(?P<quoted_name>{_NAME})%22"
    r"(?:%2[Cc]|,)%22mac%22(?:%3[Aa]|:)%22(?P<quoted_mac>[0-9a-f]{32})%22%7[Dd]"
)

HANDLE: Final = re.compile(_PLAIN)
"""The text of a handle, as it is or as often escaped as it stands in JSON within JSON."""

EITHER_HANDLE: Final = re.compile(f"{_PLAIN}|{_QUOTED}")
"""The text of a handle, or what it becomes in a query or in a form."""

_MACS: Final = re.compile(
    rb'(secret\\*":\\*"[A-Za-z0-9_.-]{1,128}\\*",\\*"mac\\*":\\*"'
    rb"|secret%22(?:%3[Aa]|:)%22[A-Za-z0-9_.-]{1,128}%22(?:%2[Cc]|,)%22mac%22(?:%3[Aa]|:)%22)([0-9a-f]{32})"
)
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]")


def safe_name(name: str) -> str:
    """Return a name as a handle carries it: it must stand in a URL, a header and JSON alike."""
    return _NOT_IN_A_NAME.sub("_", name)[:128] or "_"


def handle_text(name: str, mac: str) -> str:
    """Return the canonical JSON of a handle (RFC 8785: `$` sorts before `m`)."""
    return f'{{"$secret":"{name}","mac":"{mac}"}}'


def as_object(text: str) -> dict[str, str] | None:
    """Return the object of a text that is a handle and nothing else, None for any other text."""
    found = HANDLE.fullmatch(text)
    if found is None or found["slashes"]:
        return None
    return {MARK: found["name"], "mac": found["mac"]}


def is_handle(value: Any) -> bool:
    """Say whether a JSON value is the object of a handle."""
    if not isinstance(value, dict) or len(value) != 2 or MARK not in value:  # noqa: PLR2004 - it has two members
        return False
    name, mac = value[MARK], value.get("mac")
    return (
        isinstance(name, str)
        and isinstance(mac, str)
        and HANDLE.fullmatch(handle_text(name, mac)) is not None
    )


def has_handle(data: bytes) -> bool:
    """Say whether encoded JSON may hold a handle."""
    return b"$secret" in data or b"%24secret" in data or b"eyIkc2VjcmV0" in data


def stripped(data: bytes) -> bytes:
    """Return encoded JSON with the hash of every handle left out."""
    return _MACS.sub(rb"\1", data)


def with_macs(data: bytes, hashes: Iterable[str]) -> bytes:
    """Return encoded JSON with other hashes in its handles, in order."""
    rest = iter(hashes)
    return _MACS.sub(lambda found: found[1] + next(rest).encode(), data)


def macs(data: bytes) -> list[str]:
    """Return the hashes of the handles in encoded JSON, in order."""
    return [found[2].decode() for found in _MACS.finditer(data)]


class Handle(Secret):
    """A secret that `io.secret` read: text that stands for a value and does not hold it.

    Put it where the value is to go: a header, a field, an argument, an f-string. The value takes its place when the
    call leaves the process. Its `str`, its `repr`, its pickle and everything formatted from it is the text of the
    handle.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return str.__str__(self)

    def __reduce__(self) -> tuple[object, ...]:
        return (Handle, (str(self),))

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name it was read under."""
        found = HANDLE.fullmatch(self)
        return found["name"] if found else ""
