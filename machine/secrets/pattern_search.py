"""Sets of regular expressions that are searched for at once, and the parts of a long text where one may match."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

SHORT: Final = 1 << 16
"""The length of the longest text that is searched as a whole, not in pieces."""

PIECE: Final = 1 << 11
_LONGEST_SIGN: Final = 160


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


def any_of(words: Iterable[str], behind: str = "") -> str:
    """Return an expression for any of these, each of which begins with two letters that stand for themselves.

    Those with the same first letter are one alternative, so that a letter that begins none is rejected at once.
    What has to stand `behind` all of them decides which one it is: no other is tried after it.
    """
    by_first: dict[str, list[str]] = {}
    for word in words:
        by_first.setdefault(word[0], []).append(word[1:])
    if not behind:
        return "|".join(f"{first}(?:{'|'.join(rests)})" for first, rests in by_first.items())
    return "|".join(f"{first}(?>(?:{'|'.join(rests)}){behind})" for first, rests in by_first.items())


def pieces(patterns: tuple[str, ...], text: str) -> Iterator[tuple[int, list[int]]]:
    """Yield where each piece of a text begins, and the numbers of the patterns, of ASCII, that begin in it."""
    data = text.encode("ascii", "replace")  # a byte for each character
    signs = searcher(patterns)
    for begin in range(0, len(data), PIECE):
        yield begin, signs.Match(data[begin : begin + PIECE + _LONGEST_SIGN]) or []


def begun_in(
    parts: Iterable[tuple[int, int]],
    regex: re.Pattern[str],
    text: str,
    longest: int,
    lead: re.Pattern[str] | None = None,
) -> Iterator[re.Match[str]]:
    """Yield the matches that begin in these parts of a text.

    Each is recognised by its first `longest` characters, or by its `lead`.
    """
    last = 0
    for begin, end in parts:
        for near in (lead or regex).finditer(text, max(begin, last), end + longest):
            if last <= near.start() < end:
                found = near if lead is None and near.end() < end else regex.match(text, near.start())
                if found is not None:
                    last = found.end()
                    yield found


def parts_with(pattern: str, text: str, *, before: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the parts (begin, end) of a text around an ASCII pattern, with `before` more characters in front."""
    if len(text) <= SHORT:
        yield 0, len(text)
        return
    start = None
    for begin, there in pieces((pattern,), text):
        if there and start is None:
            start = max(begin - before, 0)
        elif not there and start is not None:
            yield start, begin
            start = None
    if start is not None:
        yield start, len(text)
