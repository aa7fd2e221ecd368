"""The ends of a run's sleeps, stored outside its log so that a crash does not restart them.

Each is a message of the run to its next driver. It is in no digest and in no bundle; if it is lost, the sleep
begins again.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Final

from machine.errors import StoreError
from machine.stores.base import Store

TIMER: Final = "timer"
"""The kind of message that holds the end of a sleep."""

SHORTEST_MS: Final = 10_000
"""The shortest sleep whose end is stored, in milliseconds: a message is a commit and is read at every resume."""


class Timers:
    """The times at which the sleeps of one run end, stored so that a later attempt sleeps only for what is left.

    `resumed` is true when the store may have earlier ones. The time within `stalls` counts as time in which the
    event loop waits for the store.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        resumed: bool,
        stalls: AbstractContextManager[None],
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._stalls = stalls
        self._known: dict[tuple[str, str], tuple[int, int]] | None = None if resumed else {}

    def left(self, state_id: str, name: str, seconds: float, *, attempt: int, first: int) -> float:
        """Return how many seconds of a sleep are left, and store its end if that is new.

        `name` identifies the sleep in its state. Sleeps that attempts from `first` on have begun are continued:
        earlier attempts were ended by their handler, and so were their sleeps.
        """
        whole = round(seconds * 1000)
        if whole < SHORTEST_MS:
            return seconds
        with self._stalls, contextlib.suppress(StoreError):  # the run meets the error at its next append
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
