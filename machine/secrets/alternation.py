"""Alternatives in a regular expression, so written that `re` tries few of them at a character."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["any_of"]


def any_of(words: Iterable[str]) -> str:
    """Return an expression for any of these, each of which begins with two letters that stand for themselves.

    Those of one first letter are one alternative: a letter that begins none is told by one look at each letter.
    """
    by_first: dict[str, list[str]] = {}
    for word in words:
        by_first.setdefault(word[0], []).append(word[1:])
    return "|".join(f"{first}(?:{'|'.join(rests)})" for first, rests in by_first.items())
