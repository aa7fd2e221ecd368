"""The time in which attempts of a run have been open, by a clock that nobody can set."""

from __future__ import annotations

import time
from collections.abc import Mapping

from machine.kernel.history import History
from machine.kernel.usage import WALL_MS


class WallClock:
    """The time of one run: what its log says, and what has passed here while an attempt was open."""

    def __init__(self, history: History, cleanup: float | None) -> None:
        """Take `cleanup`, the seconds that the cleanup may take, None for any number."""
        self._history = history
        self.cleanup = cleanup
        self._before = float(history.usage.wall_ms)
        self._since: float | None = None

    @property
    def ms(self) -> int:
        """The milliseconds so far."""
        open_for = 0.0 if self._since is None else (time.monotonic() - self._since) * 1000
        return int(self._before + open_for)

    @property
    def cleanup_left(self) -> float | None:
        """The seconds that are left for the cleanup, None before it has begun and where nothing limits it."""
        before = self._history.usage.work_ms
        if self.cleanup is None or before is None:
            return None
        return max(0.0, self.cleanup - (self.ms - before) / 1000)

    def stamp(self, info: Mapping[str, str] | None) -> Mapping[str, str]:
        """Return the info of an event that is about to be recorded, with the time so far."""
        return {**(info or {}), WALL_MS: str(self.ms)}

    def follow(self) -> None:
        """Let time pass while an attempt is open, once events have been recorded."""
        if self._history.open and self._since is None:
            self._since = time.monotonic()
        elif not self._history.open and self._since is not None:
            self._before += (time.monotonic() - self._since) * 1000
            self._since = None
