"""Findings in a text of JSON: its strings are looked at as those of a document, and stay strings."""

from __future__ import annotations

import json
import re
from typing import Final

from machine.secrets.detect import Finding, findings
from machine.secrets.names import Strength
from machine.secrets.places import ROOT, Place
from machine.secrets.rules import Rules

__all__ = ["json_findings"]

_TOKEN: Final = re.compile(r'"((?:[^"\\]++|\\.)*+)"|[{}\[\],:]|[^\s"{}\[\],:]++', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|.)", re.DOTALL)
_NAMES: Final = frozenset(("name", "key", "Name", "Key", "header", "field", "variable"))


class _Frame:
    """A container that is open."""

    __slots__ = ("before", "index", "key", "members", "place", "said")

    def __init__(self, place: Place, *, members: bool) -> None:
        self.place = place
        self.members = members
        self.key: str | None = None
        self.index = 0
        self.before: str | None = None
        self.said: str | None = None


def json_findings(rules: Rules, text: str, *, request: bool) -> list[Finding] | None:
    """Return the findings of a text of JSON, None for another text."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    found: list[Finding] = []
    stack = [_Frame(ROOT, members=False)]
    for token in _TOKEN.finditer(text):
        piece = token[0]
        frame = stack[-1]
        if piece in "{[":
            stack.append(_Frame(_place(rules, frame), members=piece == "{"))
        elif piece in "}]":
            stack.pop()
            _next(stack[-1], None)
        elif piece in {",", ":"}:
            pass
        elif token[1] is None:
            place = _place(rules, frame)
            number = piece[0] in "-0123456789"
            if number and (place.strength is Strength.OWN or (request and place.strength is Strength.EXACT)):
                found.append(Finding(*token.span(), place.name, piece, place.strength is Strength.OWN))
            _next(frame, None)
        else:
            raw = token[1]
            decoded = json.loads(piece, strict=False) if "\\" in raw else raw
            if frame.members and frame.key is None:
                frame.key = decoded
                inner = findings(rules, ROOT, decoded, request=request)
            else:
                inner = findings(rules, _place(rules, frame), decoded, request=request)
                _next(frame, decoded)
            found += _placed(inner, raw, token.start(1))
    return found


def _place(rules: Rules, frame: _Frame) -> Place:
    """Return the place of the value that comes next in a container."""
    if frame.members:
        return frame.place.member(rules, frame.key or "", frame.said)
    if len(frame.place) and frame.place is ROOT and frame.index == 0:
        return ROOT
    return frame.place.item(rules, frame.index, frame.before)


def _next(frame: _Frame, value: str | None) -> None:
    """Step over a value of a container."""
    if frame.members:
        if value is not None and frame.key in _NAMES:
            frame.said = value
        frame.key = None
    else:
        frame.index += 1
        frame.before = value


def _placed(inner: list[Finding], raw: str, begin: int) -> list[Finding]:
    """Return findings in a decoded string where they stand in its spelling."""
    if not inner:
        return inner
    if "\\" not in raw:
        return [found._replace(begin=found.begin + begin, end=found.end + begin) for found in inner]
    where = _offsets(raw)
    return [found._replace(begin=where[found.begin] + begin, end=where[found.end] + begin) for found in inner]


def _offsets(raw: str) -> list[int]:
    """Return where each character of a string stands in its spelling with escapes, and where that ends."""
    where: list[int] = []
    at = 0
    for escape in _ESCAPE.finditer(raw):
        where += range(at, escape.start() + 1)
        at = escape.end()
    where += range(at, len(raw) + 1)
    return where
