"""The encoded forms of a value: percent-encoded, escaped in JSON, in base64 among other bytes.

Pure. A form can be found in text and in encoded bytes.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Final
from urllib.parse import quote, quote_plus

SHORTEST_CORE: Final = 8
"""The shortest piece of base64 that is searched for: a shorter one could occur by chance."""

_OCTET: Final = re.compile(r"%[0-9A-F]{2}")
_RUN: Final = re.compile(r"[A-Za-z0-9+/_-]*")


def escaped(text: str, times: int, *, to_ascii: bool = False) -> str:
    """Return a text escaped as in a JSON string, `times` times over."""
    for _ in range(times):
        text = json.dumps(text, ensure_ascii=to_ascii)[1:-1]
    return text


def encoded(value: str) -> tuple[str, ...]:
    """Return the forms of a value, the value first: escaped once and twice in JSON, percent-encoded."""
    raw = value.encode("utf-8", "surrogatepass")
    quoted = [quote(raw, safe=""), quote(raw), quote_plus(raw)]
    lower = [_OCTET.sub(lambda found: found[0].lower(), form) for form in quoted]
    in_json = [escaped(value, times, to_ascii=to_ascii) for to_ascii in (False, True) for times in (1, 2)]
    in_json.append(escaped(escaped(value, 1, to_ascii=True), 1))
    forms = [value, *in_json, *quoted, *lower]
    forms.append(raw.decode("latin-1"))  # as bytes that are read as they are
    return tuple(dict.fromkeys(forms))


def cores(value: str) -> tuple[str, ...]:
    """Return pieces of base64, one for each alignment: the base64 of any bytes with the value has one of them."""
    raw = value.encode("utf-8", "surrogatepass")
    found: list[str] = []
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + raw).decode().rstrip("=")
        begin = -(-offset * 8 // 6)
        end = (offset + len(raw)) * 8 // 6
        core = text[begin:end]
        if len(core) >= SHORTEST_CORE:
            found += core, core.translate(str.maketrans("+/", "-_"))
    return tuple(dict.fromkeys(found))


def spans(text: str, core: str) -> list[tuple[int, int]]:
    """Return the offsets (begin, end) of the runs of base64 in a text that hold a core."""
    found: list[tuple[int, int]] = []
    at = text.find(core)
    while at >= 0:
        begin = at
        while begin and _RUN.fullmatch(text[begin - 1]):
            begin -= 1
        run = _RUN.match(text, at + len(core))
        end = run.end() if run else at + len(core)
        while end < len(text) and text[end] == "=":
            end += 1
        found.append((begin, end))
        at = text.find(core, end)
    return found
