"""A secret that was found in a text, and whether a name makes a value one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from machine.secrets.credential_looks import looks_chosen, looks_issued, looks_like_credential, looks_strong
from machine.secrets.names import Strength, is_of_password
from machine.secrets.redacted_text import MOST_CANDIDATES, at_most


class Finding(NamedTuple):
    """A secret in a text: its offsets, the name of its place, and its value as a program would use it."""

    begin: int
    end: int
    place: str
    value: str
    sure: bool = False
    hides: bool = False
    """True where it hides more than a secret."""


def decides(strength: Strength, value: str, *, alone: bool, name: str = "") -> bool:
    """Tell whether a name of this strength makes its value a secret; an exact one does so `alone` in requests."""
    match strength:
        case Strength.OWN:
            return True
        case Strength.EXACT:
            return alone or _looks_under(name, value)
        case Strength.SEVERAL | Strength.LIKELY:
            return _looks_under(name, value)
        case Strength.WEAK:
            return looks_strong(value) or _is_issued(name, value, sent=alone)
        case _:
            return False


def _looks_under(name: str, value: str) -> bool:
    if name.lower().endswith(_OF_SIGNERS) and _KEY_ID.fullmatch(value):
        return False
    return looks_like_credential(value) or (is_of_password(name) and looks_chosen(value))


_OF_SIGNERS: Final = ("signingkey", "signing_key")
_KEY_ID: Final = re.compile(r"(?:0x)?(?:[0-9A-F]{8}|[0-9A-F]{16}|[0-9A-F]{40})")
"""An identifier of a PGP key, which the settings of git have in place of the key."""


ISSUED: Final = "issued_token"
"""The name of a token in an object that also has its user, its type or its expiry."""

_SENT: Final = frozenset(("token", "auth", "sid", "jwt", "ticket", "key", "appid", "code", "sign"))
"""Names under which hexadecimal or a UUID is a credential in what is sent."""


def _is_issued(name: str, value: str, *, sent: bool) -> bool:
    if sent and name.lower() == "token" and len(value) >= _LEAST_SENT and not _ADDRESS.fullmatch(value):
        return looks_like_credential(value)
    return (name == ISSUED or (sent and name.lower() in _SENT)) and looks_issued(value)


_LEAST_SENT: Final = 12
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}|[A-Za-z0-9]{1,12}(?:[-_:/][A-Za-z0-9]{1,12}){0,4}")
"""The address of a contract, or the name of a pair of tokens."""

_COOKIE: Final = re.compile(r"(?:^|;)\s*+([^\s=;]{1,256}+)=([^;\r\n]*+)")


def cookies(text: str, *, first: bool) -> Iterator[tuple[int, int, str]]:
    """Yield the offsets and the names of the values of cookies; of `set-cookie` only the `first` value."""
    for match in at_most(MOST_CANDIDATES, _COOKIE.finditer(text)):
        begin, end = match.span(2)
        end = begin + len(match[2].rstrip())
        if begin < end:
            yield begin, end, match[1]
        if first:
            return
