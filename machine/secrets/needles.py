"""Looks for many pieces of text at once, each in one pass whose time is linear, however many there are."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

__all__ = ["any_of", "searcher"]


@functools.lru_cache(maxsize=16)
def searcher(patterns: tuple[str, ...]) -> Any:
    """Return a set of expressions in the syntax of RE2; its `Match` tells the numbers of those that bytes hold."""
    import re2  # type: ignore[import-untyped]  # noqa: PLC0415 - a process that looks at nothing need not load it

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    found = re2.Set.SearchSet(options)
    for pattern in patterns:
        found.Add(pattern)
    found.Compile()
    return found


def any_of(words: Iterable[str]) -> str:
    """Return an expression for any of these, each of which begins with two letters that stand for themselves.

    Those of one first letter are one alternative: a letter that begins none is told by one look at each letter.
    """
    by_first: dict[str, list[str]] = {}
    for word in words:
        by_first.setdefault(word[0], []).append(word[1:])
    return "|".join(f"{first}(?:{'|'.join(rests)})" for first, rests in by_first.items())
