"""Finding secrets without changing the document: their path, their name and their length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from machine.secrets.format_1.placeholder import placeholder_text, safe_name
from machine.secrets.format_1.redact import Hide, Redactor
from machine.secrets.format_1.rules import Rules
from machine.secrets.policy import path_text

__all__ = ["Found", "found"]

_NOBODY = "0" * 32


@attrs.frozen
class Found:
    """A secret that was found, without its value. `rule` is the name it stands under or that of its pattern."""

    path: str
    rule: str
    length: int
    at: int = 0
    """The offset of the secret in a value that is one text; 0 when it is there in an encoded form."""
    known: bool = False
    """True when its value is known to be secret, whatever its name."""
    placeholder: bool = False
    """True when it is a placeholder, which stands for a secret and holds none."""


def found(rules: Rules, value: Any, replace: Callable[[str, Hide], str] | None = None) -> list[Found]:
    """Return the secrets and the placeholders in a JSON value, in the order of the walk; the value is modified.

    `replace` replaces known values in a text.
    """
    whole, seen = value, list[Found]()

    def note(name: str, text: str, *, known: bool = False) -> str:
        at = max(whole.find(text), 0) if isinstance(whole, str) else 0
        seen.append(Found(path_text(redactor.at), name, len(text), at, known))
        return placeholder_text(safe_name(name), _NOBODY)

    def known(text: str) -> str:
        return text if replace is None else replace(text, lambda name, item: note(name, item, known=True))

    def met(name: str) -> None:
        seen.append(Found(path_text(redactor.at), name, 0, placeholder=True))

    redactor = Redactor(rules, note, known, known_first=True, met=met)
    redactor.value(value)
    return seen
