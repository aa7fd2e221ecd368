"""Strings in quotes: finding their end, and decoding their escapes."""

from __future__ import annotations

import json
import re


def closing(slashes: int, quote: str) -> re.Pattern[str]:
    """Return a pattern for the end of a string whose opening quote follows `slashes` backslashes."""
    if slashes:
        return re.compile(rf"(?<!\\)\\{{0,{slashes}}}+{quote}")  # `re` keeps what it compiled
    return re.compile(rf"(?:[^\\{quote}]++|\\.)*+{quote}", re.DOTALL)


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
