"""The values that JSON pointers name in a document, and in a text of JSON, which otherwise stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]  # the typeshed leaves it out
from typing import Any, Final

from machine import canonical
from machine.errors import CanonicalError
from machine.ignore import steps_of

_STANDS_IN: Final = "<ignored>"
"""The text in place of a value that was taken out."""

_DECODER: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"[ \t\r\n]*")


def read_json(text: str) -> tuple[Any] | None:
    """Return the document of a text of JSON, None for any other text."""
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return None


def without_values(document: Any, pointers: Iterable[str], found: dict[str, Any]) -> Any:
    """Return a document with a text in the place of some values, which are added to `found`."""
    for pointer in sorted(pointers):  # the outer one first, within which nothing is left to find
        document = _replaced(document, steps_of(pointer), pointer, found)
    return document


def _replaced(document: Any, steps: Sequence[str], pointer: str, found: dict[str, Any]) -> Any:
    if not steps:
        found[pointer] = document
        return _STANDS_IN
    if isinstance(document, dict) and steps[0] in document:
        return {**document, steps[0]: _replaced(document[steps[0]], steps[1:], pointer, found)}
    if isinstance(document, list) and (at := _index(steps[0])) is not None and at < len(document):
        return [*document[:at], _replaced(document[at], steps[1:], pointer, found), *document[at + 1 :]]
    return document


def _index(step: str) -> int | None:
    return int(step) if step.isascii() and step.isdigit() and (step == "0" or step[0] != "0") else None


def without_spans(text: str, pointers: Iterable[str], found: dict[str, Any]) -> str:
    """Return a text of JSON as it is, but for some values, which are added to `found`."""
    if read_json(text) is None:
        return text
    kept, at = [], 0
    spans = [(*span, pointer) for pointer in pointers if (span := _span(text, steps_of(pointer))) is not None]
    for begin, end, pointer in sorted(spans):
        if begin >= at:  # else it is within another
            found[pointer] = _storable(text[begin:end])
            kept += [text[at:begin], f'"{_STANDS_IN}"']
            at = end
    return "".join((*kept, text[at:]))


def _storable(text: str) -> Any:
    """Return the value of a text of JSON, or the text itself where canonical JSON cannot hold the value."""
    value = json.loads(text)
    try:
        return canonical.decode(canonical.encode(value))
    except CanonicalError:
        return text.encode("ascii", "backslashreplace").decode()


def _span(text: str, steps: Iterable[str]) -> tuple[int, int] | None:
    """Return where a value begins and ends in a text of JSON, None when it has no such value."""
    at = _after_space(text, 0)
    for step in steps:
        found = _member(text, at, step)
        if found is None:
            return None
        at = found
    return at, _DECODER.raw_decode(text, at)[1]


def _member(text: str, at: int, step: str) -> int | None:
    """Return where a member of the object, or an item of the array, begins that itself begins at `at`.

    Of members with one name, the last one counts, as for every parser of JSON.
    """
    opened, found, number = text[at], None, 0
    if opened not in "{[":
        return None
    at = _after_space(text, at + 1)
    while text[at] not in "}]":
        if opened == "{":
            name, at = scanstring(text, at + 1)
            at = _after_space(text, _after_space(text, at) + 1)
        else:
            name, number = str(number), number + 1
        if name == step:
            found = at
        at = _after_space(text, _DECODER.raw_decode(text, at)[1])
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return found


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None  # it may be empty
    return space.end()
