"""The catalogue as a page: `docs/domain-events.md` is its output, and a test keeps them equal.

It must never say more than the classes do: a sentence about a kind belongs in its docstring.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from machine.catalogue.field_types import field_types, in_words
from machine.catalogue.registry import Catalogue, Kind

_INTRODUCTION = """\
# Domain events

A handler says what happens in its own terms with `await rec.emit(DomainEvent(name, payload))`. The names
below are known: their payloads are checked before anything is written, and a payload that does not fit is
refused with every problem and its path. Nothing is coerced and no unknown field is taken. Any other lowercase
name may be used too, with any JSON object as its payload; a kernel event's name may not.

The level says which event profile keeps a kind: `minimal` keeps what is essential, `normal` all but what is
verbose, `verbose` everything. Names that are not listed are normal.

Optional fields that are None are left out of the log. Fields that end in `_ms` are milliseconds, in
`_usd_micros` millionths of a US dollar, in `_ref` the id of an artifact or the address of something kept
elsewhere.

This page is made from the catalogue by `machine.catalogue.render_markdown`.
"""


def render_markdown(catalogue: Catalogue) -> str:
    """Return the page that documents a catalogue: an overview, then the fields of every kind."""
    names = {kind.payload: kind.name for kind in catalogue}
    overview = ["| event | level | what it says |", "| --- | --- | --- |"]
    overview += [
        f"| [`{kind.name}`](#{_anchor(kind)}) | {kind.level} | {_sentence(kind)} |" for kind in catalogue
    ]
    sections = ("\n".join(_section(kind, names)) for kind in catalogue)
    return "\n".join([_INTRODUCTION, *overview, "", "\n\n".join(sections), ""])


def _section(kind: Kind, names: dict[type[Any], str]) -> Iterator[str]:
    yield f"## {_title(kind)}"
    yield ""
    yield f"{_sentence(kind)} Level: {kind.level}. Class: `{kind.payload.__name__}`."
    yield ""
    yield "| field | type | |"
    yield "| --- | --- | --- |"
    for field, hint in field_types(kind.payload).items():
        words = in_words(hint)
        for payload, name in names.items():
            if words == payload.__name__:
                words = f"[`{name}`](#{name})"
        required = attrs.fields_dict(kind.payload)[field].default is attrs.NOTHING
        yield f"| `{field}` | {words} | {'required' if required else 'optional'} |"


def _title(kind: Kind) -> str:
    return kind.name if kind.version == 1 else f"{kind.name} version {kind.version}"


def _anchor(kind: Kind) -> str:
    return _title(kind).replace(" ", "-")


def _sentence(kind: Kind) -> str:
    return " ".join((kind.payload.__doc__ or "").split("\n\n")[0].split())
