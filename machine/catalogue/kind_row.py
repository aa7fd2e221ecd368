"""The row of a kind of event in the table of kinds, and the payload class that is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import attrs

from machine.catalogue.registry import Kind, Level

NODE: Final[Mapping[str, Any]] = {"node_id": str}
"""The field for the state's id, which may be left out: the envelope of every event names the state."""

STEP: Final[Mapping[str, Any]] = {"step_id": str}
"""The same field where a state is called a step."""

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class Row(NamedTuple):
    """One kind: its name, the kernel's record of the same happening, one sentence, its fields, and its level."""

    name: str
    kernel: str
    says: str
    required: Mapping[str, Any] = _NONE
    optional: Mapping[str, Any] = _NONE
    level: Level = Level.NORMAL

    def kind(self) -> Kind:
        """Return the kind with its payload class, which is as a class statement would make it."""
        optional = {name: hint if hint is Any else hint | None for name, hint in self.optional.items()}
        body = {
            "__doc__": self.says,
            "__module__": "machine.catalogue",  # where it is imported from
            "__annotations__": {**self.required, **optional},
            **dict.fromkeys(optional),
        }
        name = "".join(word.capitalize() for word in self.name.split("_"))
        return Kind(self.name, attrs.frozen(type(name, (), body)), self.level, kernel=self.kernel)
