"""Findings in running text: settings, headers, URLs, forms, logs and what programs print, in any mixture.

The work is linear in the text: matches of one pattern never overlap, and each takes a character once.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, unquote_plus

from machine.secrets.base64_json import MAY_PACK
from machine.secrets.credential_formats import Format, shapes, signs_of
from machine.secrets.credential_looks import is_constant, is_masked
from machine.secrets.finding import ISSUED, Finding, decides
from machine.secrets.header_names import PARAMETERS, WEAK_PARAMETERS
from machine.secrets.name_ends import SIGN_OF_NAMES
from machine.secrets.named_values import named_values
from machine.secrets.names import EXACT, PLURAL, SPELLINGS, WEAK, Strength, words_of
from machine.secrets.pattern_search import SHORT, any_of, searcher
from machine.secrets.redacted_text import MOST_CANDIDATES, MOST_NAMES, TooManyPlacesError, Work
from machine.secrets.rules import Rules
from machine.secrets.tabular_text import in_tables, may_have_table
from machine.secrets.unnamed_passwords import SIGNS_OF_LOGINS, logins

_SIGNS: Final = (
    SIGN_OF_NAMES + '|"kty',
    r"(?i:bearer[ \t])",
    r"(?s::\\?/\\?/.*@)",
    MAY_PACK,
    *SIGNS_OF_LOGINS,
)
"""Signs that are present in every text with a secret name, a bearer token, the user-info of a URL, packed JSON, and
each kind of login.
"""

_NAMES, _BEARERS, _USERS, _PACKED, _LOGINS = range(5)


class Look(NamedTuple):
    """The kinds of secrets that a text may hold, by a search for single words; a part of it holds no others."""

    formats: tuple[Format, ...] = ()
    bearer: bool = False
    user_info: bool = False
    parameters: bool = False
    names: bool = False
    patterns: bool = False
    logins: tuple[int, ...] = ()
    tables: bool = False
    packed: bool = False

    def nothing(self) -> bool:
        """Tell whether there is nothing to be found."""
        return not any(self)


def folded(text: str) -> str:
    """Return a text in lower case, of the same length."""
    # in pieces, as those of ASCII, which most are in any text, take a tenth of the time
    parts = (text[at : at + SHORT] for at in range(0, len(text), SHORT))
    return "".join(part.replace("\u0130", "i").lower() for part in parts)


@functools.lru_cache(maxsize=64)
def _looks_of(rules: Rules) -> Any:
    return searcher((*_SIGNS, *signs_of(rules.formats)))


_REPEATED: Final = 64
"""The length of the longest text that is likely to come again, as the names in a request do."""


def look_at(rules: Rules, text: str) -> Look:
    """Return the kinds of secrets that a text may hold."""
    return (_look_at_short if len(text) <= _REPEATED else _look_at)(rules, text)


def _look_at(rules: Rules, text: str) -> Look:
    there = sorted(_looks_of(rules).Match(text.encode("utf-8", "replace")) or ())
    may_name = _NAMES in there or bool(rules.names or rules.pointers)
    names = may_name and _AFTER_NAMES.search(text) is not None
    return Look(
        formats=tuple(rules.formats[at - len(_SIGNS)] for at in there if at >= len(_SIGNS)),
        bearer=_BEARERS in there,
        user_info=_USERS in there,
        parameters="=" in text,
        names=names,
        patterns=bool(rules.patterns),
        logins=tuple(at - _LOGINS for at in there if _LOGINS <= at < len(_SIGNS)),
        tables=names and may_have_table(text),
        packed=_PACKED in there,
    )


_AFTER_NAMES: Final = re.compile(r"[:=>, \t\n|]|\A--|into|INTO")
"""A part of each text with a value behind its name: a separator, or a sign of a table or of a multipart."""

_look_at_short: Final = functools.lru_cache(maxsize=4096)(_look_at)


def running(rules: Rules, text: str, look: Look, work: Work, *, request: bool) -> Iterator[Finding]:
    """Yield the secrets in a text that are recognised by their shape or by the names in it."""
    low = folded(text)
    if look.formats:
        for begin, end, name in shapes(look.formats, text, work):
            yield Finding(begin, end, name, text[begin:end])
    if look.patterns:
        yield from _matches(rules, text)
    if look.bearer:
        for match in work.each(_BEARER.finditer(low)):
            begin, end = match.span(1)
            value = text[begin:end]
            if request or not (is_masked(value) or is_constant(value)):
                yield Finding(begin, end, "bearer_token", value)
    if look.user_info or look.parameters:
        yield from urls(rules, text, low, work, request=request and "://" in text[:12])
    if look.logins:
        yield from logins(text, look.logins, work)
    if look.tables and may_have_table(text):
        for begin, end, name in in_tables(rules, text, low, work):
            yield Finding(begin, end, name, text[begin:end])
    if look.names and not _NO_SEPARATOR.fullmatch(text):
        yield from named_values(rules, text, low, work, request=request)


_NO_SEPARATOR: Final = re.compile(r"[^:=>, \t]*+")
_BEARER: Final = re.compile(
    r"bearer(?<![a-z0-9]bearer)[ \t]{1,4}+(?=[a-z._~+/=-]{0,300}+[0-9])([\w.~+/=-]{12,}+)"
)


def _matches(rules: Rules, text: str) -> Iterator[Finding]:
    """Yield what matches one of the user's patterns: its first group, where it has one."""
    for regex in rules.patterns:
        for match in regex.finditer(text):
            begin, end = match.span(1 if regex.groups and match.group(1) else 0)
            if begin < end:
                yield Finding(begin, end, "pattern", text[begin:end], sure=True)


# -- URLs ----------------------------------------------------------------------------------------------------

_USER_INFO: Final = re.compile(
    r":(?<=[A-Za-z0-9+.-]:)(?:\\?/){2}"
    r"(?P<user>[^\s/?#@:\"'<>\\]{0,256}+)(?::(?P<password>[^\s/?#@\"'<>\\]{0,2048}+))?@"
)
_NO_PASSWORD: Final = frozenset({"", "x-oauth-basic", "x-token-auth"})


def urls(rules: Rules, text: str, low: str, work: Work, *, request: bool) -> Iterator[Finding]:
    """Yield the credentials before the host of a URL, and the secret parameters of queries.

    The credential is the password, or the user where the password is empty or a constant.
    """
    if "@" in text and ("://" in text or ":\\/\\/" in text):
        for match in work.each(_USER_INFO.finditer(text)):
            user, password = match["user"], match["password"]
            if password is not None and password not in _NO_PASSWORD:
                if not request and is_masked(unquote(password)):
                    continue
                yield Finding(*match.span("password"), "url_password", unquote(password))
            elif user and password is not None:
                yield Finding(*match.span("user"), "url_user", unquote(user))
    if "=" in text:
        yield from fields(rules, IN_QUERY, rules.parameter, text, work, low=low, alone=request)


class _Written(NamedTuple):
    """A written form of pairs of a name and a value; `before` is the name and what precedes it, read backwards."""

    before: re.Pattern[str]
    stop: re.Pattern[str]
    """Matches the first character after a value."""
    longest: int


IN_QUERY: Final = _Written(re.compile(r"([\w.%\[\]~-]{1,100}+)[?&;#]"), re.compile(r"[&;#\s\"'<>\\]"), 8192)
IN_FORM: Final = _Written(re.compile(r"([\w.%+\[\]~*-]{1,200}+)(?:&|\Z)"), re.compile("&"), sys.maxsize)

_LAST_WORDS: Final = {words_of(name)[-1] for name in (*EXACT, *PLURAL, *WEAK, *PARAMETERS, *WEAK_PARAMETERS)}
_BACKWARDS: Final = any_of(sorted(word[::-1] for word in _LAST_WORDS))
_ENDS: Final = re.compile(
    r"=(?=[a-z0-9\[\]])(?:[\[\]]|[bd]5%){0,4}+[0-9]{0,4}+"
    rf"(?:(?:{_BACKWARDS})|(?:{'|'.join(word[::-1] for word in SPELLINGS)})[_-]?(?:{_BACKWARDS}))"
)
"""The ends of secret names, read backwards from the signs that a search has found.

Only the names that match are checked one by one.
"""
_LINKED: Final = frozenset(("token", "ticket", "jwt", "auth", "code"))
_ANY_END: Final = re.compile("=")
_LONGEST: Final = 201


def fields(
    rules: Rules,
    written: _Written,
    judge: Callable[[str], Strength],
    text: str,
    work: Work,
    *,
    low: str,
    alone: bool,
) -> Iterator[Finding]:
    """Yield the secret values of percent-encoded pairs."""
    ends = _ANY_END if rules.names else _ENDS
    judged: dict[str, tuple[Strength, str]] = {}
    last = close = len(text)  # what ends the value that begins last: from there the text is read only once
    for match in work.each(ends.finditer(low[::-1])):
        begin = len(text) - match.start()
        before = written.before.match(text[max(begin - 1 - _LONGEST, 0) : begin - 1][::-1])
        if before is None:
            continue
        stop = written.stop.search(text, begin, last)
        last, close = begin, stop.start() if stop else close
        end = min(close, begin + written.longest)
        if begin == end:
            continue
        work.spend(1)
        found = judged.get(before[1])
        if found is None:
            if len(judged) >= MOST_CANDIDATES:
                raise TooManyPlacesError
            name = unquote_plus(before[1][::-1])
            found = judged[before[1]] = judge(name), name
        strength, name = found
        if not alone and strength is Strength.WEAK and written is IN_QUERY and name.lower() in _LINKED:
            name = ISSUED  # of a link that lets whoever has it in
        if strength is not Strength.NONE:
            work.spend(2)
            value = work.read(text[begin:end])
            if value.count("%") > MOST_NAMES:  # each is decoded by itself
                raise TooManyPlacesError
            true = unquote_plus(value)
            if decides(strength, true, alone=alone, name=name):
                yield Finding(begin, end, name, true, strength is Strength.OWN)
