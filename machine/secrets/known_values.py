"""The secrets that an attempt knows, and the search for them in a text, in any encoding."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from machine.secrets.encodings import Forms, forms_of, is_escaped, is_plain
from machine.secrets.literal_search import LiteralSearch
from machine.secrets.pattern_search import SHORT
from machine.secrets.placeholder import TEXT, source_of, text_of
from machine.secrets.redacted_text import MOST_FINDINGS, Marked, Span, TooManyPlacesError

_PACKED: Final = '{"base64":"'
_RUN: Final = re.compile(r"(?:[A-Za-z0-9+/_-]|%2[BbFf])++(?:=|%3[Dd]){0,2}")
_FEW: Final = 16
_MOST_AT_ONCE: Final = 2048
"""The most values of one search, so that its memory is bounded."""


class _Value(NamedTuple):
    source: str
    sure: bool
    forms: Forms
    placeholder: str
    order: int


class _Search(NamedTuple):
    """A search for all forms of the values of these numbers; each form has its value and whether it is base64."""

    begin: int
    end: int
    literals: LiteralSearch
    forms: list[tuple[str, str, bool]]


class Known:
    """The secret values that an attempt has seen, each under the name of its source.

    A value may be its own placeholder: a replay without the key learns these, and finds the same places with
    them as the live run with the true values.
    """

    def __init__(
        self,
        values: dict[str, _Value] | None = None,
        plain: dict[str, str] | None = None,
        sources: set[str] | None = None,
    ) -> None:
        self._values = {} if values is None else values
        self._plain = {} if plain is None else plain
        self._sources = set() if sources is None else sources
        self.stand_ins: set[str] = set()
        """The stand-ins that were given in the place of some of them."""
        self._searches: list[_Search] = []

    def __bool__(self) -> bool:
        return bool(self._values or self._plain)

    @property
    def sources(self) -> Collection[str]:
        """The names of the sources of known values."""
        return self._sources

    def name(self, source: str) -> None:
        """Remember a source whose value is not known."""
        self._sources.add(source)

    def copy(self) -> Known:
        """Return an independent copy."""
        known = Known(dict(self._values), dict(self._plain), set(self._sources))
        known.stand_ins |= self.stand_ins
        return known

    def sure_beyond(self, other: Known) -> Known:
        """Return a `Known` of the sure values that another one does not know, plain ones left out."""
        if self._values.keys() <= other._values.keys():
            return Known()
        values = {
            text: value for text, value in self._values.items() if value.sure and text not in other._values
        }
        return Known(values, {}, {value.source for value in values.values()})

    def learn(self, source: str, value: str, *, sure: bool) -> None:
        """Remember a value; `sure` says that a program or a policy called it a secret.

        A plain value (`is_plain`) is remembered only if it is sure. The first source of a value stays its source.
        """
        if is_plain(value):
            if sure and value:
                self._sources.add(source)
                self._plain.setdefault(value, source)
            return
        self._sources.add(source)
        before = self._values.get(value)
        if before is None:
            self._values[value] = _Value(source, sure, forms_of(value), text_of(source), len(self._values))
        elif sure and not before.sure:
            self._values[value] = before._replace(sure=True)

    def add(self, other: Known) -> None:
        """Add the values that another one knows."""
        for value, known in other._values.items():
            self.learn(known.source, value, sure=known.sure)
        for value, source in other._plain.items():
            self.learn(source, value, sure=True)
        self._sources |= other._sources
        self.stand_ins |= other.stand_ins

    def source_of(self, value: str, *, plain: bool = True) -> str | None:
        """Return the source of exactly this value, None when it is not known; `plain` ones may be left out."""
        found = self._values.get(value)
        if found is not None:
            return found.source
        return self._plain.get(value) if plain else None

    def values_of(self, source: str) -> list[tuple[str, bool]]:
        """Return the values of a source, each with whether it is sure."""
        found = [(text, value.sure) for text, value in self._values.items() if value.source == source]
        return found + [(text, True) for text, plain in self._plain.items() if plain == source]

    def restored(self, text: str) -> str | None:
        """Return a text with values for its placeholders; None where one names no value, or several."""
        parts: list[str] = []
        at = 0
        for found in TEXT.finditer(text):
            values = self.values_of(source_of(found[0]) or "")
            if len(values) != 1:
                return None
            parts += text[at : found.start()], values[0][0]
            at = found.end()
        return "".join((*parts, text[at:]))

    def items(self) -> Iterable[tuple[str, _Value]]:
        """Return the values that are not plain, each with its source and whether it is sure."""
        return self._values.items()

    def near(self, texts: Iterable[str]) -> Known:
        """Return the known values that may be in these texts; few of many are in any one document.

        It reads the texts once, however many values are known.
        """
        if len(self._values) <= _FEW:
            return self
        text = "\0".join(texts)
        there = {
            search.forms[number][0]
            for search in self._all_searches()
            for _, number in search.literals.places(text)
        }
        in_order = sorted(there, key=lambda value: self._values[value].order)
        return Known({value: self._values[value] for value in in_order}, self._plain, self._sources)

    def _all_searches(self) -> list[_Search]:
        """Return searches for all values; what is learned is added to the last ones, so that few are made anew."""
        searches, end = self._searches, len(self._values)
        begin = searches[-1].end if searches else 0
        if begin < end:
            while searches and end - searches[-1].begin <= min(2 * (end - begin), _MOST_AT_ONCE):
                begin = searches.pop().begin
            forms = [
                (value, form, packed)
                for value, known in islice(self._values.items(), begin, end)
                for packed, several in ((False, known.forms.texts), (True, known.forms.base64))
                for form in several
            ]
            searches.append(_Search(begin, end, LiteralSearch([form for _, form, _ in forms]), forms))
        return searches

    def _spans(self, text: str, *, packed: bool) -> Iterator[Span]:
        """Yield where the forms of known values are in a text: those in base64, or all others."""
        if len(self._values) <= _FEW or len(text) <= SHORT:
            for known in self._values.values():
                for form in known.forms.base64 if packed else known.forms.texts:
                    if form not in text:  # as nearly everywhere
                        continue
                    for at in _occurrences(text, form):
                        if not known.forms.short or _is_word(text, at, form):
                            yield Span(at, at + len(form), known.placeholder)
            return
        for search in self._all_searches():
            for at, number in search.literals.places(text):
                value, form, is_packed = search.forms[number]
                known = self._values[value]
                if is_packed == packed and (not known.forms.short or _is_word(text, at, form)):
                    yield Span(at, at + len(form), known.placeholder)

    def may_be_in(self, data: bytes) -> bool:
        """Tell whether encoded JSON may hold a known value in any form: for nearly everything it says no."""
        if not self:
            return False
        text = data.decode()
        if any(json.dumps(value, ensure_ascii=False)[1:-1] in text for value in self._plain):
            return True
        if _PACKED in text and (
            self._plain or not all(known.forms.base64 for known in self._values.values())
        ):
            return True  # what is not searched for in base64 is searched for in bytes and their parts
        # a value with what JSON escapes stands in encoded JSON once more escaped than in any of its forms
        return any(
            is_escaped(value) or any(form in text for form in known.forms.all())
            for value, known in self.near([text]).items()
        )

    def marked(self, text: str) -> Marked:
        """Return a text with a placeholder for each known value that is not plain.

        Raises `TooManyPlacesError` for a text with more than `MOST_FINDINGS`.
        """
        return self.encoded(self.verbatim(text))

    def in_bytes(self, data: bytes) -> str | None:
        """Return the source of the first sure value that bytes hold, None when they hold none."""
        for value, known in self._values.items():
            if known.sure and value.encode("utf-8", "surrogatepass") in data:
                return known.source
        return None

    def verbatim(self, text: str) -> Marked:
        """Return a text with a placeholder for each form of a known value but those in base64."""
        found = _at_most(self._spans(text, packed=False))
        return Marked(text).with_spans(found) if found else Marked(text)

    def encoded(self, marked: Marked) -> Marked:
        """Return a text with a placeholder for all base64 that holds a known value; itself where none does."""
        text = marked.text
        found = _at_most(self._spans(text, packed=True))
        if not found:
            return marked
        runs = [run.span() for run in _RUN.finditer(text)]
        begins = [begin for begin, _ in runs]
        spans: dict[int, Span] = {}
        for at, _, placeholder in sorted(found):
            begin, end = runs[bisect_right(begins, at) - 1]
            spans.setdefault(begin, Span(begin, end, placeholder))
        return marked.with_spans(spans.values())


def _at_most(spans: Iterator[Span]) -> list[Span]:
    found = list(islice(spans, MOST_FINDINGS + 1))
    if len(found) > MOST_FINDINGS:
        raise TooManyPlacesError(found[0].placeholder)
    return found


def _occurrences(text: str, form: str) -> Iterator[int]:
    """Yield the offsets of a form in a text, without overlaps."""
    at = text.find(form)
    while at >= 0:
        yield at
        at = text.find(form, at + len(form))


def _is_word(text: str, at: int, form: str) -> bool:
    """Tell whether a form in a text is a word of its own."""
    end = at + len(form)
    return not (_joins(text[at - 1 : at], form[0]) or _joins(form[-1], text[end : end + 1]))


def _joins(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum()
