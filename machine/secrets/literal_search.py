"""Search for thousands of fixed texts at once, such as the secrets of a run, in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from machine.secrets.pattern_search import PIECE

_LOOKED_FOR: Final = 24
"""The characters of a text that are searched for first: from its third quarter, since tokens often begin alike."""

_MEMORY: Final = 1 << 28


class LiteralSearch:
    """A search for some texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._begins = [max(min(len(text) * 3 // 4, len(text) - _LOOKED_FOR), 0) for text in texts]
        self._signs = self._compiled()

    def _compiled(self) -> Any:
        import re2  # type: ignore[import-untyped]  # noqa: PLC0415 - for runs with many secrets

        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.max_mem = _MEMORY
        signs = re2.Set.SearchSet(options)
        for text, begin in zip(self._texts, self._begins, strict=True):
            signs.Add(re.escape(_as_ascii(text[begin : begin + _LOOKED_FOR])))
        signs.Compile()
        return signs

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the offsets of the texts in another one and their numbers; those of one do not overlap."""
        data = _as_ascii(text)
        done: dict[int, int] = {}
        for piece in range(0, len(data), PIECE):
            for number in sorted(self._signs.Match(data[piece : piece + PIECE + _LOOKED_FOR]) or ()):
                sought, before = self._texts[number], self._begins[number]
                last = piece + PIECE + len(sought) - before
                at = text.find(sought, max(piece - before, done.get(number, 0)), last)
                while at >= 0:
                    yield at, number
                    done[number] = at + len(sought)
                    at = text.find(sought, done[number], last)


def _as_ascii(text: str) -> bytes:
    """Return a byte for each character of a text."""
    return text.encode("ascii", "replace")
