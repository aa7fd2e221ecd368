"""A simulated process that dies when its run continues after a certain entry of its log.

For the outcome of an effect, that is when the call has returned. The engine has no event for that, but a task
that has made a call is not seen again before the call returns, and the task of a plain handler's call has ended
by then.
"""

from __future__ import annotations

from typing import Any

from machine.events import EffectIntended, Entry, FactRecorded
from machine.io.settle_barrier import current_task
from machine.torture.faults import PowerCut
from machine.torture.faulty_store import TorturedStore


class Returns:
    """The death of a process after entry `seq`; `lost` is true if an outcome of an effect was lost by it."""

    def __init__(self, store: TorturedStore, seq: int) -> None:
        self.lost = False
        self._store = store
        self._seq = seq
        self._intended: set[str] = set()
        self._reached = False
        self._task: Any = None

    def entry(self, entry: Entry) -> None:
        """Observe an entry before it is added to the log."""
        self.seen()
        event = entry.event
        if isinstance(event, EffectIntended):
            self._intended.add(event.key)
        if entry.seq == self._seq:
            self._reached = self._store.struck = True
            if isinstance(event, FactRecorded) and event.key in self._intended:
                self._task = current_task()

    def seen(self) -> None:
        """End the process, by raising `PowerCut`, if entry `seq` has been reached.

        After the outcome of an effect, nothing happens until the task that made it goes on or has ended.
        """
        effect = self._task is not None
        if not self._reached or (effect and self._task is not current_task() and not self._task.done()):
            return
        if self._store.dead:  # a remaining task of the dead process
            raise PowerCut
        self.lost = effect and self._store.told < self._seq
        self._store.kill()
