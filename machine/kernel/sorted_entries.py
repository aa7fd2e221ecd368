"""The entries of a snapshot as one dict in the order of their keys, made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from machine.kernel.snapshot_value import Value

_MOST_CHANGES: Final = 1000
"""The most changes that are kept to be made to the entries of an earlier snapshot."""


class SortedEntries:
    """The entries of one snapshot, which are those of an earlier one with changes where these are known."""

    __slots__ = ("_changes", "_earlier", "known")

    def __init__(
        self, earlier: dict[str, Value] | None = None, changes: Mapping[str, Value | None] | None = None
    ) -> None:
        self._earlier = earlier
        self._changes = changes or {}
        self.known: dict[str, Value] | None = None
        """The entries once they were made. They must not be changed."""

    def changed(self, changes: Mapping[str, Value | None]) -> SortedEntries:
        """Return the entries of the snapshot after changes (None removes a key)."""
        earlier = self._earlier  # read once, and before `known`: concurrent handlers share the entries
        if self.known is not None:
            return SortedEntries(self.known, changes)
        if earlier is None or len(self._changes) + len(changes) > _MOST_CHANGES:
            return SortedEntries()
        return SortedEntries(earlier, {**self._changes, **changes})

    def made(self, walk: Callable[[], Iterable[Mapping[str, Value]]]) -> dict[str, Value]:
        """Return the entries; `walk` yields those of each leaf, and is called if no earlier ones are known."""
        if self.known is None:
            earlier = self._earlier  # read once: another thread may be making them too
            if earlier is None:
                found: dict[str, Value] = {}
                for entries in walk():
                    found.update(entries)
                self.known = _in_order(found)
            else:
                self.known = _with_changes(earlier, self._changes)
                self._earlier = None
        return self.known


def _with_changes(entries: dict[str, Value], changes: Mapping[str, Value | None]) -> dict[str, Value]:
    """Return entries in the order of their keys after changes (None removes a key)."""
    after = dict(entries)
    for key, value in changes.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    if any(key not in entries for key in changes):  # otherwise each is where it was
        return _in_order(after)
    return after


def _in_order(entries: dict[str, Value]) -> dict[str, Value]:
    return {key: entries[key] for key in sorted(entries)}
