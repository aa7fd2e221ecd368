"""The strings in a text of JSON, each with its place, and the offsets of findings in them within the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from machine.secrets.finding import ISSUED, Finding
from machine.secrets.names import Strength
from machine.secrets.rules import Rules
from machine.secrets.value_places import NAMING, ROOT, Place, is_of_issued, said_by

MOST_JSON: Final = 1 << 18
"""The longest text that is parsed as JSON; a longer one is searched as running text."""

_TOKEN: Final = re.compile(r'"((?:[^"\\]++|\\.)*+)"|[{}\[\]]|-?[0-9][^\s,\]}]*+|true|false|null', re.DOTALL)
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)"
)


class String(NamedTuple):
    """A string in a text of JSON: its offset and spelling without the quotes, and the text it encodes."""

    place: Place
    begin: int
    raw: str
    text: str


class _Frame:
    """A container whose end was not read yet."""

    __slots__ = ("before", "early", "index", "issued", "key", "members", "place", "said")

    def __init__(self, place: Place, *, members: bool, later: _Later | None = None) -> None:
        self.place = place
        self.members = members
        self.key: str | None = None
        self.index = 0
        self.before: str | None = None
        self.said = later.said if later else None
        self.issued = later is not None and later.issued
        self.early = False
        """True when a member came before the one that names its value."""

    def next_place(self, rules: Rules) -> Place:
        """Return the place of the value that comes next."""
        if self.members:
            said = ISSUED if self.issued and self.key == "token" else self.said
            return self.place.member(rules, self.key or "", said)
        return self.place.item(rules, self.index, self.before)

    def step(self, value: str | None) -> None:
        """Move on to the place after a value."""
        if self.members:
            if self.key in NAMING and value is not None and not (self.said and self.key == "type"):
                self.said = said_by(self.key, value) or self.said
            self.key = None
        else:
            self.index += 1
            self.before = value


def strings_of(rules: Rules, text: str, *, request: bool) -> Iterator[String] | None:
    """Return the strings of a text of JSON, keys included, and the numbers under secret names.

    Returns None for a text that is not JSON.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _strings(rules, text, _said_later(text), request=request)


_LATER: Final = re.compile(
    r'"(?:[vV]alue|values|default_?value|payload|data|stringData|token|[dkpq]|d[pq]|qi)"'
)
"""Members whose name may come from a later member of their object."""


class _Later(NamedTuple):
    """The name that later members of an object give its value, and whether they show an issued token."""

    said: str | None
    issued: bool


def _said_later(text: str) -> dict[int, _Later]:
    """Return what later members of objects say of earlier ones, by the offsets of the objects."""
    later: dict[int, _Later] = {}
    if _LATER.search(text) is None:
        return later
    stack: list[tuple[int, _Frame, set[str]]] = []
    for token in _TOKEN.finditer(text):
        piece, raw = token[0], token[1]
        _, frame, keys = stack[-1] if stack else (0, None, set())
        if frame is not None and frame.members and frame.key is None and raw is not None:
            frame.key = raw
            keys.add(raw)
            frame.early |= (not frame.said or raw == "token") and _LATER.fullmatch(piece) is not None
        elif piece in "{[":
            stack.append((token.start(), _Frame(ROOT, members=piece == "{"), set()))
        elif piece in "}]":
            begin, ended, keys = stack.pop()
            if ended.early:
                later[begin] = _Later(ended.said, is_of_issued(keys))
            if stack:
                stack[-1][1].step(None)
        elif frame is not None:
            frame.step(raw)
    return later


def _strings(rules: Rules, text: str, later: dict[int, _Later], *, request: bool) -> Iterator[String]:
    stack: list[_Frame] = []
    for token in _TOKEN.finditer(text):
        piece, raw = token[0], token[1]
        frame = stack[-1] if stack else None
        if piece in "{[":
            place = frame.next_place(rules) if frame else ROOT
            stack.append(_Frame(place, members=piece == "{", later=later.get(token.start())))
        elif piece in "}]":
            stack.pop()
            if stack:
                stack[-1].step(None)
        elif raw is None:
            if frame is not None:
                place = frame.next_place(rules)
                if _is_secret_number(rules, place, piece, request=request):
                    yield String(place, token.start(), piece, piece)
                frame.step(None)
        else:
            decoded = json.loads(piece, strict=False) if "\\" in raw else raw
            if frame is None:
                yield String(ROOT, token.start(1), raw, decoded)
            elif frame.members and frame.key is None:
                frame.key = decoded
                yield String(ROOT, token.start(1), raw, decoded)
            else:
                yield String(frame.next_place(rules), token.start(1), raw, decoded)
                frame.step(decoded)


def _is_secret_number(rules: Rules, place: Place, piece: str, *, request: bool) -> bool:
    exact = place.strength is Strength.OWN or (request and place.strength is Strength.EXACT)
    return exact and not place.is_allowed(rules) and piece not in {"true", "false", "null"}


def located(string: String, found: list[Finding]) -> Iterator[Finding]:
    """Yield the findings in a string with their offsets in the text around it."""
    if not found:
        return
    where = _offsets(string.raw) if "\\" in string.raw else None
    for one in found:
        begin, end = (where[one.begin], where[one.end]) if where else (one.begin, one.end)
        yield one._replace(begin=begin + string.begin, end=end + string.begin)


def _offsets(raw: str) -> list[int]:
    """Return the offset of each character of a string in its escaped spelling, and the end of that spelling."""
    where: list[int] = []
    at = 0
    for escape in _ESCAPE.finditer(raw):
        where += range(at, escape.start() + 1)
        at = escape.end()
    where += range(at, len(raw) + 1)
    return where
