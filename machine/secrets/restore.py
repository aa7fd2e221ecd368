"""Substitution in stored documents: true values for placeholders, or without the key, text for them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from machine.secrets.base64_bytes import as_text
from machine.secrets.placeholder import MARK, key_unescaped, text_of, typed_source

_NO_TEXT: Final = b"\xff"
"""A byte that never occurs in UTF-8, so that bytes with it stay bytes."""


class SecretNeeded(Exception):  # noqa: N818 - no failure of its own: the engine makes a divergence of it
    """A sealed number is needed and text cannot replace it; `source` is the name of the secret."""

    def __init__(self, source: str) -> None:
        super().__init__(f"the value of {source} is needed")
        self.source = source


def keys_in_order(members: Mapping[str, Any]) -> list[str]:
    """Return the keys of an object in canonical order (RFC 8785 section 3.2.3)."""
    if all(map(str.isascii, members)):
        return sorted(members)
    return sorted(members, key=lambda key: key.encode("utf-16-be", "surrogatepass"))


def opened(stored: Any, edits: Sequence[Any]) -> Any:
    """Return the true document, the input of `redact`. Nothing is changed in place.

    An edit is a pair: the number of a node, and its new value or the texts for parts of it.
    Nodes are numbered in a preorder walk of the stored document in canonical order; each key and each value counts.
    """
    by_node = dict(edits)

    def leaf(node: int, value: Any, _: Any = None) -> Any:
        change = by_node.get(node)
        if change is None:
            return value
        if not isinstance(change, dict):
            return _with_true_texts(value, change)
        if "value" in change:
            return change["value"]
        data = _with_true_texts(*as_text(value, change)).encode("latin-1")
        return base64.b64encode(data).decode()

    return _rebuilt(stored, leaf)


def shown(stored: Any, *, typed: bool = False) -> Any:
    """Return a stored document as a handler gets it without the key: each placeholder is text.

    Sealed bytes are shown as bytes that are not UTF-8. Raises `SecretNeeded` for a sealed number, unless what is
    `typed` is to be text too.
    """

    def leaf(_: int, value: Any, step: Any = None) -> Any:
        found = typed_source(value)
        if found is None:
            return value
        source, kind = found
        if kind is not None and not typed:
            raise SecretNeeded(source)
        text = text_of(source)
        return base64.b64encode(text.encode() + _NO_TEXT).decode() if step == "base64" else text

    return _rebuilt(stored, leaf)


def _with_true_texts(text: str, parts: Sequence[Sequence[Any]]) -> str:
    pieces: list[str] = []
    at = 0
    for begin, end, true in parts:
        pieces += text[at:begin], true
        at = end
    return "".join((*pieces, text[at:]))


def _rebuilt(stored: Any, leaf: Callable[..., Any]) -> Any:
    """Return a copy of a stored document in which `leaf` replaces keys and leaves."""
    node = 0
    root: list[Any] = [None]
    todo: list[tuple[Any, Any, Any]] = [(root, 0, stored)]
    while todo:
        into, step, value = todo.pop()
        if isinstance(into, dict):
            key = leaf(node, step)
            step = key_unescaped(step) if key == step else key
            node += 1
        if isinstance(value, dict) and MARK not in value:
            new: Any = {}
            todo += [(new, key, value[key]) for key in reversed(keys_in_order(value))]
        elif isinstance(value, list):
            new = [None] * len(value)
            todo += [(new, index, value[index]) for index in range(len(value) - 1, -1, -1)]
        else:
            new = leaf(node, value, step)
        into[step] = new
        node += 1
    return root[0]
