"""Replacing secrets by placeholders: in what is stored, with edits that lead back, and in what is only said."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import attrs

from machine.secrets.detect import MOST_FINDINGS, Finding, TooManyPlacesError, findings
from machine.secrets.encodings import SEARCHED_ANYWHERE, is_plain
from machine.secrets.formats import active, shapes
from machine.secrets.known import Known
from machine.secrets.marks import Marked, Span
from machine.secrets.names import Strength
from machine.secrets.placeholder import TEXT, key_escaped, object_of, source_from, source_of, text_of
from machine.secrets.places import ROOT, Place, path_text, said_name
from machine.secrets.rules import Rules
from machine.secrets.substitute import keys_in_order

__all__ = ["Known", "Redacted", "redact", "refused", "say", "say_text"]

_SECRET: Final = "secret"  # noqa: S105 - the namespace of `io.secret`
_MISSING: Final = object()


class Redacted(NamedTuple):
    """What is stored for a document, how to get it back, and what was found in it."""

    document: Any
    edits: list[Any]
    learned: list[tuple[str, str, bool]]


def redact(
    rules: Rules,
    known: Known,
    namespace: str,
    document: Any,
    *,
    request: bool,
    name: Callable[[str], str],
    under: str | None = None,
) -> Redacted:
    """Return what is stored for the request or the answer of a call; the document is not changed.

    `name` gives the source of a value that is not known, from the name of its place; `under` is the name that the
    whole document stands under, where there is one (of `env`, the variable).
    """
    place = ROOT
    if namespace == _SECRET and not request:
        under, place = under or _SECRET, Place(name=under or _SECRET, strength=Strength.OWN)
    elif under is not None:
        place = Place(name=under, strength=rules.field(under))
    names: dict[str, str] = {}
    work = _Redaction(rules, known, request, name, names)
    stored = work.document(document, place)
    if work.learned and not request:  # what was found in one place may stand in another
        more = known.copy()
        for source, value, sure in work.learned:
            more.learn(source, value, sure=sure)
        again = _Redaction(rules, more, request, name, names)
        stored = again.document(document, place)
        again.learned[:] = [*work.learned, *again.learned]
        work = again
    return Redacted(stored, work.edits(), work.learned)


@attrs.define
class _Redaction:
    """One walk over a document."""

    rules: Rules
    known: Known
    request: bool
    name: Callable[[str], str]
    names: dict[str, str]
    """The sources that were given in this document, by value."""
    learned: list[tuple[str, str, bool]] = attrs.field(factory=list)
    changes: dict[tuple[int, Any, bool], Any] = attrs.field(factory=dict)
    """What was changed: by container, step, and whether it is the key."""
    root: list[Any] = attrs.field(factory=lambda: [None])

    def document(self, document: Any, place: Place) -> Any:
        """Return the stored document."""
        todo: list[tuple[Any, Any, Any, Place]] = [(self.root, 0, document, place)]
        while todo:
            into, step, value, place = todo.pop()
            if isinstance(value, str):
                self._text(into, step, value, place)
            elif isinstance(value, dict):
                if not self._packed(into, step, value):
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
                todo += [
                    (
                        new,
                        at,
                        value[at],
                        place.item(self.rules, at, self._masked(value[at - 1]) if at else None),
                    )
                    for at in range(len(value) - 1, -1, -1)
                ]
            else:
                self._other(into, step, value, place)
        return self.root[0]

    def edits(self) -> list[Any]:
        """Return the changes by the nodes of the stored document, in order."""
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
        """Return how a key is stored, and note it in its container so that no other takes its place."""
        marked = self.marked(key, ROOT)
        if not marked.cuts:
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

    def _masked(self, name: Any) -> Any:
        """Return what a name says to a handler that knows only placeholders."""
        return self.known.marked(name).text if self.known and isinstance(name, str) else name

    def _packed(self, into: Any, step: Any, value: dict[str, Any]) -> bool:
        """Store bytes that are no text: as they are, or sealed whole."""
        text = value.get("base64") if len(value) == 1 else None
        if not isinstance(text, str):
            return False
        try:
            data = base64.b64decode(text, validate=True)
            data.decode()
        except UnicodeDecodeError:
            source = self.known.in_bytes(data)
            into[step] = new = {"base64": text}
            if source is not None:
                self._seal(new, "base64", text, source)
            return True
        except (binascii.Error, ValueError):
            pass
        return False

    def _other(self, into: Any, step: Any, value: Any, place: Place) -> None:
        strong = place.strength is Strength.OWN or (self.request and place.strength is Strength.EXACT)
        if not strong or value is None or isinstance(value, bool) or self._allowed(place):
            into[step] = value
            return
        self._seal(
            into, step, value, self._source(place.name, str(value), place.strength is Strength.OWN), "number"
        )

    def _allowed(self, place: Place) -> bool:
        return bool(self.rules.allowed_paths) and path_text(place.path()) in self.rules.allowed_paths

    def marked(self, text: str, place: Place) -> Marked:
        """Return a text with its placeholders."""
        marked = self.known.marked(text) if self.known else Marked(text)
        if self.request and (source := self.known.source_of(text)) is not None and not marked.whole():
            return Marked(text).with_spans([Span(0, len(text), text_of(source))])
        if self._allowed(place):
            return marked
        try:
            found = findings(self.rules, place, marked.text, request=self.request)
            too_many = len(found) + len(marked.cuts) > MOST_FINDINGS
        except TooManyPlacesError:
            found, too_many = [], True
        if too_many:
            inner = TEXT.search(marked.text)
            whole = inner[0] if inner else text_of(self._source("text", text, sure=False))
            return Marked(text).with_spans([Span(0, len(text), whole)])
        if not found:
            return marked
        return marked.with_spans([span for one in found if (span := self._span(marked.text, one))])

    def _span(self, text: str, found: Finding) -> Span | None:
        """Return the part that a finding replaces, None when a placeholder is there already."""
        inner = TEXT.search(text, found.begin, found.end)
        if inner is None:
            return Span(found.begin, found.end, text_of(self._source(found.place, found.value, found.sure)))
        return None if inner.span() == (found.begin, found.end) else Span(found.begin, found.end, inner[0])

    def _source(self, place: str, value: str, sure: bool) -> str:
        source = self.known.source_of(value, plain=self.request) or self.names.get(value)
        if source is None:
            source = self.names[value] = source_from(self.name(source_from(place)))
            if sure or not is_plain(value):
                self.learned.append((source, value, sure))
        return source


def say_text(rules: Rules, known: Known, text: str) -> str:
    """Return a text that nobody reads back, with placeholders for its secrets."""
    return _Redaction(rules, known, request=False, name=str, names={}).marked(text, ROOT).text


def say(rules: Rules, known: Known, value: Any) -> Any:
    """Return a value that nobody reads back, with placeholders as text for its secrets."""
    work = _Saying(rules, known, request=False, name=str, names={})
    return work.document(value, ROOT)


class _Saying(_Redaction):
    """A walk whose placeholders are all text."""

    def _seal(self, into: Any, step: Any, value: Any, source: str, kind: str | None = None) -> None:  # noqa: ARG002
        into[step] = text_of(source)


def refused(rules: Rules, known: Known, key: str, value: Any) -> str | None:
    """Return the path of what a context, an input or a key may not hold, None when there is no such thing."""
    todo: list[tuple[Any, list[str | int]]] = [(key, []), (value, [key])]
    while todo:
        item, path = todo.pop()
        if isinstance(item, str):
            if _is_refused(rules, known, item):
                return path_text(path)
        elif isinstance(item, dict):
            for name, member in reversed(item.items()):
                todo += (member, [*path, name]), (name, [*path, name])
        elif isinstance(item, list | tuple):
            todo += [(item[at], [*path, at]) for at in range(len(item) - 1, -1, -1)]
    return None


def _is_refused(rules: Rules, known: Known, text: str) -> bool:
    if known.source_of(text, plain=False) is not None:
        return True
    for found in TEXT.finditer(text):
        if source_of(found[0]) in known.sources:
            return True
    if known and any(
        cut.end - cut.begin for cut in known.marked(text).cuts if len(cut.true) >= SEARCHED_ANYWHERE
    ):
        return True
    return next(shapes(active(rules.formats, text), text), None) is not None
