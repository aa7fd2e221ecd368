"""What a crash leaves behind, made by hand: the beginning of a run that was recorded whole."""

from __future__ import annotations

from machine import Store, new_run_id
from machine.events import chain_next
from machine.stores.base import ZERO_CHAIN, StoredEvent

__all__ = ["left_after"]


def left_after(store: Store, run_id: str, length: int) -> str:
    """Return the id of a new run of the store: the first `length` events of another."""
    left, chain, events = str(new_run_id()), ZERO_CHAIN, []
    for stored in store.read_range(run_id, 1, length):
        data = stored.data.replace(run_id.encode(), left.encode())
        chain = chain_next(chain, data)
        events.append(StoredEvent(stored.seq, data, chain))
    store.append(left, 0, events)
    return left
