"""The masked source of a handler, in which every text is a short hash and comments are removed.

A literal may be a password, and no rule can tell. Where a recorded source is shown next to the current one, a
literal that still exists is shown again; no other can be.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from typing import Final

from machine.canonical import artifact_id

_MASK: Final = re.compile(r'"#([0-9a-f]{6})"')
_UNKNOWN: Final = '"..."'
_LONGEST: Final = 60

# a formatted literal is one token before Python 3.12 and many since; both are taken as one literal
_OPENING: Final = {getattr(tokenize, f"{kind}_START", -1) for kind in ("FSTRING", "TSTRING")}
_CLOSING: Final = {getattr(tokenize, f"{kind}_END", -1) for kind in ("FSTRING", "TSTRING")}


def kept_source(source: str) -> str:
    """Return source with a hash for each string literal, and without comments and blank lines.

    It is empty for what is not valid Python.
    """
    parts, at = list[str](), 0
    try:
        for start, end in _spans(source):
            parts += [source[at:start], "" if source[start] == "#" else f'"#{_hash(source[start:end])}"']
            at = end
    except (tokenize.TokenError, SyntaxError):
        return ""
    lines = (line.rstrip() for line in "".join((*parts, source[at:])).split("\n"))
    return "\n".join(line for line in lines if line)


def literals(source: str) -> dict[str, str]:
    """Return a mapping from hashes to the literals of some source."""
    return {_hash(text): text for start, end in _spans(source) if (text := source[start:end])[0] != "#"}


def shown(line: str, known: Mapping[str, str]) -> str:
    """Return a line of masked source with the known literals restored."""
    return _MASK.sub(lambda found: _one_line(known.get(found[1], _UNKNOWN)), line)


def _spans(source: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each literal and each comment."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    depth, opened = 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        if token.type in _OPENING:
            opened = start if depth == 0 else opened
            depth += 1
        elif token.type in _CLOSING:
            depth -= 1
            if depth == 0:
                yield opened, end
        elif depth == 0 and token.type in {tokenize.STRING, tokenize.COMMENT}:
            yield start, end


def _hash(text: str) -> str:
    return artifact_id(text.encode(errors="surrogatepass"))[:6]


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
