"""Scans for secrets in a file of any kind and size, with a few pieces of it in memory.

A file that is one JSON document is parsed, up to a size, and so is each line that is one; all else is text. Bytes
are decoded as Latin-1, one character each, so that offsets in the text are offsets in the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Final

import attrs

from machine.secrets.redacted_text import TooManyPlacesError
from machine.secrets.rules import Rules
from machine.secrets.scan_findings import Found, found_in_text

WINDOW: Final = 256 * 1024
"""Size of a piece, in bytes."""

OVERLAP: Final = 32 * 1024
"""Bytes after a piece that are scanned with it, for the rest of a secret that begins in it."""

WHOLE: Final = 1024 * 1024
"""Size of the largest file that is parsed as one JSON document, in bytes."""

SMALLEST: Final = 4096
"""Size of the smallest part that a piece with too many findings is halved into, in bytes."""

_BEFORE: Final = b" \t\r\n\xef\xbb\xbf"
_JSON_LINE: Final = re.compile(rb"(?m)^[ \t]*+([{\[].*[}\]])[ \t\r]*$")


@attrs.frozen
class Leak:
    """Something that looks like a secret: its place and the rule that found it, never its value.

    `path` leads to the text that holds it; it begins at character `offset` of that text, in a file at that byte.
    `length` is in characters.
    """

    where: str
    path: str
    rule: str
    length: int
    offset: int = 0


def in_file(file: IO[bytes], rules: Rules, step: Callable[[int], object]) -> Iterator[Leak]:
    """Yield what looks like a secret in a file; `step` is called with numbers of bytes that were scanned."""
    held = file.read(WINDOW + OVERLAP)
    at = 0
    if held.lstrip(_BEFORE)[:1] in {b"{", b"["}:
        held += file.read(WHOLE + 1 - len(held))
        if len(held) <= WHOLE and _is_json(held):
            yield from _in_parts(rules, [_document(held)], len(held), 0)
            step(len(held))
            return
    while held:
        held += file.read(max(WINDOW + OVERLAP - len(held), 0))
        last = len(held) < WINDOW + OVERLAP
        cut = len(held) if last else held.rfind(b"\n", 0, WINDOW) + 1 or WINDOW
        end = cut
        for leak in _in_parts(rules, _parts(rules, held[: WINDOW + OVERLAP]), cut, at):
            yield leak
            end = max(end, leak.offset - at + leak.length)
        step(end)
        held, at = held[end:], at + end


def _in_parts(rules: Rules, parts: Iterable[tuple[int, bytes]], cut: int, at: int) -> Iterator[Leak]:
    """Yield the leaks that begin before `cut` in the parts of a piece; `at` is the offset of the piece."""
    for begin, part in parts:
        if begin < cut and rules.may_hold(part):
            for one in _found(rules, part):
                if begin + one.at < cut:
                    offset = at + begin + one.at
                    yield Leak("file", f"offset {offset}", one.rule, one.length, offset)


def _found(rules: Rules, part: bytes) -> list[Found]:
    """Return the findings in a part; one with too many is halved and scanned again."""
    try:
        return found_in_text(rules, part.decode("latin-1"))
    except TooManyPlacesError:
        if len(part) <= SMALLEST:
            return [Found("", "text", len(part), 0)]
    half = part.rfind(b"\n", 0, len(part) // 2) + 1 or len(part) // 2
    rest = (one._replace(at=one.at + half) for one in _found(rules, part[half:]))
    return [*_found(rules, part[:half]), *rest]


def _document(piece: bytes) -> tuple[int, bytes]:
    """Return the offset of the JSON document in a piece that is one, and the document."""
    document = piece.lstrip(_BEFORE)
    return len(piece) - len(document), document


def _parts(rules: Rules, piece: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a JSON document whole; of other pieces the lines that look like one, and the text between these."""
    if not rules.may_hold(piece):
        return
    if _is_json(piece):
        yield _document(piece)
        return
    at = 0
    for line in _JSON_LINE.finditer(piece):
        if at < line.start():
            yield at, piece[at : line.start()]
        yield line.start(1), line[1]
        at = line.end()
    if at < len(piece):
        yield at, piece[at:]


def _is_json(data: bytes) -> bool:
    document = data.lstrip(_BEFORE)
    if document[:1] not in {b"{", b"["} or document.rstrip()[-1:] not in {b"}", b"]"}:
        return False
    try:
        json.loads(document)
    except (ValueError, RecursionError):
        return False
    return True
