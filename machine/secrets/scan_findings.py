"""Findings of a scan: where a secret is, the rule that found it and its length; never its value.

Placeholders of either format are not secrets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from machine import canonical
from machine.secrets.base64_bytes import as_text
from machine.secrets.detect import findings
from machine.secrets.known_values import Known
from machine.secrets.placeholder import MARK, TEXT, source_of
from machine.secrets.policy import path_text
from machine.secrets.redact import redact
from machine.secrets.redacted_text import Work
from machine.secrets.restore import keys_in_order
from machine.secrets.rules import Rules
from machine.secrets.secret_value import SECRET
from machine.secrets.value_places import ROOT

_SPACE: Final = r"[ \t\r\n]{0,64}"
_OBJECT: Final = re.compile(
    rf'\{{{_SPACE}(?P<quote>\\*")\$secret(?P=quote){_SPACE}:{_SPACE}(?P=quote)[A-Za-z0-9_.-]{{1,128}}(?P=quote){_SPACE}'
    rf"(?:,{_SPACE}(?P=quote)(?:mac|type)(?P=quote){_SPACE}:{_SPACE}(?P=quote)[a-z0-9]{{6,32}}(?P=quote){_SPACE})?\}}"
)
"""A placeholder object (in format 1 it has a hash), also as it is escaped in JSON within JSON."""

_QUOTED: Final = re.compile(
    r"%7[Bb]%22(?:%24|\$)secret%22(?:%3[Aa]|:)%22[A-Za-z0-9_.-]{1,128}%22"
    r"(?:%2[Cc]|,)%22mac%22(?:%3[Aa]|:)%22[0-9a-f]{32}%22%7[Dd]"
)
"""A placeholder of format 1 in a query or a form."""

_LONGEST: Final = 384


class Found(NamedTuple):
    """A secret that was found. `at` is its offset in its text and `length` its length, both in characters."""

    path: str
    rule: str
    length: int
    at: int


def found(
    rules: Rules, data: bytes, *, namespace: str = "", request: bool = False, under: str | None = None
) -> list[Found]:
    """Return the secrets in the bytes of a stored JSON document; other bytes may raise `CodecError`.

    `namespace`, `request` and `under` say what the document is, as in `redact`.
    """
    named = (
        under is not None or namespace == SECRET
    )  # then a name makes it secret, which the quick look cannot know
    if not named and not rules.may_hold(data):
        return []
    document = canonical.decode(_masked(data.decode(), _mask_escaped).encode() if b"secret" in data else data)
    redacted = redact(rules, Known(), namespace, document, request=request, name=str, under=under)
    if not redacted.edits:
        return []
    nodes = dict(redacted.edits)
    return [
        one
        for node, path, stored in _located(redacted.document)
        if node in nodes
        for one in _told(path_text(path), stored, nodes[node])
    ]


def found_in_text(rules: Rules, text: str) -> list[Found]:
    """Return the secrets in a text of any kind. Raises `TooManyPlacesError` for a text with too many."""
    masked = _masked(text, _mask) if "secret" in text else text
    work = Work()
    work.begin(masked)
    return [
        Found("", one.place, one.end - one.begin, one.begin)
        for one in findings(rules, ROOT, masked, work, request=False)
        if not TEXT.search(masked, one.begin, one.end)
    ]


def _masked(text: str, mask: Callable[[re.Match[str]], str]) -> str:
    """Return a text with its placeholder objects rewritten as text placeholders of the same length."""
    return _QUOTED.sub(mask, _OBJECT.sub(mask, text))


def _mask(match: re.Match[str], shorter: int = 0) -> str:
    quote = match.groupdict().get("quote", "")
    size = len(match[0]) - shorter
    filling = min(size - len("__secret___") - 2 * len(quote), _LONGEST)
    return f"{quote}__secret_{'h' * filling}__{quote}".ljust(size)


def _mask_escaped(match: re.Match[str]) -> str:
    """Return a replacement that has the right length once decoding has removed the backslashes around it."""
    slashes = len(match.groupdict().get("quote", "")) // 2
    return _mask(match, (match[0].count('"') - 2) * slashes)


def _told(path: str, stored: Any, change: Any) -> Iterator[Found]:
    """Yield the secrets that an edit replaced in a leaf, except those that were placeholders already."""
    if isinstance(change, dict) and "bytes" in change:
        stored, change = as_text(stored, change)
    if isinstance(change, dict):
        true = str(change["value"])
        if not TEXT.search(true):
            yield Found(path, stored[MARK], len(true), 0)
        return
    longer = 0
    for begin, end, true in change:
        if TEXT.search(stored, begin, end) and not TEXT.search(true):
            yield Found(path, source_of(stored[begin:end]) or "key", len(true), begin + longer)
        longer += len(true) - (end - begin)


def _located(stored: Any) -> Iterator[tuple[int, list[str | int], Any]]:
    """Yield each key and value of a stored document with its path and its number, as `redact` counts nodes."""
    node = 0
    todo: list[tuple[list[str | int], Any, bool]] = [([], stored, False)]
    while todo:
        path, value, in_object = todo.pop()
        if in_object:
            yield node, path[:-1], path[-1]
            node += 1
        yield node, path, value
        node += 1
        if isinstance(value, dict) and MARK not in value:
            todo += [([*path, key], value[key], True) for key in reversed(keys_in_order(value))]
        elif isinstance(value, list):
            todo += [([*path, index], value[index], False) for index in range(len(value) - 1, -1, -1)]
