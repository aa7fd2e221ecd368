"""The look of a value: whether it could be a credential, or is a word, a number, a date or a path."""

from __future__ import annotations

import functools
import re
from collections import Counter
from math import log2
from typing import Final

from machine.secrets.encodings import is_plain

__all__ = ["looks_like_credential", "looks_strong"]

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.*)?", re.DOTALL)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s@]*")
_NUMBER: Final = re.compile(r"[-+]?[0-9][0-9.,_ ]*(?:[eE][-+]?[0-9]+)?%?")
_PATH: Final = re.compile(r"(?:[~.]{0,2}/|[A-Za-z]:\\)[\w./\\ -]*")
_WORDY: Final = re.compile(r"[A-Za-z]+(?:[ _./:-]+[A-Za-z]+)*[.!?]?")
_LONGEST: Final = 16_384


def looks_like_credential(value: str) -> bool:
    """Tell whether the value of a name that says "secret" looks like one."""
    return _looks(value, 6, 1.9) if len(value) <= _LONGEST else True


def looks_strong(value: str) -> bool:
    """Tell whether a value looks like a credential so much that a name need not say much."""
    if not (20 <= len(value) <= _LONGEST) or _UUID.fullmatch(value) or not _looks(value, 20, 3.2):
        return False
    classes = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return classes >= 2


@functools.lru_cache(maxsize=4096)
def _looks(value: str, least: int, entropy: float) -> bool:
    if len(value) < least or is_plain(value) or any(char.isspace() for char in value):
        return False
    for shape in (_DATE, _URL, _NUMBER, _PATH, _WORDY):
        if shape.fullmatch(value):
            return False
    return _bits(value) >= entropy


def _bits(value: str) -> float:
    """Return the entropy of the characters of a value, in bits each."""
    total = len(value)
    return -sum(count / total * log2(count / total) for count in Counter(value).values())
