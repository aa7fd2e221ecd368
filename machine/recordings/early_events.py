"""Events of a replay that wait until the recording reaches them, so that racing calls end in the recorded order.

`recordings/replay_log.py` says which event is next: an event that comes too early waits here for its turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio

from machine.events import Entry


class Turns:
    """Waiters for positions of the recording, by the bytes of the event."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, list[anyio.Event]] = {}
        self._let_through: Counter[bytes] = Counter()

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

    def let_through(self, body: bytes) -> bool:
        """Let a waiter for an event through that cannot run just now; return False if nobody waits for it."""
        waiting = self._waiting.get(body, ())[self._let_through[body] :]
        if not waiting:
            return False
        self._let_through[body] += 1
        waiting[0].set()
        return True

    def let_through_to(self, body: bytes, recorded: Sequence[Entry], at: int, end: int) -> int:
        """Let waiters for the entries from `at` up to `body` through, while each has one; return the position."""
        while at < end and recorded[at].body != body and self.let_through(recorded[at].body):
            at += 1
        return at

    def was_let_through(self, body: bytes) -> bool:
        """Return True to each waiter once that was let through."""
        if not self._let_through[body]:
            return False
        self._let_through[body] -= 1
        return True

    def wake(self) -> None:
        """Release all waiters, regardless of turn."""
        for come in [come for waiting in self._waiting.values() for come in waiting]:
            come.set()
