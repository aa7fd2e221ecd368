"""Strings in quotes: finding their end, and decoding their escapes."""

from __future__ import annotations

import json
import re


def end_of_string(text: str, at: int, slashes: int, quote: str) -> int | None:
    """Return the end of the string whose text begins at `at`, after `slashes` backslashes and a quote."""
    if not slashes:
        ended = re.compile(rf"(?:[^\\{quote}]++|\\.)*+{quote}", re.DOTALL).match(text, at)
        return ended.end() - 1 if ended else None
    # a pattern that begins with the quote is searched for faster than one with the backslashes before it
    found = re.compile(rf"{quote}(?<!\\{{{slashes + 1}}}{quote})").search(text, at)
    if found is None:
        return None
    last = text[max(found.start() - slashes, at) : found.start()]
    return found.start() - len(last) + len(last.rstrip("\\"))


def decoded(raw: str, levels: int) -> str:
    """Return a string without its escapes: `levels` times those of JSON, or those of Python if it is negative."""
    if "\\" not in raw:
        return raw
    if levels < 0:
        return re.sub(r"\\([\\'\"])", r"\1", raw)
    try:
        for _ in range(levels):
            raw = json.loads(f'"{raw}"', strict=False)
    except ValueError:
        pass
    return raw
