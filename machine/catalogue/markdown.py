"""The catalogue as a page: `docs/domain-events.md` is its output, and a test keeps them equal.

It must never say more than the classes do: a sentence about a kind belongs in its docstring.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

import attrs

from machine.catalogue.field_types import field_types, in_words
from machine.catalogue.registry import Catalogue, Kind
from machine.events import KERNEL_EVENTS

_INTRODUCTION = """\
# Domain events

A handler says what happens in its own terms with `await rec.emit(DomainEvent(name, payload))`. The names
below are known: their payloads are checked before anything is written, and a payload that does not fit is
refused with every problem and its path. Nothing is coerced and no unknown field is taken. Any other lowercase
name may be used too, with any JSON object as its payload; a kernel event's name may not.

The level says which event profile keeps a kind: `minimal` keeps what is essential, `normal` all but what is
verbose, `verbose` everything. Names that are not listed are normal.

Optional fields that are None are left out of the log. Fields that end in `_ms` are milliseconds, in `_usd` US
dollars, in `_usd_micros` millionths of one. `node_id` and `step_id` are the id of the state, and may be left out:
every event names its state.

Much of this the engine records itself, so that nobody has to emit it: the second column says what. The names are
known nevertheless, for those who bring their events from another system.

This page is made from the catalogue by `machine.catalogue.render_markdown`.
"""


def render_markdown(catalogue: Catalogue) -> str:
    """Return the page that documents a catalogue: an overview, then the fields of every kind."""
    from machine.catalogue.kinds import OF_THE_KERNEL  # noqa: PLC0415 - making 70 attrs classes takes long

    names = {kind.payload: kind.name for kind in catalogue}
    overview = [
        "| catalogue | what the kernel records | level | what it says |",
        "| --- | --- | --- | --- |",
        *(f"| no: it is the kernel's | `{name}` | always | {says} |" for name, says in OF_THE_KERNEL.items()),
    ]
    overview += [
        f"| [`{kind.name}`](#{_anchor(kind)}) | {_kernel(kind)} | {kind.level} | {_sentence(kind)} |"
        for kind in catalogue
    ]
    parts = _parts(catalogue)
    names |= {part: part.__name__ for part in parts}
    sections = ["\n".join(_section(kind, names)) for kind in catalogue]
    sections += ["\n".join(_part(part, names)) for part in parts]
    return "\n".join([_INTRODUCTION, *overview, "", "\n\n".join(sections), ""])


def _part(part: type[Any], names: dict[type[Any], str]) -> Iterator[str]:
    yield f"## {part.__name__}"
    yield ""
    yield _words(part)
    yield ""
    yield from _fields(part, names)


def _section(kind: Kind, names: dict[type[Any], str]) -> Iterator[str]:
    yield f"## {_title(kind)}"
    yield ""
    yield f"{_sentence(kind)} Level: {kind.level}. Class: `{kind.payload.__name__}`."
    yield ""
    yield from _fields(kind.payload, names)


def _fields(payload: type[Any], names: dict[type[Any], str]) -> Iterator[str]:
    types = field_types(payload)
    if not types:
        yield "It has no fields."
        return
    yield "| field | type | |"
    yield "| --- | --- | --- |"
    for field, hint in types.items():
        words = in_words(hint)
        for part, name in names.items():
            if words == part.__name__:
                words = f"[`{name}`](#{name.lower()})"
        required = attrs.fields_dict(payload)[field].default is attrs.NOTHING
        yield f"| `{field}` | {words} | {'required' if required else 'optional'} |"


def _parts(catalogue: Catalogue) -> list[type[Any]]:
    """Return the classes within payloads that are no payloads themselves, in order."""
    hints = (hint for kind in catalogue for hint in field_types(kind.payload).values())
    within = (one for hint in hints for one in (hint, *typing.get_args(hint)))
    payloads = {kind.payload for kind in catalogue}
    classes = (one for one in within if isinstance(one, type) and attrs.has(one) and one not in payloads)
    return list(dict.fromkeys(classes))


def _kernel(kind: Kind) -> str:
    names = re.compile(rf"\b({'|'.join(sorted(KERNEL_EVENTS, key=len, reverse=True))})\b")
    return names.sub(r"`\1`", kind.kernel)


def _title(kind: Kind) -> str:
    return kind.name if kind.version == 1 else f"{kind.name} version {kind.version}"


def _anchor(kind: Kind) -> str:
    return _title(kind).replace(" ", "-")


def _sentence(kind: Kind) -> str:
    return _words(kind.payload)


def _words(payload: type[Any]) -> str:
    return " ".join((payload.__doc__ or "").split("\n\n")[0].split())
