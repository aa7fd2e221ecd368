"""A store in memory: for tests, dry runs and programs that do not need their runs after they end.

It implements the whole contract except durability, which ends with the process; it must never be laxer than a store
on disk, or a test that passes on it would mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from machine import canonical
from machine.canonical import artifact_id as hash_of
from machine.errors import Code, CorruptionError
from machine.events import Artifact
from machine.kernel.run_index import RunRow, advance, ends_with_answer, moves_head_only
from machine.kernel.run_status import RunStatus
from machine.labels import checked as checked_labels
from machine.labels import labels_in
from machine.process_identity import boot_clock
from machine.stores.argument_checks import (
    Terms,
    as_told,
    check_append,
    check_awaits,
    check_cursor,
    check_due,
    check_kind,
    check_limit,
    check_message,
    check_range,
    check_size,
    closed,
    inbox_moved,
    invocation_taken,
    is_run_prefix,
    no_artifact,
    no_run,
    stale,
    unknown_cursor,
)
from machine.stores.base import (
    ZERO_CHAIN,
    Beginning,
    CommitLimits,
    Head,
    Message,
    RunPage,
    Store,
    StoredEvent,
)
from machine.stores.lease import HeldLease, Lease, LeaseWatch, check_acquire, leased, lost, wall_clock
from machine.stores.memory_contents import Contents, MemoryKeys, MemorySignals
from machine.stores.memory_schedules import MemorySchedules


class MemoryStore(MemoryKeys, MemorySignals, MemorySchedules, Store):
    """A `Store` in this process's memory.

    `shared_with` makes this a second object on another's contents, like two connections to one file: each is closed
    by itself, and the contents live as long as either. `artifacts` are there from the beginning, kind and bytes by
    id, and are never copied.
    """

    url: str = "memory://"
    write_behind: bool = False
    secret_key_file: Path | None = None

    def __init__(
        self,
        *,
        shared_with: MemoryStore | None = None,
        clock: Callable[[], int] = wall_clock,
        artifacts: MutableMapping[str, tuple[str, bytes]] | None = None,
    ) -> None:
        self.clock: Callable[[], int] = clock
        self.boot_clock: Callable[[], int] = boot_clock
        self.commit_limits: CommitLimits = CommitLimits()
        self._watch = LeaseWatch()
        self._contents: Contents = shared_with._contents if shared_with else Contents()  # noqa: SLF001
        if artifacts is not None:
            self._contents.artifacts = artifacts
        self._closed = False

    def _open(self) -> Contents:
        if self._closed:
            raise closed(self.url)
        return self._contents

    def head(self, run_id: str) -> Head:
        """Return the end of the run's log; `Head(0, ZERO_CHAIN)` for a run without events."""
        log = self._open().logs.get(run_id)
        return Head(log[-1].seq, log[-1].chain) if log else Head(0, ZERO_CHAIN)

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
        """Write artifacts and events, all or none (see `Store.append`)."""
        contents = self._open()
        terms = Terms(lease, inbox_seen, takes, awaits, messages, begins)
        check_append(run_id, expected_seq, events, artifacts, terms)
        run_id = str(run_id)
        with contents.lock:
            row = self._checked(contents, run_id, expected_seq, events=events, terms=terms)
            if begins is not None:
                first = Terms(begins.lease, messages=begins.messages)
                next_id = begins.lease.run_id
                next_row = self._checked(contents, next_id, 0, events=begins.events, terms=first)
            for artifact_id, kind, data in artifacts:
                contents.artifacts.setdefault(str(artifact_id), (str(kind), data))
            if events:
                self._write(contents, row, events, terms)
            elif inbox_seen is not None:
                contents.answered.pop(run_id, None)
            if begins is not None:
                self._write(contents, next_row, begins.events, first)

    def _checked(
        self,
        contents: Contents,
        run_id: str,
        expected_seq: int,
        *,
        events: Sequence[StoredEvent],
        terms: Terms,
    ) -> RunRow:
        """Check an append with the lock, and return the row of the index that it leads to."""
        self._check_lease(contents, run_id, terms.lease)
        log = contents.logs.get(run_id, [])
        if len(log) != expected_seq:
            raise stale(run_id, expected_seq, len(log))
        last, seen = len(contents.inboxes.get(run_id, ())), terms.inbox_seen
        if seen is not None and last > seen:
            raise inbox_moved(run_id, seen, last)
        contents.check_takes(run_id, terms.takes)
        row = advance(contents.rows.get(run_id), run_id, events)
        key = row.invocation_key
        if key is not None and (holder := contents.invocations.get(key, run_id)) != run_id:
            raise invocation_taken(key, run_id, holder)
        if terms.awaits:
            check_awaits(row.status)
        if terms.awaits or (not events and seen is not None):
            awaited = terms.awaits or contents.signal_waits.get(run_id, ())
            contents.check_none_awaited(run_id, awaited, self.clock())
        return row

    def _write(self, contents: Contents, row: RunRow, events: Sequence[StoredEvent], terms: Terms) -> None:
        run_id = row.run_id
        contents.logs.setdefault(run_id, []).extend(events)
        contents.rows[run_id] = row
        if row.invocation_key is not None:
            contents.invocations[row.invocation_key] = run_id
        contents.note_segment(row)
        contents.taken.update(terms.takes)
        self._note_waits(contents, row, events, terms.awaits)
        if terms.messages:
            self._keep_messages(contents, row, terms.messages)

    def _note_waits(
        self,
        contents: Contents,
        row: RunRow,
        events: Sequence[StoredEvent],
        awaits: Collection[tuple[str, str]],
    ) -> None:
        if not moves_head_only(events):
            contents.answered.pop(row.run_id, None)
            contents.signal_waits.pop(row.run_id, None)
        if awaits:
            contents.signal_waits.setdefault(row.run_id, set()).update(awaits)
        if ends_with_answer(row, events):
            contents.answered.setdefault(row.run_id, self.clock())

    @staticmethod
    def _keep_messages(contents: Contents, row: RunRow, messages: Sequence[Message]) -> None:
        inbox = [(each.kind, canonical.encode(each.data), each.ts_millis) for each in messages]
        contents.inboxes[row.run_id] = inbox
        if row.status == RunStatus.SUSPENDED:
            contents.answered.setdefault(row.run_id, inbox[0][2])

    def _refuse_leased(self, contents: Contents, run_id: str) -> None:
        held = contents.leases.get(run_id)
        if held is not None and (left_ms := self._watch.left_ms(held, self.boot_clock())) != 0:
            raise leased(held, left_ms)

    def _check_lease(self, contents: Contents, run_id: str, lease: Lease | None) -> None:
        if lease is None:
            self._refuse_leased(contents, run_id)
            return
        held = contents.leases.get(run_id)
        if held is None or held.epoch != lease.epoch:
            raise lost(lease, contents.epochs.get(run_id, 0))

    def acquire(self, run_id: str, owner: str, ttl_ms: int) -> Lease:
        """Take the run's lease (see `Store.acquire`)."""
        contents = self._open()
        run_id = check_acquire(run_id, owner, ttl_ms)
        with contents.lock:
            self._refuse_leased(contents, run_id)
            epoch = contents.epochs[run_id] = contents.epochs.get(run_id, 0) + 1
            contents.leases[run_id] = HeldLease(run_id, epoch, owner, self.clock() + ttl_ms, ttl_ms)
        return Lease(run_id, epoch, owner, ttl_ms)

    def renew(self, lease: Lease) -> None:
        """Renew the lease for its time from now on.

        Raises `ConcurrencyError` (`lease_lost`) when it is not held.
        """
        contents = self._open()
        with contents.lock:
            self._check_lease(contents, lease.run_id, lease)
            held = contents.leases[lease.run_id]
            contents.leases[lease.run_id] = held.renewed(self.clock())

    def release(self, lease: Lease) -> None:
        """Release the lease; no error when it is lost already."""
        contents = self._open()
        with contents.lock:
            held = contents.leases.get(lease.run_id)
            if held is not None and held.epoch == lease.epoch:
                del contents.leases[lease.run_id]

    def lease_of(self, run_id: str) -> HeldLease | None:
        """Return the lease that keeps others out of the run, or None."""
        held = self._open().leases.get(run_id)
        return held if held is not None and self._watch.left_ms(held, self.boot_clock()) != 0 else None

    def post(self, run_id: str, kind: str, data: Any, *, passes_on: bool = True) -> int:
        """Put a message into the run's inbox and return its number (see `Store.post`)."""
        contents = self._open()
        encoded = check_message(kind, data)
        with contents.lock:
            run_id = contents.last_segment(run_id) if passes_on else run_id
            if run_id not in contents.logs:
                raise no_run(run_id)
            messages = contents.inboxes.setdefault(str(run_id), [])
            messages.append((str(kind), encoded, now := self.clock()))
            if contents.rows[run_id].status == RunStatus.SUSPENDED:
                contents.answered.setdefault(str(run_id), now)
            return len(messages)

    def inbox(self, run_id: str, after: int = 0) -> list[Message]:
        """Return the run's messages with a number above `after`, in order. Raises `NotFoundError`."""
        contents = self._open()
        with contents.lock:
            if run_id not in contents.logs:
                raise no_run(run_id)
            messages = list(contents.inboxes.get(run_id, ()))
        return [
            Message(number, kind, canonical.decode(data), ts)
            for number, (kind, data, ts) in enumerate(messages, 1)
            if number > after
        ]

    def due_runs(self, now_ms: int, limit: int = 50, *, op: str | None = None) -> list[str]:
        """Return ids of suspended runs that can continue (see `Store.due_runs`)."""
        contents = self._open()
        now_ms, limit = check_due(now_ms, limit)
        with contents.lock:
            since: dict[str, int] = {}
            for run_id, row in contents.rows.items():  # a run retains its place in the order of arrival
                wake = row.wake_ms if row.wake_ms is not None and row.wake_ms <= now_ms else None
                times = [time for time in (wake, contents.answered.get(run_id)) if time is not None]
                if times and op in {None, row.op_id}:
                    since[run_id] = min(times)
        return sorted(since, key=since.__getitem__)[:limit]

    def last_segment(self, run_id: str) -> str:
        """Return the last run of the chain that a run belongs to (see `Store.last_segment`)."""
        return self._open().last_segment(run_id)

    def find_invocation(self, key: str) -> str | None:
        """Return the id of the run whose first event has this invocation key, or None."""
        return self._open().invocations.get(key)

    def read_range(self, run_id: str, from_seq: int = 1, to_seq: int | None = None) -> Iterator[StoredEvent]:
        """Yield events in order, of the log as it was at the call (see `Store.read_range`)."""
        log = self._open().logs.get(run_id, [])
        first, last = check_range(from_seq, to_seq, len(log))
        return self._read(log, first, last)

    def _read(self, log: list[StoredEvent], first: int, last: int) -> Iterator[StoredEvent]:
        for index in range(first - 1, last):
            self._open()
            yield log[index]

    def put(self, kind: str, data: bytes) -> str:
        """Store bytes and return their id; storing the same bytes again changes nothing."""
        contents = self._open()
        check_kind(kind)
        check_size(data)
        artifact_id = hash_of(data)
        with contents.lock:
            contents.artifacts.setdefault(artifact_id, (str(kind), data))
        return artifact_id

    def _artifact(self, artifact_id: str) -> tuple[str, bytes]:
        found = self._open().artifacts.get(artifact_id)
        if found is None:
            raise no_artifact(artifact_id)
        return found

    def get(self, artifact_id: str) -> bytes:
        """Return an artifact's bytes, hashed again. Raises `NotFoundError` or `CorruptionError`."""
        _, data = self._artifact(artifact_id)
        if hash_of(data) != artifact_id:
            raise CorruptionError(
                f"artifact {artifact_id} does not hash to its id", code=Code.ARTIFACT_CORRUPT
            )
        return data

    def kind(self, artifact_id: str) -> str:
        """Return the kind an artifact was first stored under. Raises `NotFoundError`."""
        return self._artifact(artifact_id)[0]

    def exists(self, artifact_id: str) -> bool:
        """Say whether the artifact exists; its bytes are not checked."""
        return artifact_id in self._open().artifacts

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
        """Return rows of the index, newest first, filtered by status, op id and labels."""
        contents = self._open()
        limit, cursor, wanted = check_limit(limit), check_cursor(cursor), checked_labels(labels or {}).items()
        with contents.lock:
            newest_first = list(
                reversed(contents.rows.values())
            )  # a run retains its place in the order of arrival
            if cursor is not None:
                if cursor not in contents.rows:
                    raise unknown_cursor(cursor)
                newest_first = newest_first[newest_first.index(contents.rows[cursor]) + 1 :]
            shown = (row for row in newest_first if segments or row.next_run_id not in contents.rows)
            asked = (row for row in shown if op is None or row.op_id == op)
            told = (self._told(row) for row in asked if wanted <= labels_in(row.labels).items())
            rows = list(islice((row for row in told if status in {None, row.status}), limit + 1))
        return RunPage(rows=rows[:limit], cursor=rows[limit - 1].run_id if len(rows) > limit else None)

    def _told(self, row: RunRow) -> RunRow:
        return as_told(row, lambda: self.lease_of(row.run_id), self.clock)

    def run_row(self, run_id: str) -> RunRow:
        """Return one run's row of the index, as `list_runs` reports it. Raises `NotFoundError`."""
        contents = self._open()
        row = contents.rows.get(run_id)
        if row is None:
            raise no_run(run_id)
        return self._told(row)

    def count_events(self, run_id: str) -> int:
        """Count the run's events; 0 for an unknown run."""
        return len(self._open().logs.get(run_id, ()))

    def find_runs(self, prefix: str, limit: int = 10) -> list[str]:
        """Return ids of runs that begin with `prefix`, newest first."""
        contents = self._open()
        limit = check_limit(limit)
        if not is_run_prefix(prefix):
            return []
        with contents.lock:
            found = [run_id for run_id in reversed(contents.rows) if run_id.startswith(prefix)]
        return found[:limit]

    def integrity_problems(self) -> list[str]:
        """Return the rows of the index that contradict their logs; memory has no structure to check."""
        contents = self._open()
        with contents.lock:
            logs = {run_id: list(log) for run_id, log in contents.logs.items()}
            rows = dict(contents.rows)
        return [
            f"run {run_id}: its index row is not what its log says"
            for run_id in sorted(logs.keys() | rows.keys())
            if advance(None, run_id, logs.get(run_id, ())) != rows.get(run_id)
        ]

    def close(self) -> None:
        """Release the store; twice is harmless."""
        self._closed = True
