"""The look of a value: whether it could be a credential, or is a word, a number, a date or a path."""

from __future__ import annotations

import functools
import re
from collections import Counter
from math import log2
from typing import Final

from machine.secrets.encodings import is_plain

__all__ = ["is_masked", "looks_like_credential", "looks_strong"]

_LONGEST: Final = 4096
_SHORTEST: Final = 6
_SHORTEST_STRONG: Final = 20
_LEAST_BITS: Final = 2.0
_LEAST_BITS_STRONG: Final = 3.3
_LONGEST_COUNT: Final = 4
"""Digits that stand for themselves within words: `step-1`, `min:8`, `photo-2024`."""

_INNOCENT: Final = re.compile(
    r"""
      (?P<date>\d{4}-\d\d?-\d\d?(?:[T ]\d\d:\d\d.*)?)
    | (?P<number>[-+]?[0-9][0-9.,_ ]*(?:[eE][-+]?[0-9]+)?\s?%?)
    | (?P<url>[A-Za-z][A-Za-z0-9+.-]*://[^\s@]*)
    | (?P<path>(?:[~.]{0,2}/|[A-Za-z]:\\)[\w.@:/\\ -]*)
    | (?P<email>[\w.+-]+@[\w-]+(?:\.[A-Za-z]{2,})+)
    | (?P<version>v?\d+(?:\.\d+)+(?:[-+][\w.]+)?)
    | (?P<title>-{3,}BEGIN[ A-Z.]*)
    | (?P<variable>\$\{[^{}]*\} | \$\{?\{?[\w.: -]+\}{0,2} | %\w+% | \{\{?[^{}]*\}?\} | <[^<>]*>
        | \[[^\[\]]*\] | \([^()]*\))
    | (?P<masked>[*•.xX#?_-]+\w{0,4})
    | (?P<call>[A-Za-z_][\w.]*(?:\(.*|\[.*))
    | (?P<arn>arn:[\w:/.*!-]+)
    | (?P<rules>(?:[a-z_]+(?::[^|]*)?\|)+[a-z_]+(?::.*)?)
    | (?P<pattern>/?\^.*\$/?\w* | .*\(\?[=!:<].*)
    | (?P<type>(?i:u?int|bytes|float|char|varchar|string|blob|uuid)\d{1,3})
    | (?P<algorithm>(?i:(?:hmac|pbkdf2|rsa|ecdsa)?[-_]?(?:with[-_])?
            (?:md5|sha[-_]?\d+|sha3[-_]?\d+|blake\w{1,4})(?:with\w{1,9})?
        |argon2(?:id|i|d)?|bcrypt\d*|scrypt\d*|utf-?\d+|base\d\d|[rehp]s\d{3}|aes[-_]?\d+(?:[-_]\w{1,9})?|oauth\d\w{0,9}
        |x\.?509|ed\d+|p-?\d{3}|secp\d+\w\d|iso[-_]?\d+[-_]?\d*))
    """,
    re.VERBOSE | re.DOTALL,
)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_HEX: Final = re.compile(r"(?:sha\d+[:=-])?(?:[0-9a-f]+|[0-9A-F]+)")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=|:-]+")
_PIECES: Final = re.compile(r"[^\W_]+")
_CAMEL: Final = re.compile(r"[A-Z]?[a-z]{2,}+(?:[A-Z][a-z]++|[A-Z]{2,4}+)*+|[A-Z]{2,}|[A-Z]?[a-z]")
_TURN: Final = re.compile(
    r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[A-Z])(?=[a-z])"
)


def looks_like_credential(value: str) -> bool:
    """Tell whether a value, under a name that says that it is secret, looks like one."""
    return " " not in value if len(value) > _LONGEST else _looks(value)


@functools.lru_cache(maxsize=8192)
def _looks(value: str) -> bool:
    if len(value) < _SHORTEST or is_plain(value) or any(map(str.isspace, value)):
        return False
    if sum(char.isascii() and char.isalnum() for char in value) < _SHORTEST - 1:
        return False
    if _INNOCENT.fullmatch(value) or _is_wordy(value):
        return False
    return _bits(value) >= _LEAST_BITS


def is_masked(value: str) -> bool:
    """Tell whether a value stands for one that is not shown: `***`, `xxxxx`, `<password>`, `${PASSWORD}`."""
    found = _INNOCENT.fullmatch(value)
    return found is not None and found.lastgroup in {"masked", "variable"}


def looks_strong(value: str) -> bool:
    """Tell whether a value looks like a credential so much that its name need not say much.

    Long, of many characters, letters and digits mixed as no words, numbers or hashes have them.
    """
    if not _SHORTEST_STRONG <= len(value) <= _LONGEST or _UUID.fullmatch(value) or _HEX.fullmatch(value):
        return False
    if not _TOKEN.fullmatch(value) or not _looks(value) or _bits(value) < _LEAST_BITS_STRONG:
        return False
    return any(_is_random(piece) for piece in _PIECES.findall(value))


def _is_random(piece: str) -> bool:
    """Tell whether letters and digits are mixed in a long piece as nobody writes them."""
    return len(piece) >= _SHORTEST_STRONG - 4 and len(_TURN.findall(piece)) * 5 >= len(piece)


def _is_wordy(value: str) -> bool:
    """Tell whether a value is of words: `required|min:8`, `change-me-1`, `PasswordField`."""
    pieces = _PIECES.findall(value)
    words = [piece for piece in pieces if not piece.isdecimal()]
    if not words or any(len(piece) > _LONGEST_COUNT for piece in pieces if piece.isdecimal()):
        return False
    if len(value) - sum(map(len, pieces)) > 2 * len(pieces):  # mostly signs
        return False
    signs = _IN_WORDS if "/" not in value else _IN_PATHS
    return all(_CAMEL.fullmatch(word) for word in words) and set(value) <= signs.union(*words, *pieces)


_IN_WORDS: Final = frozenset(" _./:|,;=-'?!()")
_IN_PATHS: Final = _IN_WORDS | frozenset("#@*+")


def _bits(value: str) -> float:
    """Return the entropy of the characters of a value, in bits each."""
    total = len(value)
    return -sum(count / total * log2(count / total) for count in Counter(value).values())
