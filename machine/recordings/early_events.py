"""Events of a replay that wait until the recording reaches them, so that racing calls end in the recorded order.

`recordings/replay_log.py` says which event is next: an event that comes too early waits here for its turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Turns:
    """Waiters for positions of the recording, by the bytes of the event."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, list[anyio.Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @contextmanager
    def waiting(self, body: bytes) -> Iterator[anyio.Event]:
        """Join the queue for an event, and yield an object that is set when its turn comes."""
        come = anyio.Event()
        self._waiting.setdefault(body, []).append(come)
        try:
            yield come
        finally:
            waiting = self._waiting[body]
            waiting.remove(come)
            if not waiting:
                del self._waiting[body]

    def come(self, body: bytes) -> None:
        """Release the first waiter for an event that the recording has reached."""
        for come in self._waiting.get(body, ())[:1]:
            come.set()

    def wake(self) -> None:
        """Release all waiters, regardless of turn."""
        for come in [come for waiting in self._waiting.values() for come in waiting]:
            come.set()
