"""The credentials in a header field that stands in running text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from machine.secrets.finding import Finding, cookies
from machine.secrets.looks import looks_like_credential
from machine.secrets.quoted import decoded

__all__ = ["LEAST_CREDENTIAL", "of_header"]

LEAST_CREDENTIAL: Final = 8
"""No shorter text is a credential only because of the sign or the scheme before it."""

_SCHEME: Final = re.compile(r"\s*(?:([A-Za-z][A-Za-z0-9-]{1,30}) +(?=\S))?")
_ONE_TOKEN: Final = frozenset(
    ("basic", "bearer", "token", "bot", "apikey", "key", "negotiate", "geniekey", "ssws")
)
_TOKEN: Final = re.compile(r"(?=[^0-9]*[0-9])[\w.~+/=:-]+|[\w-]+=.*[0-9].*", re.DOTALL)


def of_header(name: str, text: str, begin: int, end: int, levels: int, *, sure: bool) -> Iterator[Finding]:
    """Yield the credentials of a header field in running text, as far as they look like some."""
    value = text[begin:end]
    if name in {"cookie", "set-cookie"}:
        for start, stop, key in cookies(value, first=name == "set-cookie"):
            if sure or looks_like_credential(value[start:stop]):
                yield Finding(begin + start, begin + stop, f"cookie.{key}", value[start:stop], sure)
        return
    scheme = _SCHEME.match(value) if "auth" in name else None
    start = scheme.end() if scheme else 0
    credential = value[start:].rstrip()
    if scheme is not None and (scheme[1] or "").lower() in _ONE_TOKEN:
        credential = credential.split(None, 1)[0].rstrip(",;") if credential else ""
    told = scheme is not None and scheme[1] is not None and len(credential) >= LEAST_CREDENTIAL
    if sure or looks_like_credential(credential) or (told and _is_token(credential)):
        yield Finding(begin + start, begin + start + len(credential), name, decoded(credential, levels), sure)


def _is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None
