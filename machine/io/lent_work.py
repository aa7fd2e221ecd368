"""The engine's work for the calls of a plain handler, which the event loop lends to the handler's threads.

To change threads takes longer than the work for most calls. A thread that does the work itself changes none: it
identifies its call, makes it, and records the outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from machine.errors import StateError


class LentWork:
    """The right to do the engine's work for one attempt, which one thread has at any moment.

    The event loop lends it while the handler runs in threads and no other attempt of its run can. A call that a
    thread hands to the loop gives the right back until it has ended, and what uses the attempt on the loop without
    being handed to it takes it back for good.
    """

    __slots__ = ("_handed", "_lent", "_lock", "_worker")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Held by the thread that does the work."""
        self._lent = False
        self._handed = 0
        """The number of calls that threads have handed to the event loop and that have not returned."""
        self._worker: int | None = None

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lend the work to threads meanwhile. On leaving, none of them does any of it."""
        self._lent = True
        try:
            yield
        finally:
            self.take_back()

    def take_back(self) -> None:
        """Wait until no thread does any of the work, and lend it no more."""
        with self._lock:
            self._lent = False

    def begin(self) -> bool:
        """Begin to do a part of the work in this thread, which `end` has to follow; False if the loop has it."""
        self._lock.acquire()
        if self._lent and not self._handed:
            self._worker = threading.get_ident()
            return True
        self._lock.release()
        return False

    def end(self) -> None:
        """End a part of the work that this thread has begun."""
        self._worker = None
        self._lock.release()

    @property
    def is_done_here(self) -> bool:
        """True while this thread does a part of the work."""
        return self._worker == threading.get_ident()

    def hand_over(self) -> None:
        """Let the event loop do the work for a call of this thread, until `returned`.

        Raises `StateError` while this thread does a part of it.
        """
        if self.is_done_here:
            raise StateError("a call waits for the event loop while its thread does the loop's work")
        with self._lock:
            self._handed += 1

    def returned(self) -> None:
        """Note that a call which was handed to the event loop has returned."""
        with self._lock:
            self._handed -= 1

    def used_on_loop(self) -> None:
        """Take the work back for good if the event loop begins a call that no thread has handed to it."""
        if self._lent and not self._handed:
            self.take_back()


@contextmanager
def handed_to_loop(lent: LentWork | None) -> Iterator[None]:
    """Hand a call of this thread to the event loop meanwhile, if the loop lends its work."""
    if lent is None:
        yield
        return
    lent.hand_over()
    try:
        yield
    finally:
        lent.returned()
