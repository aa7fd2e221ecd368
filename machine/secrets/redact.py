"""Replacing secrets by placeholders: in stored documents, with edits that restore them, and in texts for people."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from machine import canonical
from machine.secrets.base64_bytes import MarkedBytes, Packed, packed_bytes
from machine.secrets.encodings import is_plain
from machine.secrets.known_value_order import KnownInTurn
from machine.secrets.known_values import Known
from machine.secrets.names import Strength
from machine.secrets.pattern_search import SHORT
from machine.secrets.placeholder import TEXT, key_escaped, object_of, source_from, source_of, text_of
from machine.secrets.redacted_text import MOST_FINDINGS, NO_WORK, Marked, Span, TooManyPlacesError, Work
from machine.secrets.restore import keys_in_order
from machine.secrets.rules import Rules
from machine.secrets.secret_value import SECRET
from machine.secrets.value_places import ROOT, Place, said_name, source_name

if TYPE_CHECKING:
    from machine.secrets.finding import Finding

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"')


class Redacted(NamedTuple):
    """The stored form of a document, the edits that restore it, and the secrets that were found in it."""

    document: Any
    edits: list[Any]
    learned: list[tuple[str, str, bool]]
    hides: bool = False
    """True when a placeholder replaces more than a secret, such as a whole text with too many."""


def redact(
    rules: Rules,
    known: Known | KnownInTurn,
    namespace: str,
    document: Any,
    *,
    request: bool,
    name: Callable[[str], str],
    under: str | None = None,
    beyond: Known | None = None,
) -> Redacted:
    """Return the stored form of the request or the answer of a call; the document is not changed.

    `name` gives the source of a value that is not known, from the name of its place; `under` is the name that the
    whole document stands under, where there is one (of `env`, the variable). The sure values of `beyond` are
    replaced too, where nothing else is; they give no other value its name.
    """
    if not (known or beyond or under) and namespace != SECRET:
        from machine.secrets.plain_documents import is_plain_document  # noqa: PLC0415 - as for `findings`

        if is_plain_document(rules, document):
            return Redacted(document, [], [])
    place = ROOT
    if namespace == SECRET and not request:
        under, place = under or SECRET, Place(name=under or SECRET, strength=Strength.OWN)
    elif under is not None:
        place = Place(name=under, strength=rules.field(under))
    near = known.near(texts_in(document))
    walk = _Redaction if request else _Answer
    work: _Redaction = walk(rules, known, near, request=request, name=name, beyond=beyond)
    stored = work.document(document, place)
    others = Known() if beyond is None else beyond.near(texts_in(document)).sure_beyond(near)
    if (work.learned or others) and not request:  # what was found in one place may stand in another
        more = near.copy()
        for source, value, sure in work.learned:
            more.learn(source, value, sure=sure)
        more.add(others)
        work = _Answer(rules, known, more, request=False, name=name, first=work, beyond=beyond)
        stored = work.document(document, place)
    return Redacted(stored, work.edits(), work.learned, work.hides)


class _Redaction:
    """A walk over a document.

    `near` are the known values that may be in this document. What a first walk finds is known in the second.
    """

    def __init__(
        self,
        rules: Rules,
        known: Known | KnownInTurn,
        near: Known,
        *,
        request: bool,
        name: Callable[[str], str],
        first: _Redaction | None = None,
        beyond: Known | None = None,
    ) -> None:
        # its patterns are for what may hold a secret
        from machine.secrets.detect import findings, says_nothing  # noqa: PLC0415 - the same

        self.findings = findings
        self.says_nothing = says_nothing
        self.rules = rules
        self.known = known
        self.beyond = beyond or Known()
        self.near = near
        self.request = request
        self.name = name
        # sources by value, the placeholders of texts that are sealed whole, and each text in the order of the walk
        self.names: dict[str, str] = first.names if first else {}
        self.sealed: dict[str, str] = first.sealed if first else {}
        self.learned: list[tuple[str, str, bool]] = first.learned if first else []
        self.told: list[Marked] = []
        self.work = Work()
        self.before = iter(first.told if first else ())
        self.hides = False
        # by container, step, and whether it is the key
        self.changes: dict[tuple[int, Any, bool], Any] = {}
        self.root: list[Any] = [None]

    def document(self, document: Any, place: Place) -> Any:
        """Return the stored document."""
        todo: list[tuple[Any, Any, Any, Place]] = [(self.root, 0, document, place)]
        while todo:
            into, step, value, place = todo.pop()
            if isinstance(value, str):
                self._text(into, step, value, place)
            elif isinstance(value, dict):
                if (packed := packed_bytes(value)) is not None:
                    self._bytes(into, step, packed, place.member(self.rules, "base64"))
                else:
                    new: Any = {}
                    into[step] = new
                    said = self._masked(said_name(value))
                    keys = keys_in_order(value)
                    stored = [self._key(new, key) for key in keys]
                    todo += [
                        (new, stored[at], value[key], place.member(self.rules, self._masked(key), said))
                        for at, key in reversed(list(enumerate(keys)))
                    ]
            elif isinstance(value, list | tuple):
                into[step] = new = [None] * len(value)
                places = place.items(self.rules, [self._masked(item) for item in value])
                todo += [(new, at, value[at], places[at]) for at in range(len(value) - 1, -1, -1)]
            else:
                self._other(into, step, value, place)
        return self.root[0]

    def edits(self) -> list[Any]:
        """Return the edits that restore the document, by the number of the stored node, in order."""
        if not self.changes:
            return []
        edits: list[Any] = []
        node = 0
        todo: list[tuple[Any, Any]] = [(self.root, 0)]
        while todo:
            into, step = todo.pop()
            if isinstance(into, dict):
                change = self.changes.get((id(into), step, True))
                if change is not None:
                    edits.append([node, change])
                node += 1
            value = into[step]
            change = self.changes.get((id(into), step, False))
            if change is not None:
                edits.append([node, change])
            elif isinstance(value, dict):
                todo += [(value, key) for key in reversed(keys_in_order(value))]
            elif isinstance(value, list):
                todo += [(value, index) for index in range(len(value) - 1, -1, -1)]
            node += 1
        return edits

    def _text(self, into: Any, step: Any, text: str, place: Place) -> None:
        marked = self.marked(text, place)
        if not marked.cuts:
            into[step] = text
        elif marked.whole():
            self._seal(into, step, text, source_of(marked.text) or "value")
        else:
            into[step] = marked.text
            self.changes[id(into), step, False] = [list(cut) for cut in marked.cuts]

    def _seal(self, into: Any, step: Any, value: Any, source: str, kind: str | None = None) -> None:
        into[step] = object_of(source, kind)
        self.changes[id(into), step, False] = {"value": value}

    def _key(self, into: dict[str, Any], key: str) -> str:
        """Return the stored form of an object key, distinct from all others of its container."""
        marked = None if self._is_plain_key(key) else self.marked(key, ROOT)
        if marked is None or not marked.cuts:
            stored = key_escaped(key)
            into[stored] = None
            return stored
        stored, count = marked.text, 2
        while stored in into:
            stored = f"{marked.text}~{count}"
            count += 1
        into[stored] = None
        cuts = [list(cut) for cut in marked.cuts] if stored == marked.text else [[0, len(stored), key]]
        self.changes[id(into), stored, True] = cuts
        return stored

    def _is_plain_key(self, key: str) -> bool:
        """Say whether a key of a request needs no search of its own: nothing is near, and it alone says nothing."""
        return (
            self.request
            and not self.near
            and len(key) < NO_WORK
            and self.known.source_of(key) is None
            and self.says_nothing(self.rules, key)
        )

    def _masked(self, name: Any) -> Any:
        """Return what a name says to a handler that knows only placeholders."""
        if not self.near or not isinstance(name, str):
            return name
        try:
            return self.near.marked(name).text
        except TooManyPlacesError as error:
            return error.placeholder

    def _bytes(self, into: Any, step: Any, packed: Packed, place: Place) -> None:
        """Store bytes: as they are, with placeholders in the parts of a form, or sealed whole."""
        marked, at, data = MarkedBytes(), 0, packed.data
        for head, begin, end, names in packed.parts:
            marked.add(*self._piece(data[at:head], place))
            marked.add(*self._piece(data[head:begin], place, head=True))
            within = place if place.is_allowed(self.rules) else place.field(self.rules, names)
            marked.add(*self._piece(data[begin:end], within))
            at = end
        marked.add(*self._piece(data[at:], place))
        into[step] = new = {}
        if not marked.cuts:
            new["base64"] = packed.text
            return
        whole = marked.whole() or len(marked.cuts) > MOST_FINDINGS or not packed.is_canonical()
        key, stored, change = marked.stored()
        if whole or key != "base64":  # as text, which a placeholder is to who has no key
            key = "text"
            self.changes[id(new), key, True] = [[0, len(key), "base64"]]
        new[key] = stored
        self.changes[id(new), key, False] = change
        if whole:
            self.hides = True
            self._seal(new, key, packed.text, marked.first())

    def _piece(self, data: bytes, place: Place, *, head: bool = False) -> tuple[Marked, str]:
        """Return a part of bytes with its placeholders, and how it is encoded."""
        try:
            return self.marked(data.decode(), place), "utf-8"
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        if head:
            return self.marked(text, place), "latin-1"
        source = self.known.in_bytes(data) or self.beyond.in_bytes(data)
        self.hides |= source is not None
        if self._is_strong(place):
            source = self._source(place.name, text, place.strength is Strength.OWN)
        return Marked(text) if source is None else Marked.sealed(text, text_of(source)), "latin-1"

    def _is_strong(self, place: Place) -> bool:
        """Tell whether all that stands at a place is secret, whatever it is."""
        strong = place.strength is Strength.OWN or (self.request and place.strength is Strength.EXACT)
        return strong and not place.is_allowed(self.rules)

    def _other(self, into: Any, step: Any, value: Any, place: Place) -> None:
        if value is None or isinstance(value, bool) or not self._is_strong(place):
            into[step] = value
            return
        source = self._source(place.name, str(value), place.strength is Strength.OWN)
        self._seal(into, step, value, source, "number")

    def marked(self, text: str, place: Place) -> Marked:
        """Return a text with its placeholders."""
        before, whole = next(self.before, None), self.sealed.get(text)
        if self.request and whole is None and (source := self.known.source_of(text)) is not None:
            whole = text_of(source)
        try:
            found = self._marked(text, place, before) if whole is None else Marked.sealed(text, whole)
        except TooManyPlacesError as error:
            self.hides = True
            self.sealed[text] = error.placeholder or text_of(self._source("text", text, sure=False))
            found = Marked.sealed(text, self.sealed[text])
        self.told.append(found)
        return found

    def _marked(self, text: str, place: Place, before: Marked | None) -> Marked:
        marked = Marked(text)
        if self.near:
            verbatim = self.near.verbatim(text)
            marked = self.near.encoded(verbatim)
            self.hides |= marked is not verbatim
        # all that was found is known now, and nothing else; beside placeholders more may look like a secret
        if marked == before and not marked.cuts:
            return marked
        if before is not None and len(text) > SHORT:  # which is not worth another search
            both = Marked(text).with_spans([*before.spans(), *marked.spans()])
            if len(both.cuts) > MOST_FINDINGS:
                raise TooManyPlacesError(marked.spans()[0].placeholder)
            return both
        try:
            self.work.begin(marked.text)
            found = self.findings(self.rules, place, marked.text, self.work, request=self.request)
            if len(found) + len(marked.cuts) > MOST_FINDINGS:
                raise TooManyPlacesError  # noqa: TRY301 - as by what it calls
        except TooManyPlacesError:
            raise TooManyPlacesError(inner[0] if (inner := TEXT.search(marked.text)) else None) from None
        if not found:
            return marked
        return marked.with_spans([span for one in found if (span := self._span(marked, one))])

    def _span(self, marked: Marked, found: Finding) -> Span | None:
        """Return the part that a finding replaces, None when a placeholder is there already."""
        begin, end, place, value, *_ = found
        inner = TEXT.search(marked.text, begin, end)
        self.hides |= found.hides
        if inner is not None:
            if inner.span() == (begin, end):
                return None
            true = None
            if not self.request:  # all of it is a secret of its own, which a handler sends on
                as_it_is = value == marked.text[begin:end]
                true = marked.true(begin, end) if as_it_is else self.near.restored(value)
            if true is None:
                return Span(begin, end, inner[0])
            value = true
        return Span(begin, end, text_of(self._source(place, value, found.sure)))

    def _source(self, place: str, value: str, sure: bool) -> str:
        source = self.known.source_of(value, plain=self.request)
        if source is None and not self.request:  # there the place names it, whatever else has the same value
            source = self.names.get(value)
        if source is None:
            source = self.names[value] = source_from(self.name(source_name(place)))
            if sure or not is_plain(value):
                self.learned.append((source, value, sure))
        return source


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts of a JSON value, keys included."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item
            todo += item.values()
            if (packed := packed_bytes(item)) is not None and packed.parts:
                yield packed.data.decode("latin-1")
        elif isinstance(item, list | tuple):
            todo += item


def say_text(rules: Rules, known: Known, text: str) -> str:
    """Return a text for people, which nothing restores, with placeholders for its secrets."""
    return _Redaction(rules, known, known.near([text]), request=False, name=str).marked(text, ROOT).text


def say(rules: Rules, known: Known, value: Any) -> Any:
    """Return a value for people, which nothing restores, with placeholders as text for its secrets."""
    return _Saying(rules, known, known.near(texts_in(value)), request=False, name=str).document(value, ROOT)


def say_json(known: Known, data: bytes) -> bytes | None:
    """Return encoded JSON with placeholders as text for known values alone, None where none is in it."""
    text = _STRING.sub(lambda found: json.dumps(known.marked(json.loads(found[0])).text), data.decode())
    said = canonical.encode(json.loads(text))
    return None if said == data else said


class _Saying(_Redaction):
    """A walk whose placeholders are all text."""

    def _seal(self, into: Any, step: Any, value: Any, source: str, kind: str | None = None) -> None:  # noqa: ARG002
        into[step] = text_of(source)


class _Answer(_Redaction):
    """A walk that leaves plain values as they are, wherever they stand.

    They are not learned, so what a handler makes of one is stored as it is; without the key it must have the same.
    """

    def _span(self, marked: Marked, found: Finding) -> Span | None:
        return super()._span(marked, found) if found.sure or not is_plain(found.value) else None
