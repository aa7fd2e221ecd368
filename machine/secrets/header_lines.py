"""Credentials in header fields that are written in running text: `Authorization: Bearer x`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from machine.secrets.finding import Finding, cookies
from machine.secrets.looks import looks_like_credential

__all__ = ["credentials_in"]

_SCHEME: Final = re.compile(r"\s*(?:([A-Za-z][A-Za-z0-9-]{1,30}) +(?=\S))?")
"""The scheme of a field of authorization, `Bearer` in `Bearer x`; empty where there is none."""

_LEAST_CREDENTIAL: Final = 8
_OPENS: Final = frozenset("([{")
_ONE_TOKEN: Final = frozenset(
    ("basic", "bearer", "token", "bot", "apikey", "key", "negotiate", "geniekey", "ssws")
)
"""Schemes that one word follows: what is behind it on the line is other text."""

_TOKEN: Final = re.compile(r"(?=[^0-9]*[0-9])[\w.~+/=:-]+|[\w-]+=.*[0-9].*", re.DOTALL)
"""A word with a digit, or parameters with one: behind a scheme both are credentials, however they look."""


def credentials_in(name: str, value: str, *, sure: bool) -> Iterator[Finding]:
    """Yield the credentials in the value of a header field, as far as they look like some."""
    if name in {"cookie", "set-cookie"}:
        for start, stop, key in cookies(value, first=name == "set-cookie"):
            if sure or looks_like_credential(value[start:stop]):
                yield Finding(start, stop, f"cookie.{key}", value[start:stop], sure)
        return
    scheme = _SCHEME.match(value) if "auth" in name else None
    start = scheme.end() if scheme else 0
    credential = value[start:].rstrip()
    if _OPENS.isdisjoint(credential):
        credential = credential.rstrip(",;)}]")  # of code around it
    if scheme is not None and (scheme[1] or "").lower() in _ONE_TOKEN:
        credential = credential.split(None, 1)[0].rstrip(",;") if credential else ""
    follows = scheme is not None and scheme[1] is not None and len(credential) >= _LEAST_CREDENTIAL
    if sure or looks_like_credential(credential) or (follows and _TOKEN.fullmatch(credential)):
        yield Finding(start, start + len(credential), name, credential, sure)
