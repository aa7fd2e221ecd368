"""Known values in all the forms in which a program may write them, and the search for these in a text."""

from __future__ import annotations

import base64
import functools
import html
import json
import re
from typing import Final, NamedTuple
from urllib.parse import quote, quote_plus

SEARCHED_ANYWHERE: Final = 8
"""The length from which a value is searched for in every form; a shorter one only unencoded, as a whole word."""

_LEVELS: Final = 4
"""The depth to which JSON texts within JSON texts are searched."""

_ESCAPERS: Final = (
    ("/", "\\/"),
    ("&<>", "\\u{:04x}"),
    ("&<>='", "\\u{:04x}"),
    ("&<>+'`\"", "\\u{:04X}"),
)
"""Characters that encoders of JSON escape without need, and how: those of PHP; of Go and Ruby; of Java; of .NET."""

_LONGEST_ENCODED: Final = 1 << 16
_WORD: Final = 16
_LEAST: Final = 4
_NO_SECRETS: Final = frozenset({"", "true", "false", "null", "none", "undefined", "nil", "nan"})


class Forms(NamedTuple):
    """The written forms of one value; each is searched for in its own way."""

    texts: tuple[str, ...]
    """Unencoded, escaped in JSON and percent-encoded; the longest first."""
    base64: tuple[str, ...]
    """Pieces of base64, one for each alignment: any base64 text with the value in it has one of them."""
    short: bool
    """True for a value that counts only as a whole word."""

    def all(self) -> tuple[str, ...]:
        """Return the forms of every kind."""
        return self.texts + self.base64


def is_escaped(value: str) -> bool:
    """Tell whether JSON has to write some character of a value as an escape."""
    return not (value.isascii() and value.isprintable()) or '"' in value or "\\" in value


def is_plain(value: str) -> bool:
    """Tell whether a value could be innocent text anywhere: it is never searched for within other text."""
    if len(value) < _LEAST or value.strip().lower() in _NO_SECRETS:
        return True
    if value.isdecimal():
        return len(value) < SEARCHED_ANYWHERE
    letters = value.isalpha() and (value.islower() or value.isupper() or value.istitle())
    return (letters and len(value) < _WORD) or value.isspace() or value.count(value[0]) == len(value)


def forms_of(value: str) -> Forms:
    """Return the forms of a value that is not plain; of a very long one, only unencoded and escaped in JSON."""
    if len(value) > _LONGEST_ENCODED:
        return Forms((json.dumps(value)[1:-1], value), (), short=False)
    return _forms_of(value)


@functools.lru_cache(maxsize=4096)
def _forms_of(value: str) -> Forms:
    if len(value) < SEARCHED_ANYWHERE:
        return Forms(_texts(value), (), short=True)
    data = value.encode("utf-8", "surrogatepass")
    texts = (*_texts(value), data.hex(), data.hex().upper())
    return Forms(tuple(dict.fromkeys(texts)), base64_forms(data), short=False)


def _texts(value: str) -> tuple[str, ...]:
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    escaped |= {_escaped(text, *how) for text in escaped for how in _ESCAPERS} | {repr(value)[1:-1]}
    forms = {value, html.escape(value), html.escape(value, quote=False)}
    for _ in range(_LEVELS):
        forms |= escaped
        escaped = {json.dumps(text, ensure_ascii=False)[1:-1] for text in escaped}
    try:
        quoted = {
            quote(value, safe=""),
            quote(value),
            quote_plus(value),
            quote(value, safe="/:@!$&'()*+,;=~"),
        }
        forms |= quoted | {_small(text) for text in quoted}
        forms |= {quote(text, safe="") for text in quoted}
        forms.add(value.encode().decode("latin-1"))
    except UnicodeEncodeError:  # a lone surrogate has no bytes
        pass
    return tuple(sorted(forms, key=lambda text: (-len(text), text)))


def _escaped(text: str, characters: str, escape: str) -> str:
    """Return the inside of a JSON string with further characters escaped."""
    for character in characters:
        text = text.replace('\\"' if character == '"' else character, escape.format(ord(character)))
    return text


def _small(quoted: str) -> str:
    """Return percent-encoded text with its hex digits in lower case."""
    return re.sub("%..", lambda found: found[0].lower(), quoted)


def base64_forms(data: bytes) -> tuple[str, ...]:
    """Return pieces of base64, one for each alignment: any base64 of bytes that hold these has one of them."""
    forms: dict[str, None] = {}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).decode()
        # without the characters that hold bits of what stands before or after
        sure = encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        quoted = quote(sure, safe="")
        spellings = (sure, sure.replace("+", "-").replace("/", "_"), quoted, _small(quoted))
        forms |= dict.fromkeys(spellings)
    return tuple(forms)
