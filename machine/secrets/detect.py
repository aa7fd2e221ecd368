"""Findings in one text: where a secret stands that nobody named before, and the name of its place.

The work is linear in the text, whatever it holds: every pattern begins where no other match of it can, and takes
each character once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote, unquote_plus

from machine.secrets.looks import looks_like_credential, looks_strong
from machine.secrets.names import Strength
from machine.secrets.places import ROOT, Place
from machine.secrets.rules import Rules

__all__ = ["Finding", "findings"]

_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]{1,30}) +(?=\S)")
_BEARER: Final = re.compile(
    r"(?i)(?<![a-z0-9])bearer[ \t]{1,4}(?=[a-z._~+/=-]{0,300}+[0-9])([\w.~+/=-]{12,}+)"
)
_USER_INFO: Final = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,30}+://([^\s/?#@:\"'<>\\]{0,256}+)(?::([^\s/?#@\"'<>\\]{0,2048}+))?@"
)
_PARAMETER: Final = re.compile(r"[?&;]([\w.%\[\]~-]{1,100}+)=([^&;#\s\"'<>\\]{1,8192}+)")
_NO_PASSWORD: Final = frozenset({"", "x-oauth-basic"})


class Finding(NamedTuple):
    """A secret in a text: where it stands, what its place is called, and its value as a program would use it."""

    begin: int
    end: int
    place: str
    value: str
    sure: bool = False


def findings(rules: Rules, place: Place, text: str, *, request: bool) -> list[Finding]:
    """Return what is secret in the text at a place of a document."""
    if not text or text in rules.stand_ins:
        return []
    if place.header and place.strength is not Strength.NONE:
        return list(_header(place.name, text, sure=place.strength is Strength.OWN))
    if _decides(place, text, request=request):
        return [Finding(0, len(text), place.name, text, place.strength is Strength.OWN)]
    return in_text(rules, text, request=request)


def _decides(place: Place, text: str, *, request: bool) -> bool:
    """Tell whether the name of a place makes all of its text a secret."""
    match place.strength:
        case Strength.OWN:
            return True
        case Strength.EXACT:
            return request or looks_like_credential(text)
        case Strength.SEVERAL:
            return looks_like_credential(text)
        case Strength.WEAK:
            return looks_strong(text)
        case _:
            return False


def _header(name: str, text: str, *, sure: bool = False) -> Iterator[Finding]:
    """Yield the credentials of a header field: what follows a scheme, the values of cookies, or all of it."""
    if name in {"cookie", "set-cookie"} and "=" in text:
        at = 0
        for pair in text.split(";")[: 1 if name == "set-cookie" else None]:
            key, _, value = pair.partition("=")
            begin = at + len(key) + 1
            if value:
                yield Finding(begin, begin + len(value), f"cookie.{key.strip()}", value, sure)
            at += len(pair) + 1
        return
    scheme = _SCHEME.match(text) if "auth" in name else None
    begin = scheme.end() if scheme else 0
    if text[begin:].strip():
        yield Finding(begin, len(text), name, text[begin:], sure)


def in_text(rules: Rules, text: str, *, request: bool) -> list[Finding]:
    """Return what is secret in a text that no name says anything about."""
    from machine.secrets.json_text import json_findings

    if text[:1] in {"{", "["} and (found := json_findings(rules, text, request=request)) is not None:
        return found
    return list(_running(rules, text, request=request))


def _running(rules: Rules, text: str, *, request: bool) -> Iterator[Finding]:
    for name, regex, needles in rules.formats:
        if any(needle in text for needle in needles):
            for match in regex.finditer(text):
                group = 1 if regex.groups else 0
                yield Finding(*match.span(group), name, match[group])
    for regex in rules.patterns:
        for match in regex.finditer(text):
            group = 1 if regex.groups and match.group(1) else 0
            begin, end = match.span(group)
            yield Finding(begin, end, "pattern", match.group(group), sure=True)
    if "earer" in text:
        for match in _BEARER.finditer(text):
            yield Finding(*match.span(1), "bearer_token", match[1])
    if "://" in text:
        if "@" in text:
            for match in _USER_INFO.finditer(text):
                user, password = match[1], match[2]
                if password not in {None, *_NO_PASSWORD}:
                    yield Finding(*match.span(2), "url_password", unquote(password))
                elif user and password is not None:
                    yield Finding(*match.span(1), "url_user", unquote(user))
        if "=" in text:
            for match in _PARAMETER.finditer(text):
                name, value = unquote_plus(match[1]), unquote_plus(match[2])
                place = Place(ROOT, name, name.lower(), rules.parameter(name))
                if _decides(place, value, request=request):
                    yield Finding(*match.span(2), name.lower(), value, place.strength is Strength.OWN)
