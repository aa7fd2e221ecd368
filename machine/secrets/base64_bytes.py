"""Bytes in JSON (`{"base64": ...}`) that are no text or have parts, and placeholders within them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from machine.secrets.multipart import Part, may_have_parts, parts
from machine.secrets.placeholder import source_of
from machine.secrets.redacted_text import Marked


class Packed(NamedTuple):
    """Bytes, their base64 as it was given, and their parts if they are a multipart body."""

    text: str
    data: bytes
    parts: list[Part]

    def is_canonical(self) -> bool:
        """Tell whether encoding the bytes gives the same base64 again."""
        return base64.b64encode(self.data).decode() == self.text


def packed_bytes(value: Mapping[str, Any]) -> Packed | None:
    """Return the bytes that an object of JSON stands for; None if it is another object, or they are plain text."""
    text = value.get("base64") if len(value) == 1 else None
    if not isinstance(text, str):
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    as_chars = data.decode("latin-1")
    found = list(parts(as_chars)) if may_have_parts(as_chars) else []
    return Packed(text, data, found) if found or not _is_text(data) else None


class MarkedBytes:
    """Bytes in which parts were replaced by placeholders; `cuts` has these, with the true bytes as latin-1."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.cuts: list[tuple[int, int, str]] = []

    def add(self, marked: Marked, codec: str) -> None:
        """Append a text with placeholders, encoded."""
        at = 0
        for cut in marked.cuts:
            self.data += marked.text[at : cut.begin].encode(codec)
            begin = len(self.data)
            self.data += marked.text[cut.begin : cut.end].encode()
            self.cuts.append((begin, len(self.data), cut.true.encode(codec).decode("latin-1")))
            at = cut.end
        self.data += marked.text[at:].encode(codec)

    def whole(self) -> bool:
        """Tell whether the bytes are exactly one placeholder."""
        return len(self.cuts) == 1 and self.cuts[0][:2] == (0, len(self.data))

    def first(self) -> str:
        """Return the source of the first placeholder."""
        begin, end, _ = self.cuts[0]
        return source_of(self.data[begin:end].decode()) or "value"

    def stored(self) -> tuple[str, str, dict[str, Any]]:
        """Return the key and the text under which these bytes are stored, and the edit that restores them."""
        edit = {"bytes": [list(cut) for cut in self.cuts]}
        if _is_text(self.data):  # as text, which they are to who has no key
            return "text", self.data.decode(), {**edit, "text": True}
        return "base64", base64.b64encode(self.data).decode(), edit


def as_text(stored: str, edit: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
    """Return stored bytes as latin-1 and their placeholders in order, given the edit that restores them."""
    data = stored.encode() if edit.get("text") else base64.b64decode(stored)
    return data.decode("latin-1"), edit["bytes"]


def _is_text(data: bytes | bytearray) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
