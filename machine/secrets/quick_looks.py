"""Quick looks at the sign behind a name and at the beginning of its value, which skip most of them."""

from __future__ import annotations

import re
from typing import Final

from machine.secrets.credential_looks import is_masked, looks_issued, looks_like_credential, may_look_strong
from machine.secrets.names import Strength

LONGEST_PHRASE: Final = 200
"""The most characters of several words in which one is looked for that is a credential."""

_BLANK: Final = frozenset(("", "is", "was", "(", "-", "--"))

OF_HEADERS: Final = frozenset(":,")
"""Between the name of a header field and its value."""

_MAY_BE_STRONG: Final = re.compile(
    r"[|>\[{(]|<!\[CDATA\[|[bBuUrRfFnN@]{0,2}\\{0,15}+[\"'`]?+"
    r"(?!(?:[0-9a-f-]++|[0-9A-F-]++)(?![\w.~+/=|:\\]))[A-Za-z0-9_.~+/=|:\\-]{20}"
)
"""The beginning of a value that a weak name makes a secret."""


def may_be_strong(name: str, text: str, at: int) -> bool:
    """Tell by its beginning whether a value may be a secret under a weak name; of a token hexadecimal is."""
    return name.lower() == "token" or _MAY_BE_STRONG.match(text, at) is not None


def is_phrase(strength: Strength, sep: str, value: str) -> bool:
    """Tell whether a value of several words has one that looks like a credential: `password='it is x'`."""
    if (
        strength is not Strength.EXACT
        or sep.strip() != "="
        or len(value) > LONGEST_PHRASE
        or is_masked(value)
    ):
        return False
    return " " in value and any(map(looks_like_credential, value.split()))


def is_blank(sep: str) -> bool:
    """Tell whether no sign parts a name and a value: `password x`, `the key of the shop is x`."""
    return sep.strip() in _BLANK or sep.rstrip().endswith((" is", " was", " to"))


def is_tag(sep: str) -> bool:
    """Tell whether the text after a name ends the tag that begins with the name."""
    return sep.endswith(">") and "<" not in sep and sep.strip() not in {"=>", "->"}


def may_count(value: str) -> bool:
    """Tell whether a value has to be looked at closely under a weak name."""
    return may_look_strong(value) or looks_issued(value)
