"""Documents of names that say nothing and of texts without any sign of a secret: nothing in them is redacted.

Most requests to databases and services are such. To look at each text by itself takes a tenth of following the
places of all of them.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from machine.secrets.names import Strength
from machine.secrets.placeholder import key_escaped
from machine.secrets.rules import Rules
from machine.secrets.running_text import look_at
from machine.secrets.value_places import VALUED

_PLACES: Final = frozenset(("headers", "argv", "base64", "kty", *(name.lower() for name in VALUED)))
"""Members by which other members, or what is in them, may be secret."""

_LONGEST: Final = 4096
"""The most characters that are looked at, since a document that is not plain is looked at again."""


def is_plain_document(rules: Rules, document: Any) -> bool:
    """Tell whether nothing in a document is secret that is not known, by any rule.

    It says no of many a document without a secret, whose places have to be looked at.
    """
    if rules.pointers:
        return False
    todo, left = [document], _LONGEST
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            left -= len(value)
            if left < 0 or not look_at(rules, value).nothing():
                return False
        elif isinstance(value, dict):
            if not all(_says_nothing(rules, name) for name in value):
                return False
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
    return True


@functools.lru_cache(maxsize=4096)
def _says_nothing(rules: Rules, name: str) -> bool:
    """Tell whether the name of a member makes nothing of its value, and is stored as it is."""
    if name.lower() in _PLACES or key_escaped(name) != name:
        return False
    return rules.field(name) is Strength.NONE and look_at(rules, name).nothing()
