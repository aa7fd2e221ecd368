"""The difference of two JSON values as a list of leaves, each named by its JSON Pointer (RFC 6901)."""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs

__all__ = ["Change", "diff"]

_ABSENT: Final = object()


@attrs.frozen
class Change:
    """One leaf or subtree that differs: `pointer` names it; an absent side is None with `kind` saying so."""

    pointer: str
    kind: Literal["changed", "added", "removed"]
    recorded: Any
    now: Any

    def to_json(self) -> dict[str, Any]:
        """Return the change as a JSON object; an absent side is left out."""
        sides = {"recorded": self.recorded, "now": self.now}
        if self.kind == "added":
            del sides["recorded"]
        if self.kind == "removed":
            del sides["now"]
        return {"pointer": self.pointer, "kind": self.kind, **sides}


def diff(recorded: Any, now: Any, *, most: int = 50) -> list[Change]:
    """Return the changes that lead from `recorded` to `now`, at most `most`, in document order."""
    changes: list[Change] = []
    stack: list[tuple[str, Any, Any]] = [("", recorded, now)]
    while stack and len(changes) < most:
        pointer, old, new = stack.pop()
        if old is _ABSENT:
            changes.append(Change(pointer, "added", None, new))
        elif new is _ABSENT:
            changes.append(Change(pointer, "removed", old, None))
        elif isinstance(old, dict) and isinstance(new, dict):
            stack.extend(
                (f"{pointer}/{_escape(key)}", old.get(key, _ABSENT), new.get(key, _ABSENT))
                for key in sorted(old.keys() | new.keys(), reverse=True)
            )
        elif isinstance(old, list) and isinstance(new, list):
            stack.extend(
                (f"{pointer}/{index}", _at(old, index), _at(new, index))
                for index in reversed(range(max(len(old), len(new))))
            )
        elif type(old) is not type(new) or old != new:
            changes.append(Change(pointer, "changed", old, new))
    return changes


def _at(items: list[Any], index: int) -> Any:
    return items[index] if index < len(items) else _ABSENT


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
