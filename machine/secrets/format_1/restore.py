"""Replacing placeholders by their values, just before a request leaves the process.

A value is encoded as its place asks for: escaped in JSON, percent-encoded in a URL or a form, in base64, or not at
all. Nothing here stores a value.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote, quote_plus

from machine.secrets.format_1.encodings import escaped
from machine.secrets.format_1.placeholder import EITHER_PLACEHOLDER, MARK, is_placeholder

MOST_NESTED: Final = 4
"""The depth to which a secret may contain others, such as a token in a header that is secret as a whole."""

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BASE64: Final = re.compile(r"(?:(?P<scheme>[Bb]asic) +)?(?P<data>[A-Za-z0-9+/]{24,}={0,2})")


class Value(NamedTuple):
    """The text that a placeholder stands for; `verbatim` when it is encoded already as its place asks for."""

    text: str
    verbatim: bool = False


Find: TypeAlias = Callable[[str, str], Value | None]
"""Function from the name and hash of a placeholder to its value; None leaves the placeholder."""


def restored(value: Any, find: Find) -> Any:
    """Return a JSON value with the values of its placeholders; its containers are changed in place."""
    root = [value]
    todo: list[Any] = [root]
    while todo:
        container = todo.pop()
        for step, item in list(container.items() if isinstance(container, dict) else enumerate(container)):
            if isinstance(item, str):
                container[step] = _text(item, find)
            elif is_placeholder(item):
                found = find(item[MARK], item["mac"])
                container[step] = item if found is None else _text(found.text, find)
            elif isinstance(item, dict | list):
                todo.append(item)
            if isinstance(step, str) and "secret" in step and _text(step, find) != step:
                container[_text(step, find)] = container.pop(step)
        if isinstance(container, dict) and len(container) == 1 and isinstance(container.get("base64"), str):
            container["base64"] = _packed(container["base64"], find)
    return root[0]


def _text(text: str, find: Find, depth: int = 0) -> str:
    if depth > MOST_NESTED:
        return text
    if "secret" in text:
        url = _URL.match(text) is not None
        query = text.find("?") if url else -1

        def put(found: re.Match[str]) -> str:
            quoted = found["quoted_name"] is not None
            value = find(found["quoted_name"] or found["name"], found["quoted_mac"] or found["mac"])
            if value is None:
                return found[0]
            inner = _text(value.text, find, depth + 1)
            if value.verbatim:
                return inner
            if quoted:
                return quote_plus(inner)
            if url:
                user_info = text.startswith("@", found.end()) or text.startswith(":", found.end())
                in_path = not user_info and not 0 <= query < found.start()
                return quote(inner, safe="/" if in_path else "")
            return escaped(inner, len(found["slashes"]).bit_length())

        return EITHER_PLACEHOLDER.sub(put, text)
    packed = _BASE64.fullmatch(text)
    if packed is not None and (data := _packed(packed["data"], find, depth)) != packed["data"]:
        return f"{packed['scheme']} {data}" if packed["scheme"] else data
    return text


def _packed(text: str, find: Find, depth: int = 0) -> str:
    """Return base64 with the placeholders in the decoded bytes replaced."""
    try:
        data = base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return text
    if "$secret" not in data:
        return text
    return base64.b64encode(_text(data, find, depth + 1).encode("utf-8", "surrogatepass")).decode()
