"""When the sleeps of a run end: noted beside its log, so that a crash does not make them begin again.

A note is a message of the run to whoever drives it next. It stands in no digest and in no bundle; where it is
lost, a sleep is slept whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from machine.errors import StoreError
from machine.stores.base import Store

__all__ = ["TIMER", "Timers"]

TIMER: Final = "timer"
"""The kind of message that says when a sleep ends."""

SHORTEST_MS: Final = 10_000
"""A sleep of fewer milliseconds is not noted: a note is a commit, stays, and is read again at every resume."""


class Timers:
    """The ends of one run's sleeps. `resumed` when there may be some from before.

    `waiting` counts the time within it as one in which the event loop waits for the store.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        resumed: bool,
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._waiting = waiting
        self._known: dict[tuple[str, str], tuple[int, int]] | None = None if resumed else {}

    def left(self, state_id: str, name: str, seconds: float, *, attempt: int, first: int) -> float:
        """Return how many seconds of a sleep are left, and note its end if nobody has.

        `name` tells it apart in its state. What attempts from `first` on have begun is gone on with: those before
        ended by their handler's decision, and so did what they waited for.
        """
        whole = round(seconds * 1000)
        if whole < SHORTEST_MS:
            return seconds
        with self._waiting(), contextlib.suppress(StoreError):  # the run meets it at its next append
            now = self._store.clock()
            noted, until = self._ends().get((state_id, name), (-1, 0))
            if first <= noted <= attempt:
                return min(seconds, max(until - now, 0) / 1000)
            message = {"state_id": state_id, "name": name, "attempt": attempt, "until_ms": now + whole}
            self._store.post(self._run_id, TIMER, message)
            self._ends()[state_id, name] = attempt, now + whole
        return seconds

    def _ends(self) -> dict[tuple[str, str], tuple[int, int]]:
        if self._known is None:
            self._known = {}
            for message in self._store.inbox(self._run_id):
                if message.kind == TIMER:
                    said = message.data
                    self._known[said["state_id"], said["name"]] = said["attempt"], said["until_ms"]
        return self._known
