"""A text in which parts were replaced by placeholders, and the true text that stood there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

__all__ = [
    "MOST_CANDIDATES",
    "MOST_FINDINGS",
    "MOST_NAMES",
    "Cut",
    "Marked",
    "Span",
    "TooManyPlacesError",
    "Work",
    "at_most",
    "names_in",
]


MOST_FINDINGS: Final = 1000
"""A text with more findings is sealed whole."""


MOST_CANDIDATES: Final = 10_000
"""A text with more places of one kind that could be findings, and have to be judged one by one, is sealed whole."""


MOST_NAMES: Final = 100_000
"""So is one with more names that end as those of secrets do, but for one in so many characters of a long text."""

_APART: Final = 64
_SHORT: Final = 64
_A_FEW: Final = 4


class TooManyPlacesError(Exception):
    """A text has too many findings and is sealed whole, as `placeholder` unless that is None."""

    def __init__(self, placeholder: str | None = None) -> None:
        super().__init__(placeholder)
        self.placeholder = placeholder


_Item = TypeVar("_Item")


def at_most(most: int, items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield items, and raise `TooManyPlacesError` when there are more."""
    for count, item in enumerate(items):
        if count >= most:
            raise TooManyPlacesError
        yield item


def names_in(text: str) -> int:
    """Return how many names that end as those of secrets do may be judged in a text."""
    return MOST_NAMES + len(text) // _APART


class Work:
    """The work that may be spent on a text: a unit is what it takes to pass over a name."""

    __slots__ = ("left",)

    def __init__(self, text: str) -> None:
        self.left = 2 * names_in(text)

    def each(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield items, a unit for each."""
        for item in items:
            self.left -= 1
            if self.left < 0:
                raise TooManyPlacesError
            yield item

    def spend(self, units: int) -> None:
        """Take so many more units. Raises `TooManyPlacesError` when none is left."""
        self.left -= units
        if self.left < 0:
            raise TooManyPlacesError

    def read(self, value: str) -> str:
        """Return a value that is to be judged: a long one takes a unit for a few characters."""
        if len(value) > _SHORT:
            self.spend(len(value) // _A_FEW)
        return value


class Span(NamedTuple):
    """A part of a text and the placeholder that is to stand for it."""

    begin: int
    end: int
    placeholder: str


class Cut(NamedTuple):
    """A placeholder in a text and the true text that it stands for."""

    begin: int
    end: int
    true: str


class Marked(NamedTuple):
    """A text with placeholders; `cuts` say in order where they are and what they stand for."""

    text: str
    cuts: tuple[Cut, ...] = ()

    def with_spans(self, spans: Iterable[Span]) -> Marked:
        """Return this text with further parts replaced.

        Parts that overlap become one, under the placeholder of the first; one that overlaps a placeholder includes
        all of it.
        """
        parts: list[str] = []
        cuts: list[Cut] = []
        at = length = 0
        for group in _groups([*self.cuts, *spans]):
            begin, end = group[0].begin, max(item.end for item in group)
            inner = [item for item in group if isinstance(item, Cut)]
            names = [item.placeholder for item in group if isinstance(item, Span)]
            placeholder = names[0] if names else self.text[begin:end]
            parts += self.text[at:begin], placeholder
            length += begin - at
            cuts.append(Cut(length, length + len(placeholder), self._true(begin, end, inner)))
            length += len(placeholder)
            at = end
        return Marked("".join((*parts, self.text[at:])), tuple(cuts))

    def whole(self) -> bool:
        """Tell whether the text is one placeholder and nothing besides."""
        return len(self.cuts) == 1 and self.cuts[0][:2] == (0, len(self.text))

    def true(self) -> str:
        """Return the text as it was before anything was replaced."""
        return self._true(0, len(self.text), self.cuts)

    def _true(self, begin: int, end: int, cuts: Iterable[Cut]) -> str:
        parts: list[str] = []
        for cut in cuts:
            parts += self.text[begin : cut.begin], cut.true
            begin = cut.end
        return "".join((*parts, self.text[begin:end]))


def _groups(items: list[Cut | Span]) -> list[list[Cut | Span]]:
    """Return parts in order, in groups of those that overlap."""
    groups: list[list[Cut | Span]] = []
    end = 0
    for item in sorted(items, key=lambda item: (item.begin, -item.end)):
        if groups and item.begin < end:
            groups[-1].append(item)
        else:
            groups.append([item])
        end = max(end, item.end)
    return groups
