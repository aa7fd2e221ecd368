"""Findings in running text: settings, headers, URLs, forms, logs and what programs print, in any mixture.

The work is linear in the text: matches of one pattern never overlap, and each takes a character once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, unquote_plus

from machine.secrets.finding import Finding, decides
from machine.secrets.formats import Format, active, shapes
from machine.secrets.looks import is_masked
from machine.secrets.named_values import named_values
from machine.secrets.names import Strength
from machine.secrets.rules import Rules

__all__ = ["by_look", "running", "urls"]


def running(rules: Rules, text: str) -> Iterator[Finding]:
    """Yield what is secret in a text, by its look and by the names in it."""
    yield from by_look(rules, active(rules.formats, text), text)
    if "://" in text or "=" in text:
        yield from urls(rules, text, request=False)
    yield from named_values(rules, text)


# -- by look alone -------------------------------------------------------------------------------------------

_BEARER: Final = re.compile(
    r"(?i)(?<![a-z0-9])bearer[ \t]{1,4}+(?=[a-z._~+/=-]{0,300}+[0-9])([\w.~+/=-]{12,}+)"
)


def by_look(rules: Rules, formats: list[Format], text: str) -> Iterator[Finding]:
    """Yield what has the shape of a credential, or matches a pattern of the user's."""
    for begin, end, name in shapes(formats, text):
        yield Finding(begin, end, name, text[begin:end])
    for regex in rules.patterns:
        for match in regex.finditer(text):
            begin, end = match.span(1 if regex.groups and match.group(1) else 0)
            if begin < end:
                yield Finding(begin, end, "pattern", text[begin:end], sure=True)
    if "earer" in text or "EARER" in text:
        for match in _BEARER.finditer(text):
            yield Finding(*match.span(1), "bearer_token", match[1])


# -- URLs ----------------------------------------------------------------------------------------------------

_USER_INFO: Final = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,30}+:(?:\\?/){2}"
    r"(?P<user>[^\s/?#@:\"'<>\\]{0,256}+)(?::(?P<password>[^\s/?#@\"'<>\\]{0,2048}+))?@"
)
_PARAMETER: Final = re.compile(r"[?&;#](?:amp;)?([\w.%\[\]~-]{1,100}+)=([^&;#\s\"'<>\\]{1,8192}+)")
_NO_PASSWORD: Final = frozenset({"", "x-oauth-basic", "x-token-auth"})


def urls(rules: Rules, text: str, *, request: bool) -> Iterator[Finding]:
    """Yield the passwords in the user-info of URLs, and the secret parameters of queries."""
    if "@" in text and ("://" in text or ":\\/\\/" in text):
        for match in _USER_INFO.finditer(text):
            user, password = match["user"], match["password"]
            if password is not None and password not in _NO_PASSWORD:
                if not request and is_masked(unquote(password)):
                    continue
                yield Finding(*match.span("password"), "url_password", unquote(password))
            elif user and password is not None:
                yield Finding(*match.span("user"), "url_user", unquote(user))
    if "=" in text:
        for match in _PARAMETER.finditer(text):
            name = unquote_plus(match[1])
            strength = rules.parameter(name)
            if strength is not Strength.NONE:
                value = unquote_plus(match[2])
                if decides(strength, value, alone=request):
                    yield Finding(*match.span(2), name, value, strength is Strength.OWN)
