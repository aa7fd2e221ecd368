"""The things that a worker leaves alone for a while, because they have failed or somebody else has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs

_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0


@attrs.define
class Backoff:
    """Keys with the time until which each is left alone; a failure doubles the time of the last one."""

    clock: Callable[[], float]
    """A clock in seconds that nobody can set."""
    _until: dict[str, float] = attrs.field(factory=dict, init=False)
    _seconds: dict[str, float] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._until)

    def holds(self, key: str) -> bool:
        """Say whether a key is to be left alone now."""
        until = self._until.get(key)
        if until is None or self.clock() < until:
            return until is not None
        del self._until[key]
        return False

    def hold(self, key: str) -> None:
        """Leave a key alone for a moment."""
        self._until[key] = self.clock() + _FIRST_SECONDS

    def fail(self, key: str) -> None:
        """Leave a key alone, for twice as long as the last time, up to a minute."""
        seconds = self._seconds[key] = min(self._seconds.get(key, _FIRST_SECONDS / 2) * 2, _LONGEST_SECONDS)
        self._until[key] = self.clock() + seconds

    def for_good(self, key: str) -> None:
        """Leave a key alone for as long as this process lives."""
        self._until[key] = math.inf

    def clear(self, key: str) -> None:
        """Forget a key that has succeeded."""
        self._until.pop(key, None)
        self._seconds.pop(key, None)
