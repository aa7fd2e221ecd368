"""The spelling of a placeholder, which is stored in place of a secret, and how to recognise one in other text.

A placeholder names the source of a secret, never its value. As a whole leaf of JSON it is an object
(`{"$secret": "API_KEY"}`); within text it is a word (`__secret_API_KEY__`) of characters that no format escapes.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final

MARK: Final = "$secret"
"""The only key of a placeholder object, or the first of two with `type`."""

BEGIN: Final = "__secret_"
"""The characters that every placeholder in running text begins with."""

SOURCE: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")

# Possessive, and `__` ends it: a text is looked at once, whatever is in it.
TEXT: Final = re.compile(r"__secret_((?:[A-Za-z0-9]|-[0-9A-F]{2}|_(?!_)){1,384}+)__")
"""Finds placeholders in running text; group 1 is the escaped source."""

_TO_ESCAPE: Final = re.compile(r"[.-]|^_|_$|(?<=_)_|_(?=_)")
_ESCAPED: Final = re.compile(r"-([0-9A-F]{2})")
_ESCAPED_KEY: Final = re.compile(r"\$+secret")
_FORBIDDEN: Final = re.compile(r"[^A-Za-z0-9_.-]+")


def text_of(source: str) -> str:
    """Return the placeholder of a source for running text."""
    return f"__secret_{_TO_ESCAPE.sub(lambda found: f'-{ord(found[0]):02X}', source)}__"


def source_of(text: str) -> str | None:
    """Return the source when the whole text is a placeholder that `text_of` could have written."""
    found = TEXT.fullmatch(text)
    if found is None:
        return None
    source = _ESCAPED.sub(lambda escape: chr(int(escape[1], 16)), found[1])
    return source if SOURCE.fullmatch(source) and text_of(source) == text else None


def sources_in(stored: Any) -> list[str]:
    """Return the sources that a stored document names, each once, in the order of its walk."""
    found: dict[str, None] = {}
    todo = [stored]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            if BEGIN in value:
                found |= {source: None for text in TEXT.finditer(value) if (source := source_of(text[0]))}
        elif isinstance(value, list):
            todo += reversed(value)
        elif isinstance(value, dict):
            if typed := typed_source(value):
                found[typed[0]] = None
            else:
                todo += [item for member in reversed(value.items()) for item in reversed(member)]
                if value.keys() == {"base64"}:
                    todo.append(_text_in(value["base64"]))
    return list(found)


def _text_in(packed: Any) -> str:
    """Return bytes that are packed as base64 as text in which placeholders can be found."""
    try:
        return base64.b64decode(packed, validate=True).decode("latin-1")
    except (TypeError, ValueError):
        return ""


def source_from(place: str) -> str:
    """Return a source made of the name of a place: without the characters that a source may not have."""
    return _FORBIDDEN.sub("_", place)[:128] or "value"


def object_of(source: str, kind: str | None = None) -> dict[str, str]:
    """Return the placeholder of a whole leaf; `kind` is the JSON type of one that is no text."""
    return {MARK: source} if kind is None else {MARK: source, "type": kind}


def typed_source(value: Any) -> tuple[str, str | None] | None:
    """Return the source and the kind (None: text) of a placeholder object, None for any other value."""
    if type(value) is not dict or MARK not in value:
        return None
    return value[MARK], value.get("type")


def key_escaped(key: str) -> str:
    """Return the stored form of an object key, so that a stored `$secret` always marks a placeholder."""
    return f"${key}" if _ESCAPED_KEY.fullmatch(key) else key


def key_unescaped(key: str) -> str:
    """Return an object key from its stored form."""
    return key[1:] if _ESCAPED_KEY.fullmatch(key) else key
