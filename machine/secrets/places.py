"""The place of a value in a document: the name that it stands under, and what that says about it."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from machine.secrets.names import Strength
from machine.secrets.rules import Rules

__all__ = ["NAMING", "ROOT", "Place", "path_text", "said_name"]

NAMING: Final = frozenset(("name", "key", "Name", "Key", "header", "field", "variable"))
"""Members of an object that may hold the name of its value."""

_VALUES: Final = frozenset(("value", "Value", "defaultvalue", "default_value"))
"""Members that hold the value of what the object is about."""


class Place(NamedTuple):
    """A step into a document; `name` says something about the value there, and `strength` how much."""

    around: Place | None = None
    step: str | int = ""
    name: str = ""
    strength: Strength = Strength.NONE
    header: bool = False
    """True where the value is that of a header field."""
    headers: bool = False
    """True in an object or a list of header fields."""
    argv: bool = False
    """True in the list of a program's arguments, and for them."""
    login: bool = False
    """True where a user stands with a password behind a colon."""

    def member(self, rules: Rules, key: str, said: str | None = None) -> Place:
        """Return the place of a member of an object; `said` is the name that another member gives it."""
        low = key.lower()
        if self.headers:
            if said is not None and low in _VALUES:
                return Place(self, key, said.lower(), rules.header(said), header=True)
            return Place(self, key, low, rules.header(key), header=True)
        if low in {"headers", "argv"}:
            return Place(self, key, headers=low == "headers", argv=low == "argv")
        if self.around is None and self.name and low == "value":  # what the whole document is about
            return Place(self, key, self.name, self.strength)
        strength = rules.field(key)
        if strength is Strength.NONE:
            if said is not None and low in _VALUES:
                return Place(self, key, said, _strongest(rules, said))
            if self.strength is not Strength.NONE and low in _VALUES:
                return Place(self, key, self.name, self.strength)
            if self.strength is Strength.SEVERAL:
                return Place(self, key, self.name, Strength.EXACT)
        return Place(self, key, key, strength)

    def item(self, rules: Rules, index: int, before: Any) -> Place:
        """Return the place of an item of a list, after the item `before` it."""
        if self.headers:
            if index == 1 and self.step != "headers" and isinstance(before, str):
                return Place(self, index, before.lower(), rules.header(before), header=True)
            return Place(self, index, headers=True)
        if self.argv:
            if not isinstance(before, str) or not before.startswith("-") or "=" in before:
                return Place(self, index, argv=True)
            login = before in {"-u", "--user"}
            strength = rules.field(before) if before.startswith("--") else Strength.NONE
            return Place(self, index, before.lstrip("-"), strength, argv=True, login=login)
        strength = Strength.EXACT if self.strength is Strength.SEVERAL else self.strength
        return Place(self, index, self.name, strength, header=self.header)

    def path(self) -> list[str | int]:
        """Return the steps that lead here."""
        steps: list[str | int] = []
        place: Place | None = self
        while place is not None and place.around is not None:
            steps.append(place.step)
            place = place.around
        return steps[::-1]


ROOT: Final = Place()


def _strongest(rules: Rules, name: str) -> Strength:
    header = rules.header(name)
    return header if header is not Strength.NONE else rules.field(name)


def said_name(members: dict[str, Any]) -> str | None:
    """Return the name that an object with a name and a value gives its value."""
    if _VALUES.isdisjoint(members):
        return None
    return next((members[key] for key in sorted(NAMING) if isinstance(members.get(key), str)), None)


def path_text(steps: list[str | int]) -> str:
    """Return the JSONPath-like name of a value: `$.headers["x-token"]`."""
    parts = ["$"]
    for step in steps:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            parts.append(f".{step}" if step.isidentifier() else f"[{json.dumps(step)}]")
    return "".join(parts)
