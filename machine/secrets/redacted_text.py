"""A text in which parts were replaced by placeholders, and the true text that stood there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

MOST_FINDINGS: Final = 1000
"""A text with more findings is sealed whole."""


MOST_CANDIDATES: Final = 10_000
"""A text with more candidates for findings of one kind, which are checked one by one, is sealed whole."""

MOST_NAMES: Final = 100_000
"""A text with more escapes in one value, or with more words in its commands, is sealed whole."""

MOST_WORK: Final = 200_000
"""The units of work that a document is given, and one more for each `_APART` characters of its texts."""

_APART: Final = 48
NO_WORK: Final = _APART
"""The length below which a text adds no work."""

_CANDIDATE: Final = 10
"""The units for a candidate that is checked by itself."""
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


class Work:
    """The work that may be spent on the texts of a document: one unit is the work of skipping a name."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_WORK

    def begin(self, text: str) -> None:
        """Add the work that a further text is given."""
        self.left += len(text) // _APART

    def candidates(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield items that are checked one by one. Raises `TooManyPlacesError` for more than `MOST_CANDIDATES`."""
        for item in at_most(MOST_CANDIDATES, items):
            self.spend(_CANDIDATE)
            yield item

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
    """A part of a text, by its offsets, and the placeholder that replaces it."""

    begin: int
    end: int
    placeholder: str


class Cut(NamedTuple):
    """A placeholder in a text and the true text that it stands for."""

    begin: int
    end: int
    true: str


class Marked(NamedTuple):
    """A text with placeholders; `cuts` has these in order, with the true texts."""

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

    @classmethod
    def sealed(cls, text: str, placeholder: str) -> Marked:
        """Return a text that is replaced as a whole."""
        return cls(text).with_spans([Span(0, len(text), placeholder)])

    def spans(self) -> list[Span]:
        """Return what was replaced, by the offsets in the text as it was before."""
        spans: list[Span] = []
        longer = 0
        for begin, end, true in self.cuts:
            spans.append(Span(begin + longer, begin + longer + len(true), self.text[begin:end]))
            longer += len(true) - (end - begin)
        return spans

    def whole(self) -> bool:
        """Tell whether the text is exactly one placeholder."""
        return len(self.cuts) == 1 and self.cuts[0][:2] == (0, len(self.text))

    def true(self, begin: int = 0, end: int | None = None) -> str:
        """Return the text, or a part of it, as it was before anything was replaced."""
        end = len(self.text) if end is None else end
        return self._true(begin, end, [cut for cut in self.cuts if begin <= cut.begin and cut.end <= end])

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
