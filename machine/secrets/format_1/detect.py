"""Finding what is secret without changing it: where it stands, what it is called, how long it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from machine.secrets.format_1.handle import handle_text, safe_name
from machine.secrets.format_1.redact import Hide, Veil
from machine.secrets.format_1.rules import Rules
from machine.secrets.policy import path_text

__all__ = ["Found", "found"]

_NOBODY = "0" * 32


@attrs.frozen
class Found:
    """A secret that was found: never its value. `rule` is the name it stands under or that of its pattern."""

    path: str
    rule: str
    length: int
    at: int = 0
    """Where it stands in a value that is one text; 0 when it stands there in another form."""
    known: bool = False
    """True when its value is known to be secret, whatever it stands under."""
    handle: bool = False
    """True when it is a handle, which stands for a secret and holds none."""


def found(rules: Rules, value: Any, replace: Callable[[str, Hide], str] | None = None) -> list[Found]:
    """Return the secrets and the handles in a JSON value, in the order they are met; the value is used up.

    `replace` puts something else in the place of values that are known.
    """
    whole, seen = value, list[Found]()

    def note(name: str, text: str, *, known: bool = False) -> str:
        at = max(whole.find(text), 0) if isinstance(whole, str) else 0
        seen.append(Found(path_text(veil.at), name, len(text), at, known))
        return handle_text(safe_name(name), _NOBODY)

    def known(text: str) -> str:
        return text if replace is None else replace(text, lambda name, item: note(name, item, known=True))

    def met(name: str) -> None:
        seen.append(Found(path_text(veil.at), name, 0, handle=True))

    veil = Veil(rules, note, known, known_first=True, met=met)
    veil.value(value)
    return seen
