"""Findings in one text: secrets that are not known yet, with their offsets and the name of their place."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from machine.secrets.base64_json import packed_json
from machine.secrets.credential_looks import looks_like_credential
from machine.secrets.finding import Finding, decides
from machine.secrets.headers import as_header, credentials_in, in_header
from machine.secrets.json_text import MOST_JSON, located, strings_of
from machine.secrets.multipart import may_have_parts, parts
from machine.secrets.names import Strength
from machine.secrets.redacted_text import MOST_FINDINGS, TooManyPlacesError, Work
from machine.secrets.rules import Rules
from machine.secrets.running_text import IN_FORM, Look, fields, folded, look_at, running
from machine.secrets.value_places import ROOT, Place

_DEEPEST: Final = 12
"""The depth to which JSON texts within JSON texts are read; each level doubles the backslashes."""

_FORM: Final = re.compile(r"[\w.%+\[\]~*-]{1,200}+=[^&\s]*+(?:&[\w.%+\[\]~*-]{1,200}+=[^&\s]*+)*+")
_OPTION: Final = re.compile(r"(--?[A-Za-z][\w.-]{1,99}+)=(.+)", re.DOTALL)
_FIELD: Final = re.compile(r"([A-Za-z]\w{0,60}(?:-\w{1,60}){0,8}):[ \t]{1,8}([^\r\n]+)")
"""A header field among the arguments of a program."""

_DECIDING: Final = frozenset((Strength.EXACT, Strength.OWN))
_LOGIN: Final = re.compile(r"[^:]+:(?![0-9]+\Z)(.+)", re.DOTALL)


def findings(
    rules: Rules,
    place: Place,
    text: str,
    work: Work,
    *,
    request: bool,
    depth: int = 0,
    look: Look | None = None,
) -> list[Finding]:
    """Return the secrets in the text at a place of a document, in order and without overlaps.

    `work` is that of the document, and `look` the result of `look_at` for the text around it. Raises
    `TooManyPlacesError` for a text that is to be sealed whole.
    """
    if not text or text in rules.stand_ins or place.is_allowed(rules):
        return []
    sure = place.strength is Strength.OWN
    if place.header and place.strength in {Strength.EXACT, Strength.OWN}:
        return in_header(rules, place, text, request=request)
    if decides(place.strength, text[place.begin :], alone=request, name=place.name):
        return [Finding(place.begin, len(text), place.name, text[place.begin :], sure)]
    if place.strength is Strength.WEAK and (found := as_header(place.name.lower(), text)):
        return found
    if look is None:
        look = look_at(rules, text)
    if place.argv or not look.nothing():
        return _apart(_in_text(rules, place, text, look, work, request=request, depth=depth), rules.stand_ins)
    return []


@functools.lru_cache(maxsize=4096)
def says_nothing(rules: Rules, text: str) -> bool:
    """Say whether `findings` has none in a short text that no place gives a meaning to, such as a key."""
    return text in rules.stand_ins or not text or look_at(rules, text).nothing()


def _in_text(
    rules: Rules, place: Place, text: str, look: Look, work: Work, *, request: bool, depth: int
) -> Iterator[Finding]:
    if text[0] in '{["' and depth < _DEEPEST and len(text) <= MOST_JSON:
        strings = strings_of(rules, text, request=request)
        if strings is not None:
            for string in strings:
                # what a string means may hold what its spelling with escapes does not
                same = look if "\\" not in string.raw else None
                inner = findings(
                    rules, string.place, string.text, work, request=request, depth=depth + 1, look=same
                )
                yield from located(string, inner)
            return
    if place.login and (login := _LOGIN.fullmatch(text)):
        yield Finding(*login.span(1), "password", login[1])
    if place.argv and (option := _OPTION.fullmatch(text)):
        strength = rules.field(option[1])
        if decides(strength, option[2], alone=request, name=option[1]):
            yield Finding(*option.span(2), option[1], option[2], strength is Strength.OWN)
    if place.argv and (line := _FIELD.fullmatch(text)) and rules.header(line[1]) in _DECIDING:
        for one in credentials_in(line[1].lower(), line[2], sure=False):
            if request or looks_like_credential(one.value):
                yield one._replace(begin=one.begin + line.start(2), end=one.end + line.start(2))
    if look.parameters and look.names and _FORM.fullmatch(text):
        yield from fields(rules, IN_FORM, rules.field, text, work, low=folded(text), alone=request)
    if look.names and depth < _DEEPEST and may_have_parts(text):
        yield from _multipart(rules, text, work, request=request, depth=depth)
    if look.packed and depth < _DEEPEST:
        for begin, end, packed in packed_json(text, work):
            within = findings(rules, ROOT, packed, work, request=request, depth=depth + 1)
            if within:
                yield Finding(begin, end, within[0].place, text[begin:end], hides=True)
    yield from running(rules, text, look, work, request=request)


def _multipart(rules: Rules, text: str, work: Work, *, request: bool, depth: int) -> Iterator[Finding]:
    for part in work.candidates(parts(text)):
        place, value = ROOT.field(rules, part.names), text[part.begin : part.end]
        if value and (decides(place.strength, value, alone=request, name=place.name) or value[0] in "{["):
            for one in findings(rules, place, value, work, request=request, depth=depth + 1):
                yield one._replace(begin=one.begin + part.begin, end=one.end + part.begin)


def _apart(found: Iterator[Finding], stand_ins: frozenset[str]) -> list[Finding]:
    """Return findings in order, without those inside another one and those of stand-ins."""
    several = list(islice(found, MOST_FINDINGS + 1))
    if len(several) > MOST_FINDINGS:
        raise TooManyPlacesError
    result: list[Finding] = []
    for one in sorted(several, key=lambda one: (one.begin, -one.end)):
        if one.value not in stand_ins and not (result and one.end <= result[-1].end):
            result.append(one)
    return result
