"""Events of a replay that wait until the recording has come to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["Turns"]


class Turns:
    """Who waits for the recording to come to an event, by the bytes of the event."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, list[anyio.Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @contextmanager
    def waiting(self, body: bytes) -> Iterator[anyio.Event]:
        """Stand in line for an event, and give what is set when its turn has come."""
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
        """Let on the first who waits for an event that the recording has come to."""
        for come in self._waiting.get(body, ())[:1]:
            come.set()

    def wake(self) -> None:
        """Let on all who wait, whoever's turn it is."""
        for come in [come for waiting in self._waiting.values() for come in waiting]:
            come.set()
