"""The part of a header field that is a secret: what follows a scheme, the values of cookies, or the whole value.

`secrets/names.py` (`header_strength`) says by its name whether a field holds a secret.
`secrets/redact.py` puts a placeholder where the secret was, before anything is stored.
A redirect to another origin does not get such fields: `io/redirect_secrets.py` says which they are, and
`_leave_secrets` in `io/http.py` and in `io/httpx_transport.py` removes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from machine.secrets.credential_looks import is_masked, looks_like_credential
from machine.secrets.finding import Finding, cookies
from machine.secrets.header_names import HEADERS
from machine.secrets.names import Strength
from machine.secrets.rules import Rules
from machine.secrets.value_places import Place

_SCHEME: Final = re.compile(r"\s*[A-Za-z][A-Za-z0-9-]{1,30} +(?=\S)")
_SCHEME_IN_TEXT: Final = re.compile(r"\s*(?:([A-Za-z][A-Za-z0-9-]{1,30}) +(?=\S))?")
"""The scheme of a field of authorization, `Bearer` in `Bearer x`; empty where there is none."""

_ALGORITHM: Final = re.compile(r"AWS4-[A-Z0-9-]{1,30}")
"""The rest of a field of authorization whose signature is ignored: the algorithm alone."""

_LEAST_CREDENTIAL: Final = 8
_OPENS: Final = frozenset("([{")
_ONE_TOKEN: Final = frozenset(
    ("basic", "bearer", "token", "bot", "apikey", "key", "negotiate", "geniekey", "ssws")
)
"""Schemes that one word follows: the rest of the line is other text."""

_TOKEN: Final = re.compile(r"(?=[^0-9]*[0-9])[\w.~+/=:-]+|[\w-]+=.*[0-9].*", re.DOTALL)
"""A word with a digit, or parameters with one: after a scheme both are credentials, however they look."""


def in_header(rules: Rules, place: Place, text: str, *, request: bool) -> list[Finding]:
    """Return the credentials in the value of a header field that its name says to hold some.

    In an answer, only those that look like a credential.
    """
    sure = place.strength is Strength.OWN
    found = list(credentials_in(place.name, text, sure=sure))
    listed = place.name in HEADERS
    return [
        one
        for one in found
        if request or sure or (_is_listed(rules, one) if listed else looks_like_credential(one.value))
    ]


def credentials_in(name: str, text: str, *, sure: bool) -> Iterator[Finding]:
    """Yield the credentials of a header field: what follows a scheme, the values of cookies, or all of it."""
    if name in {"cookie", "set-cookie"} and "=" in text:
        for begin, end, key in cookies(text, first=name == "set-cookie"):
            yield Finding(begin, end, f"cookie.{key}", text[begin:end], sure)
        return
    scheme = _SCHEME.match(text) if "auth" in name else None
    begin = scheme.end() if scheme else 0
    if text[begin:].strip() and not _ALGORITHM.fullmatch(text):
        yield Finding(begin, len(text), name, text[begin:], sure)


def _is_listed(rules: Rules, found: Finding) -> bool:
    """Tell whether a value of a listed header is a credential in an answer: of a cookie `lang=de-DE` is none."""
    if looks_like_credential(found.value):
        return True
    kind, _, name = found.place.partition(".")
    settings = kind == "cookie" and rules.field(name) is Strength.NONE
    return not settings and not is_masked(found.value)


def as_header(name: str, text: str) -> list[Finding]:
    """Return the values of a field with the name of a header field that look like credentials."""
    if not name.endswith(("authorization", "auth", "cookie", "cookies")) or not (" " in text or "=" in text):
        return []
    found = credentials_in(name.replace("cookies", "cookie"), text, sure=False)
    return [one for one in found if one.begin and looks_like_credential(one.value)]


def in_running_text(name: str, value: str, *, sure: bool) -> Iterator[Finding]:
    """Yield what looks like a credential in a header field within a text: `Authorization: Bearer x`."""
    if name in {"cookie", "set-cookie"}:
        for start, stop, key in cookies(value, first=name == "set-cookie"):
            if sure or looks_like_credential(value[start:stop]):
                yield Finding(start, stop, f"cookie.{key}", value[start:stop], sure)
        return
    scheme = _SCHEME_IN_TEXT.match(value) if "auth" in name else None
    start = scheme.end() if scheme else 0
    credential = value[start:].rstrip()
    if _OPENS.isdisjoint(credential):
        credential = credential.rstrip(",;)}]")  # of code around it
    if scheme is not None and (scheme[1] or "").lower() in _ONE_TOKEN:
        credential = credential.split(None, 1)[0].rstrip(",;") if credential else ""
    follows = scheme is not None and scheme[1] is not None and len(credential) >= _LEAST_CREDENTIAL
    if sure or looks_like_credential(credential) or (follows and _TOKEN.fullmatch(credential)):
        yield Finding(start, start + len(credential), name, credential, sure)
