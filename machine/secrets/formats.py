"""Credentials that can be told by their shape alone, wherever they stand in a text."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["FORMATS", "Format", "format_of"]


class Format(NamedTuple):
    """A shape; one of `needles` is in every text that matches, and group 1, if there is one, is the secret."""

    name: str
    regex: re.Pattern[str]
    needles: tuple[str, ...]


def _format(name: str, regex: str, *needles: str) -> Format:
    return Format(name, re.compile(regex), needles)


# A match begins only where no character of its kind stands before it, and quantifiers are possessive or bounded:
# each character is looked at a bounded number of times, whatever the text.
FORMATS: Final = (
    _format(
        "private_key",
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----[^-]*+(?:-(?!----END )[^-]*+)*+",
        "-----BEGIN ",
    ),
    _format("aws_access_key_id", r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])", "AKIA", "ASIA"),
    _format(
        "github_token",
        r"(?<![A-Za-z0-9_])(?:gh[pousr]_[A-Za-z0-9]{36,255}+|github_pat_[A-Za-z0-9_]{22,255}+)",
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    _format("openai_key", r"(?<![A-Za-z0-9_-])sk-(?=[A-Za-z_-]{0,200}+\d)[A-Za-z0-9_-]{20,255}+", "sk-"),
)


def format_of(text: str) -> str | None:
    """Return the name of the format that a text as a whole has, None for any other text."""
    text = text.strip()
    for name, regex, needles in FORMATS:
        if any(needle in text for needle in needles):
            found = regex.search(text)
            if found is not None and found.start() == 0:
                return name
    return None
