"""Search for equal leaves in a JSON document, including JSON embedded in its strings.

Equal values do not prove that one came from the other. Values that occur everywhere (true, 0, an empty string)
are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from machine.recordings.json_diff import pointer_of
from machine.recordings.result_json import fields_json

MOST_LEAVES: Final = 500
"""Leaves of one value that are looked for."""

_MOST_NODES: Final = 200_000
"""Nodes of one document that are looked at."""

_SHORTEST_PART: Final = 6
"""A text of fewer characters within a longer one says nothing."""

_HOWS: Final = ("equal", "text", "part")


@attrs.frozen
class Occurrence:
    """One leaf that was found; `leaf` points into the value and `pointer` into the document.

    `inside` points into the JSON in the string at `pointer`, None when the leaf is the value itself. `how` is
    `equal`, `text` (equal except for type or surrounding white space) or `part` (of a longer string).
    """

    leaf: str
    pointer: str
    inside: str | None
    how: str

    def to_json(self) -> dict[str, Any]:
        """Return the occurrence as a JSON object."""
        return fields_json(self)


def telling(value: Any) -> bool:
    """Return whether a scalar is worth searching for."""
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        return False
    return len(value.strip()) > 1 if isinstance(value, str) else abs(value) > 1


def leaves(value: Any) -> dict[str, Any]:
    """Return the leaves of a value that are worth searching for, by pointer, in document order."""
    found: dict[str, Any] = {}
    for tokens, scalar in _scalars(value):
        if telling(scalar):
            found[pointer_of(tokens)] = scalar
            if len(found) == MOST_LEAVES:
                break
    return found


def occurrences(wanted: Mapping[str, Any], document: Any) -> list[Occurrence]:
    """Return the best match of each leaf of `wanted` in a document, in the order of `wanted`."""
    texts: dict[str, list[str]] = {}
    for leaf, value in wanted.items():
        texts.setdefault(_text(value), []).append(leaf)
    long = [text for text in texts if len(text) >= _SHORTEST_PART]
    best: dict[str, Occurrence] = {}

    def note(text: str, place: tuple[str, str | None], how: str) -> None:
        for leaf in texts[text]:
            before = best.get(leaf)
            if before is None or _HOWS.index(how) < _HOWS.index(before.how):
                best[leaf] = Occurrence(leaf, *place, how)

    for place, scalar in _everywhere(document):
        text = _text(scalar)
        if text in texts:
            of_one_type = any(_text_and_type(wanted[leaf]) == _text_and_type(scalar) for leaf in texts[text])
            note(text, place, "equal" if of_one_type else "text")
        if isinstance(scalar, str) and len(scalar) > _SHORTEST_PART:
            for part in long:
                if part != text and part in scalar:
                    note(part, place, "part")
    return [best[leaf] for leaf in wanted if leaf in best]


def _text_and_type(value: Any) -> tuple[str, bool]:
    return (value, True) if isinstance(value, str) else (_text(value), False)


def _text(scalar: Any) -> str:
    return scalar.strip() if isinstance(scalar, str) else json.dumps(scalar)


def _everywhere(document: Any) -> Iterator[tuple[tuple[str, str | None], Any]]:
    """Yield every scalar with its location, including those of embedded JSON."""
    for tokens, scalar in _scalars(document):
        pointer = pointer_of(tokens)
        yield (pointer, None), scalar
        if isinstance(scalar, str) and scalar.lstrip()[:1] in {"{", "["}:
            try:
                inner = json.loads(scalar)
            except (ValueError, RecursionError):
                continue
            for tokens_inside, scalar_inside in _scalars(inner):
                yield (pointer, pointer_of(tokens_inside)), scalar_inside


def _scalars(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    for _ in range(_MOST_NODES):
        if not stack:
            return
        tokens, item = stack.pop()
        if isinstance(item, dict):
            stack.extend(((*tokens, key), item[key]) for key in reversed(item))
        elif isinstance(item, list):
            stack.extend(((*tokens, index), item[index]) for index in reversed(range(len(item))))
        else:
            yield tokens, item
