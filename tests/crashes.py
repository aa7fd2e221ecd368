"""What a crash leaves behind, made by hand: the beginning of what was recorded whole."""

from __future__ import annotations

from typing import Any

from machine import Store, new_run_id
from machine.events import chain_next
from machine.stores import MemoryStore
from machine.stores.base import ZERO_CHAIN, CommitLimits, StoredEvent

__all__ = ["CommittedStore", "left_after"]


def left_after(store: Store, run_id: str, length: int) -> str:
    """Return the id of a new run of the store: the first `length` events of another."""
    left, chain, events = str(new_run_id()), ZERO_CHAIN, []
    for stored in store.read_range(run_id, 1, length):
        data = stored.data.replace(run_id.encode(), left.encode())
        chain = chain_next(chain, data)
        events.append(StoredEvent(stored.seq, data, chain))
    store.append(left, 0, events)
    return left


class CommittedStore(MemoryStore):
    """A store that commits each event by itself, and remembers in which order they came, of all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.commit_limits = CommitLimits(max_pending=1)
        self.appended: list[tuple[Any, ...]] = []

    def append(self, run_id, expected_seq, events, artifacts=(), **options):
        super().append(run_id, expected_seq, events, artifacts, **options)
        self.appended.append((run_id, expected_seq, list(events), list(artifacts), options.get("begins")))

    def after(self, count: int) -> MemoryStore:
        """Return a store as a crash after so many commits has left it."""
        left = MemoryStore()
        for run_id, expected_seq, stored, artifacts, begins in self.appended[:count]:
            left.append(run_id, expected_seq, stored, artifacts)
            if begins is not None:  # in the same commit
                left.append(begins.lease.run_id, 0, begins.events, messages=begins.messages)
        return left
