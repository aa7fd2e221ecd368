"""The contents of a store in memory, and the data keys and signals in it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, MutableMapping
from typing import Any

import attrs

from machine import canonical
from machine.kernel.run_index import RunRow
from machine.stores.argument_checks import (
    check_data_key,
    check_key_id,
    check_signal,
    check_wrapped,
    other_key,
    signal_awaited,
    signal_taken,
)
from machine.stores.base import Signal, StoredEvent
from machine.stores.lease import HeldLease
from machine.stores.schedule import Schedule


@attrs.define
class Contents:
    """The contents that all objects on one store share."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    logs: dict[str, list[StoredEvent]] = attrs.field(factory=dict)
    rows: dict[str, RunRow] = attrs.field(factory=dict)
    artifacts: MutableMapping[str, tuple[str, bytes]] = attrs.field(factory=dict)
    epochs: dict[str, int] = attrs.field(factory=dict)
    leases: dict[str, HeldLease] = attrs.field(factory=dict)
    inboxes: dict[str, list[tuple[str, bytes, int]]] = attrs.field(factory=dict)
    signals: list[Signal] = attrs.field(factory=list)
    """Every signal that was posted, the one with number n at n - 1; its value is canonical JSON."""
    taken: set[int] = attrs.field(factory=set)
    signal_waits: dict[str, set[tuple[str, str]]] = attrs.field(factory=dict)
    answered: dict[str, int] = attrs.field(factory=dict)
    invocations: dict[str, str] = attrs.field(factory=dict)
    chains: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    """The number and the id of the last segment of each chain, by the id of the first run."""
    secret_key: bytes = attrs.field(factory=lambda: secrets.token_bytes(32))
    secret_key_id: str | None = None
    data_keys: dict[str, bytes] = attrs.field(factory=dict)
    schedules: dict[str, Schedule] = attrs.field(factory=dict)

    def last_segment(self, run_id: str) -> str:
        """Return the last run of the chain that a run belongs to (see `Store.last_segment`)."""
        row = self.rows.get(run_id)
        return self.chains.get((row and row.first_run_id) or run_id, (0, run_id))[1]

    def note_segment(self, row: RunRow) -> None:
        """Note a run that continues another as the last of its chain, if it is."""
        if row.first_run_id is not None and row.segment is not None:
            known = self.chains.get(row.first_run_id, (0, ""))
            self.chains[row.first_run_id] = max(known, (row.segment, row.run_id))

    def check_takes(self, run_id: str, numbers: Collection[int]) -> None:
        """Raise `ConcurrencyError` (`signal_taken`) for a signal that cannot be taken. Called with the lock."""
        seen: set[int] = set()
        for number in numbers:
            if number > len(self.signals) or number in self.taken or number in seen:
                raise signal_taken(run_id, number)
            seen.add(number)

    def check_none_awaited(self, run_id: str, awaits: Collection[tuple[str, str]], now: int) -> None:
        """Raise `ConcurrencyError` (`inbox_moved`) when one of these signals is there. Called with the lock."""
        for signal in self.to_take(now):
            if (signal.name, signal.correlation) in awaits:
                raise signal_awaited(run_id)

    def to_take(self, now: int) -> list[Signal]:
        """Return the signals that no run has taken and that have not expired. Called with the lock."""
        return [
            signal
            for signal in self.signals
            if signal.number not in self.taken and (signal.expires_ms is None or signal.expires_ms > now)
        ]


class MemoryKeys:
    """The key methods of `MemoryStore`."""

    url: str
    _open: Callable[[], Contents]

    def secret_key(self) -> bytes:
        """Return the 32 random bytes of this store, the same for every object on it."""
        return self._open().secret_key

    def secret_key_id(self) -> str | None:
        """Return the id of the key that wraps this store's data keys; None before the first data key."""
        return self._open().secret_key_id

    def data_key(self, run_id: str) -> bytes | None:
        """Return the run's wrapped data key; None when it has none, or no longer."""
        return self._open().data_keys.get(run_id)

    def data_keys(self) -> list[tuple[str, bytes]]:
        """Return the id of each run that has a data key, and the wrapped key, in the order of the ids."""
        contents = self._open()
        with contents.lock:
            return sorted(contents.data_keys.items())

    def add_data_key(self, run_id: str, key_id: str, wrapped: bytes) -> None:
        """Give the run a data key; an existing one stays (see `Store.add_data_key`)."""
        contents = self._open()
        run_id = check_data_key(run_id, key_id, wrapped)
        with contents.lock:
            if contents.secret_key_id not in {None, key_id}:
                raise other_key(self.url, contents.secret_key_id, key_id)
            contents.secret_key_id = key_id
            contents.data_keys.setdefault(run_id, wrapped)

    def forget_data_key(self, run_id: str) -> bool:
        """Delete the run's data key and say whether it had one."""
        contents = self._open()
        with contents.lock:
            had_one = contents.data_keys.pop(run_id, None) is not None
            if not contents.data_keys:
                contents.secret_key_id = None
        return had_one

    def rewrap_data_keys(self, old_id: str, new_id: str, rewrapped: Callable[[bytes], bytes]) -> int:
        """Replace every wrapped data key and store `new_id`: all or nothing (see `Store.rewrap_data_keys`)."""
        contents = self._open()
        check_key_id(new_id)
        with contents.lock:
            if contents.secret_key_id != old_id:
                raise other_key(self.url, contents.secret_key_id, old_id)
            new = {run_id: check_wrapped(rewrapped(old)) for run_id, old in contents.data_keys.items()}
            contents.secret_key_id, contents.data_keys = new_id, new
            return len(new)


class MemorySignals:
    """The methods of `MemoryStore` about signals."""

    clock: Callable[[], int]
    _open: Callable[[], Contents]

    def post_signal(self, name: str, correlation: str, value: Any, *, expires_ms: int | None = None) -> int:
        """Keep a signal for a run that waits for it and return its number (see `Store.post_signal`)."""
        contents = self._open()
        encoded = check_signal(name, correlation, value, expires_ms)
        with contents.lock:
            number, now = len(contents.signals) + 1, self.clock()
            contents.signals.append(Signal(number, name, correlation, encoded, now, expires_ms))
            for run_id, awaits in contents.signal_waits.items():
                if (name, correlation) in awaits:
                    contents.answered.setdefault(run_id, now)
        return number

    def signals(self, name: str | None = None, correlation: str | None = None) -> list[Signal]:
        """Return the signals that can be taken, the oldest first (see `Store.signals`)."""
        contents = self._open()
        with contents.lock:
            found = contents.to_take(self.clock())
        return [
            attrs.evolve(signal, value=canonical.decode(signal.value))
            for signal in found
            if name in {None, signal.name} and correlation in {None, signal.correlation}
        ]

    def awaiting(self, name: str, correlation: str) -> list[str]:
        """Return the ids of the suspended runs that await a signal, in the order of their ids."""
        contents = self._open()
        with contents.lock:
            waits = contents.signal_waits.items()
            return sorted(run_id for run_id, awaits in waits if (name, correlation) in awaits)
