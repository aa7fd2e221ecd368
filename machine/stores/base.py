"""The contract of every store, without any implementation.

Promises, held by `machine.testing.StoreConformance` for every backend: **durability** (durable when `append`
returns), **ordering** (strict per run), **immutability** (never modified, never deleted), **authority** (everything
else, the index included, can be rebuilt from the log). Schedules are settings, which users change and delete.

A store never interprets a log. The index, which it stores in addition, is computed by `kernel.run_index`.

To add one, write a class with every method of `Store`, subclass `StoreConformance` to test it, and register its URL
in `stores/open_url.py`, where `open_store` finds it. docs/how-to/add-a-store.md has an example and lists
every file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self, runtime_checkable

import attrs

from machine.events import Artifact
from machine.kernel.run_index import RunRow
from machine.stores.lease import HeldLease, Lease
from machine.stores.schedule import Schedule

MAX_ARTIFACT_BYTES: Final = 512 * 1024 * 1024
"""The largest artifact a store takes, in bytes."""

ZERO_CHAIN: Final = bytes(32)
"""The chain value before the first event."""


class StoredEvent(NamedTuple):
    """One stored entry of a log: canonical envelope bytes, and the chain value over all entries up to here."""

    seq: int
    data: bytes
    chain: bytes


@attrs.frozen
class Head:
    """The end of a log: the last seq (0 when empty) and its chain value (`ZERO_CHAIN` when empty)."""

    seq: int
    chain: bytes


@attrs.frozen
class RunPage:
    """Some rows of the index, newest first; `cursor` continues after them, None at the end."""

    rows: Sequence[RunRow]
    cursor: str | None


@attrs.frozen
class Message:
    """A message to a run from another process: `number` counts from 1 within the run, `data` is JSON."""

    number: int
    kind: str
    data: Any
    ts_millis: int


@attrs.frozen
class Signal:
    """A message to whichever run waits for its name and correlation: `number` counts from 1 within the store.

    It is given to one wait of one run, and to none from `expires_ms` on.
    """

    number: int
    name: str
    correlation: str
    value: Any
    ts_millis: int
    expires_ms: int | None = None


@attrs.frozen
class Beginning:
    """The beginning of the run that continues another, under a `lease` on it; it has no events yet.

    `messages` are the first of its inbox.
    """

    lease: Lease
    events: Sequence[StoredEvent]
    messages: Sequence[Message] = ()


@attrs.define
class CommitLimits:
    """Bounds of the events that a run has emitted and its store does not have yet.

    At most `max_pending` events wait, and none for longer than `max_delay` seconds where the store has
    `write_behind`. A fast run reaches the first bound before the second, and commits by itself.
    """

    max_pending: int = 2000
    max_delay: float = 0.1


@runtime_checkable
class Store(Protocol):
    """An event store, an artifact store and a run index in one object; safe to use from several threads.

    What follows from other methods is there already for a class that inherits this one, which none has to.
    Every method may raise `StoreError`; a closed store raises `OtherStoreError` with code `store_closed`.
    """

    url: str
    """The URL given to `open_store`, normalised."""

    write_behind: bool
    """True when a commit takes long enough that a run gains by continuing meanwhile."""

    commit_limits: CommitLimits
    """Bounds of how much of a run may wait for this store, and for how long."""

    clock: Callable[[], int]
    """The wall clock for stored times, in milliseconds since the epoch. A test may replace it."""

    boot_clock: Callable[[], int]
    """A clock in milliseconds that nobody can set, for the age of leases. A test may replace it."""

    secret_key_file: Path | None
    """The path of the key of this store's secrets; None for a store that lives as long as its process.

    The key of a store without a path is its `secret_key()`. Every other key is stored outside the store
    (`secrets.store_key`).
    """

    def head(self, run_id: str) -> Head:
        """Return the end of the run's log; `Head(0, ZERO_CHAIN)` for a run without events."""
        ...

    def head_seq(self, run_id: str) -> int:
        """Return the seq of the run's last event; 0 for a run without events."""
        return self.head(run_id).seq

    def append(
        self,
        run_id: str,
        expected_seq: int,
        events: Sequence[StoredEvent],
        artifacts: Sequence[Artifact] = (),
        *,
        lease: Lease | None = None,
        inbox_seen: int | None = None,
        takes: Collection[int] = (),
        awaits: Collection[tuple[str, str]] = (),
        messages: Sequence[Message] = (),
        begins: Beginning | None = None,
    ) -> None:
        """Write artifacts and events, all or none, durable on return. Either may be empty.

        `inbox_seen` is the number of the last message that the caller has read, 0 for none. Without events it says
        that a suspended run has no use for what it received: it is no longer due because of that (`due_runs`).
        `takes` are the numbers of signals that the events hand out, and `awaits` the names and correlations of
        those that the run waits for, if the events suspend it: each such signal makes it due. `messages` are the
        inbox of a run whose whole log this is, as another store had it. `begins` is the run that continues this
        one, if the events end it: both logs are written, or neither.

        Raises `ConcurrencyError` (nothing is written) when the head is not `expected_seq`; with code `lease_lost`
        when `lease` is not the run's current one, or was released (one that has only expired still appends); with
        `run_leased` when no lease is given while the run has a valid one; with `inbox_moved` when the run's inbox
        has a message above `inbox_seen`, or there is a signal that the suspended run awaits; with `signal_taken`
        when one of `takes` was given to a wait already or never existed; and with `invocation_taken` when another
        run has the invocation key of the first event. Raises `OtherStoreError` with code `store_full`, `store_busy`
        or `store_failed` when the medium refuses (nothing is written), and `UsageError` or `IdError` when the seqs
        do not continue `expected_seq` without a gap, or an id or a type is wrong. An existing artifact is left
        unchanged; the ids of new ones are trusted.
        """
        ...

    def acquire(self, run_id: str, owner: str, ttl_ms: int) -> Lease:
        """Take the run's lease for `ttl_ms` milliseconds; the run need not have events yet.

        The epoch grows with each lease on the run and is never given twice. A lease keeps others out until it is
        released. Two exceptions: it ends with an owner that is known to be dead, and lasts as long as an owner that
        is known to live (`lease.driver_of`). If neither is known, it expires when this object has seen it without a
        heartbeat for its time (`lease.LeaseWatch`): call this again, or `lease_of`, more than once a second until
        then. It outlives the process, but a power cut may take it back.

        Raises `ConcurrencyError` with code `run_leased` while another lease is valid, and `UsageError` or `IdError`
        for invalid arguments.
        """
        ...

    def renew(self, lease: Lease) -> None:
        """Renew the lease for its time from now on.

        Raises `ConcurrencyError` (`lease_lost`) when it is not held.
        """
        ...

    def release(self, lease: Lease) -> None:
        """Release the lease; no error when it is lost already."""
        ...

    def lease_of(self, run_id: str) -> HeldLease | None:
        """Return the lease that keeps others out of the run, or None."""
        ...

    def post(self, run_id: str, kind: str, data: Any, *, passes_on: bool = True) -> int:
        """Put a message into the run's inbox, durable on return, and return its number.

        Needs no lease, and makes a suspended run due (`due_runs`). If it `passes_on`, it is for the `last_segment`.
        `kind` is 1 to 256 printable characters, `data` JSON. Raises `NotFoundError` for a run without events,
        `UsageError`, or `CanonicalError`.
        """
        ...

    def inbox(self, run_id: str, after: int = 0) -> list[Message]:
        """Return the run's messages with a number above `after`, in order. Raises `NotFoundError`."""
        ...

    def due_runs(self, now_ms: int, limit: int = 50, *, op: str | None = None) -> list[str]:
        """Return ids of suspended runs that can continue, those first that could earliest.

        Due is a run whose `wake_ms` is `now_ms` or earlier, and one that received a message or an event (such as
        the outcome of an effect) since it was suspended, unless a driver has found no use for it (`append`).
        Raises `UsageError` for a limit below 1 or a time that is no whole number.
        """
        ...

    def post_signal(self, name: str, correlation: str, value: Any, *, expires_ms: int | None = None) -> int:
        """Keep a signal for a run that waits for it, durable on return, and return its number.

        Each suspended run that awaits it is due. `name` and `correlation` are 1 to 256 printable characters,
        `value` is JSON, `expires_ms` a time in milliseconds. Raises `UsageError` or `CanonicalError`.
        """
        ...

    def signals(self, name: str | None = None, correlation: str | None = None) -> list[Signal]:
        """Return the signals that no run has taken and that have not expired, the oldest first; None is any."""
        ...

    def awaiting(self, name: str, correlation: str) -> list[str]:
        """Return the ids of the suspended runs that await a signal, in the order of their ids."""
        ...

    def last_segment(self, run_id: str) -> str:
        """Return the last run of the chain of a run: the run itself unless it went on, and if it is unknown."""
        ...

    def find_invocation(self, key: str) -> str | None:
        """Return the id of the run whose first event has this invocation key, or None."""
        ...

    def last_invocation(self, first: str, before: str, *, created_by_ms: int | None = None) -> RunRow | None:
        """Return the row of the run whose invocation key is the greatest from `first` up to, without, `before`.

        Keys are compared by their characters. With `created_by_ms`, only runs that began by that time count.
        """
        ...

    def add_schedule(self, schedule: Schedule) -> None:
        """Store a schedule, durable on return. Raises `UsageError` (`schedule_exists`) for a name in use."""
        ...

    def schedules(self) -> list[Schedule]:
        """Return all schedules, in the order of their names."""
        ...

    def pause_schedule(self, name: str, *, paused: bool) -> Schedule:
        """Pause a schedule, or resume it from now on, and return it; durable on return.

        One that is as wanted already is not changed. Raises `NotFoundError` (`schedule_not_found`).
        """
        ...

    def remove_schedule(self, name: str) -> None:
        """Delete a schedule, durable on return; its runs stay. Raises `NotFoundError` (`schedule_not_found`)."""
        ...

    def secret_key(self) -> bytes:
        """Return the 32 random bytes of this store: made once, stored in it, the same for every process."""
        ...

    def secret_key_id(self) -> str | None:
        """Return the id of the key that wraps this store's data keys; None before the first data key."""
        ...

    def data_key(self, run_id: str) -> bytes | None:
        """Return the run's wrapped data key; None when it has none, or no longer."""
        ...

    def data_keys(self) -> list[tuple[str, bytes]]:
        """Return the id of each run that has a data key, and the wrapped key, in the order of the ids."""
        ...

    def add_data_key(self, run_id: str, key_id: str, wrapped: bytes) -> None:
        """Give the run a data key, durable on return; an existing one stays. The run need not have events.

        `key_id` identifies the wrapping key, and is stored with the first data key. Raises `SecretKeyError`
        (`secret_key_wrong`) when another id is stored, and `IdError` or `UsageError`; nothing is written then.
        """
        ...

    def forget_data_key(self, run_id: str) -> bool:
        """Delete the run's data key, durable on return, and say whether it had one.

        The id of the wrapping key is deleted with the last one, so that a lost key can then be replaced.
        """
        ...

    def rewrap_data_keys(self, old_id: str, new_id: str, rewrapped: Callable[[bytes], bytes]) -> int:
        """Replace every wrapped data key by the result of `rewrapped` for it, and store `new_id`: all or nothing.

        Returns their number. Raises `SecretKeyError` (`secret_key_wrong`) when another id than `old_id` is stored,
        and whatever `rewrapped` raises. It must not use the store.
        """
        ...

    def read_range(self, run_id: str, from_seq: int = 1, to_seq: int | None = None) -> Iterator[StoredEvent]:
        """Yield the events from `from_seq` to `to_seq`, both included, in order.

        The log is read as it was at the call, whatever is appended meanwhile; no lock is held between events, so a
        slow reader stops nobody.
        """
        ...

    def put(self, kind: str, data: bytes) -> str:
        """Store bytes and return their id; storing the same bytes again changes nothing."""
        ...

    def get(self, artifact_id: str) -> bytes:
        """Return an artifact's bytes, hashed again. Raises `NotFoundError` or `CorruptionError`."""
        ...

    def kind(self, artifact_id: str) -> str:
        """Return the kind an artifact was first stored under. Raises `NotFoundError`."""
        ...

    def exists(self, artifact_id: str) -> bool:
        """Say whether the artifact exists; its bytes are not checked."""
        ...

    def list_runs(
        self,
        *,
        status: str | None = None,
        op: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 50,
        cursor: str | None = None,
        segments: bool = True,
    ) -> RunPage:
        """Return rows of the index, newest first, filtered by status, op id and labels, which must all match.

        Without `segments`, those runs are left out that went on as another run of this store.

        The newest run is the one that entered the store last, whatever its id and the clocks say. A run that is
        running according to its log and that nobody drives has the status `interrupted`, and only that filter finds
        it. `cursor` is that of the previous page. Raises `UsageError` for a limit below 1, another cursor,
        or a label that no run can have.
        """
        ...

    def run_row(self, run_id: str) -> RunRow:
        """Return one run's row of the index, with the status that `list_runs` reports. Raises `NotFoundError`."""
        ...

    def run_exists(self, run_id: str) -> bool:
        """Say whether the run has any event."""
        return self.head_seq(run_id) > 0

    def count_events(self, run_id: str) -> int:
        """Count the run's events; 0 for an unknown run."""
        ...

    def latest_seq(self, run_id: str) -> int:
        """Return the run's head seq; 0 for an unknown run."""
        return self.head_seq(run_id)

    def find_runs(self, prefix: str, limit: int = 10) -> list[str]:
        """Return ids of runs that begin with `prefix`, newest first.

        Raises `UsageError` for a limit below 1.
        """
        ...

    def integrity_problems(self) -> list[str]:
        """Check the medium below the log (file structure, index) and return the problems; empty when sound."""
        ...

    def close(self) -> None:
        """Release the store; twice is harmless."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
