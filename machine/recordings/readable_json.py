"""JSON as people review it: one value a line, lines of text one by one, and JSON within text opened.

`lines_of` and `value_of` are inverse to each other for every value that canonical JSON can hold.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from machine import canonical
from machine.errors import MachineError

_DEEPEST: Final = 100
"""The depth up to which a value is written line by line."""

_STYLES: Final[Mapping[str, Callable[[Any], str]]] = {
    "compact": functools.partial(json.dumps, separators=(",", ":"), ensure_ascii=False),
    "compact ascii": functools.partial(json.dumps, separators=(",", ":")),
    "spaced": functools.partial(json.dumps, ensure_ascii=False),
    "spaced ascii": json.dumps,
    "indented 2": functools.partial(json.dumps, indent=2, ensure_ascii=False),
    "indented 2 ascii": functools.partial(json.dumps, indent=2),
    "indented 4": functools.partial(json.dumps, indent=4, ensure_ascii=False),
}
"""Ways in which programs write JSON, by name: the text of a value in each."""

_MARKS: Final = (
    frozenset({"$lines"}),
    frozenset({"$json", "$style"}),
    frozenset({"$json", "$style", "$end"}),
    frozenset({"$canonical"}),
    frozenset({"$object"}),
)
"""The members of the objects that stand for something else."""


def lines_of(value: Any) -> list[str]:
    """Return the lines that a JSON value is written in."""
    shown = {"$canonical": canonical.encode(value).decode()} if _is_deep(value) else _shown(value)
    return json.dumps(shown, indent=2, ensure_ascii=False).split("\n")


def value_of(lines: list[str]) -> Any:
    """Return the JSON value that was written in some lines. Raises `ValueError`."""
    try:
        value = json.loads("\n".join(lines), parse_constant=_refused)
        return _restored(value)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _shown(value: Any) -> Any:
    match value:
        case str():
            return _shown_text(value)
        case list():
            return [_shown(item) for item in value]
        case dict():
            shown = {key: _shown(item) for key, item in value.items()}
            return {"$object": shown} if value.keys() in _MARKS else shown
        case _:
            return value


def _shown_text(text: str) -> Any:
    body = text.rstrip("\n")
    if body[:1] in ("{", "[") and body[-1:] in ("}", "]") and len(body) > len("{}"):
        found = _as_json(body)
        if found is not None:
            value, style = found
            shown = {"$json": value, "$style": style}
            return shown if body == text else {**shown, "$end": text[len(body) :]}
    if "\n" in text[:-1]:
        *lines, last = text.split("\n")  # not `splitlines`, which splits at more than line feeds
        return {"$lines": [*(line + "\n" for line in lines), *([last] if last else [])]}
    return text


def _as_json(text: str) -> tuple[Any, str] | None:
    """Return the value of a text and the style in which a program wrote it, or None for any other text."""
    try:
        value = json.loads(text, parse_constant=_refused)
        if _is_deep(value):
            return None
        json.dumps(value, ensure_ascii=False).encode()
        return next(((value, name) for name, write in _STYLES.items() if write(value) == text), None)
    except (ValueError, RecursionError):
        return None


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _restored(value: Any) -> Any:
    match value:
        case list():
            return [_restored(item) for item in value]
        case {"$lines": list(lines)} if len(value) == 1 and all(isinstance(line, str) for line in lines):
            return "".join(lines)
        case {"$json": held, "$style": str(style), **rest} if style in _STYLES and value.keys() in _MARKS:
            return _STYLES[style](held) + str(rest.get("$end", ""))
        case {"$canonical": str(text)} if len(value) == 1:
            try:
                return canonical.decode(text.encode())
            except MachineError as exc:
                raise ValueError(str(exc)) from None
        case {"$object": dict(members)} if len(value) == 1:
            return {key: _restored(item) for key, item in members.items()}
        case dict():
            return {key: _restored(item) for key, item in value.items()}
        case _:
            return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True
