"""The difference of two JSON values as a list of leaves, each named by its JSON Pointer (RFC 6901)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, Literal

import attrs

ABSENT: Final = object()
"""The value of an absent side."""

_BAD_ESCAPE: Final = re.compile(r"~(?![01])")
_INDEX: Final = re.compile(r"0|[1-9][0-9]*")


@attrs.frozen
class Change:
    """One leaf or subtree that differs: `pointer` names it; `kind` says which side is absent and None."""

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
        if old is ABSENT:
            changes.append(Change(pointer, "added", None, new))
        elif new is ABSENT:
            changes.append(Change(pointer, "removed", old, None))
        elif isinstance(old, dict) and isinstance(new, dict):
            stack.extend(
                (f"{pointer}/{_escape(key)}", old.get(key, ABSENT), new.get(key, ABSENT))
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
    return items[index] if index < len(items) else ABSENT


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def tokens_of(pointer: str) -> list[str]:
    """Return the reference tokens of a JSON Pointer (RFC 6901 section 3). Raises `ValueError` if it is invalid."""
    if pointer and not pointer.startswith("/"):
        raise ValueError("a JSON Pointer begins with /")
    if _BAD_ESCAPE.search(pointer):
        raise ValueError("in a JSON Pointer ~ is written ~0 and / within a key ~1")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def pointer_of(tokens: Iterable[str | int]) -> str:
    """Return the JSON Pointer of reference tokens."""
    return "".join(f"/{_escape(str(token))}" for token in tokens)


def value_at(value: Any, tokens: Iterable[str]) -> Any:
    """Return the value at reference tokens within a JSON value, or `ABSENT` (RFC 6901 section 4)."""
    for token in tokens:
        if isinstance(value, dict):
            value = value.get(token, ABSENT)
        elif isinstance(value, list) and _INDEX.fullmatch(token):
            value = _at(value, int(token))
        else:
            return ABSENT
    return value
