"""A store in one SQLite file: durable, for many concurrent processes, and append-only by its own triggers.

One connection behind one lock serves every thread; no lock and no statement is held while a caller has control. It
must never acknowledge what a crash could take back, and never let a `sqlite3.Error` escape.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Literal

from machine.canonical import artifact_id as hash_of
from machine.errors import Code, CorruptionError, UsageError
from machine.events import Artifact
from machine.kernel.run_index import RunRow
from machine.kernel.run_status import RunStatus
from machine.labels import checked as checked_labels
from machine.process_identity import boot_clock
from machine.stores import sqlite_due, sqlite_inbox, sqlite_lease
from machine.stores.argument_checks import (
    MAX_SEQ,
    Terms,
    artifact_key,
    as_told,
    check_append,
    check_cursor,
    check_due,
    check_kind,
    check_limit,
    check_message,
    check_range,
    check_size,
    indexed_status,
    is_run_prefix,
    no_artifact,
    no_run,
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
from machine.stores.lease import HeldLease, Lease, LeaseWatch, check_acquire, wall_clock
from machine.stores.sqlite_append import FIND_INVOCATION, NEW_ARTIFACT, Appends, find_run
from machine.stores.sqlite_check import problems_of
from machine.stores.sqlite_keys import SqliteKeys
from machine.stores.sqlite_open import connect, open_database
from machine.stores.sqlite_rows import RUN_COLUMNS, event_of, row_of, text
from machine.stores.sqlite_schedules import SqliteSchedules
from machine.stores.sqlite_session import Session, url_of
from machine.stores.sqlite_signals import SqliteSignals

_CHUNK: Final = 500
"""The number of events that a reader fetches at once."""

_RUN: Final = "(SELECT key FROM runs WHERE run_id = ?)"
_HEAD: Final = f"SELECT seq, chain FROM events WHERE run = {_RUN} ORDER BY seq DESC LIMIT 1"  # noqa: S608
_ENDS_CHAIN: Final = (
    "(next_run_id IS NULL OR NOT EXISTS (SELECT 1 FROM runs AS n WHERE n.run_id = runs.next_run_id))"
)
_READ: Final = (
    "SELECT seq, data, chain FROM events WHERE run = ? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
)


_HAS_LABEL: Final = "key IN (SELECT run FROM run_labels WHERE name = ? AND value = ?)"


class SqliteStore(SqliteKeys, SqliteSignals, SqliteSchedules, Store):
    """A `Store` in the file at `path`.

    `synchronous` is "full" (a commit is on the disk when `append` returns) or "normal" (it survives the death of
    the process, but a power cut may take the last commits back). `create` makes the file, and its missing parent
    directories. `busy_timeout` is how many seconds to wait for another process.
    """

    write_behind: bool = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["full", "normal"] = "full",
        create: bool = True,
        busy_timeout: float = 10.0,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        if synchronous not in {"full", "normal"}:
            raise UsageError(f"synchronous is {synchronous!r}: it must be 'full' or 'normal'")
        self.clock: Callable[[], int] = clock
        self.boot_clock: Callable[[], int] = boot_clock
        self.commit_limits: CommitLimits = CommitLimits()
        self._watch: Final = LeaseWatch()
        self._path: Final = Path(path).absolute()
        self._name: Final = str(self._path)
        self._synchronous: Final = synchronous
        self._busy_timeout: Final = busy_timeout
        self.url: str = url_of(self._path, synchronous)
        # where SQLite has the -wal too: next to the file itself, not next to a link to it
        self.secret_key_file: Path | None = Path(f"{self._path.resolve()}.key")
        conn = open_database(
            self._path,
            create=create,
            synchronous=synchronous,
            busy_timeout=busy_timeout,
        )
        self._session = Session(conn, self._path, self.url)
        self._appends: Final = Appends(self._name, self._left_ms, self._now)

    def head(self, run_id: str) -> Head:
        """Return the end of the run's log; `Head(0, ZERO_CHAIN)` for a run without events."""
        with self._session as conn:
            found = conn.execute(_HEAD, (text(run_id),)).fetchone()
        if found is None:
            return Head(0, ZERO_CHAIN)
        event = event_of((found[0], b"", found[1]))
        return Head(event.seq, event.chain)

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
        """Write artifacts and events, all or none, durable on return (see `Store.append`)."""
        terms = Terms(lease, inbox_seen, takes, awaits, messages, begins)
        blobs = check_append(run_id, expected_seq, events, artifacts, terms)
        # in the order of their ids, so that neighbours in their index are written together
        blobs.sort(key=itemgetter(0))
        with self._session.writing() as conn:
            self._appends.write(conn, str(run_id), expected_seq, events=events, blobs=blobs, terms=terms)

    def acquire(self, run_id: str, owner: str, ttl_ms: int) -> Lease:
        """Take the run's lease (see `Store.acquire`)."""
        run_id = check_acquire(run_id, owner, ttl_ms)
        with self._session.writing("normal") as conn:
            return sqlite_lease.acquire(
                conn, self._name, run_id, owner, ttl_ms=ttl_ms, now=self.clock(), left_ms=self._left_ms
            )

    def renew(self, lease: Lease) -> None:
        """Renew the lease for its time from now on.

        Raises `ConcurrencyError` (`lease_lost`) when it is not held.
        """
        with self._session.writing("normal") as conn:
            sqlite_lease.renew(conn, self._name, lease, self.clock())

    def release(self, lease: Lease) -> None:
        """Release the lease; no error when it is lost already."""
        with self._session.writing("normal") as conn:
            self._appends.forget(lease.run_id)
            sqlite_lease.release(conn, self._name, lease)

    def lease_of(self, run_id: str) -> HeldLease | None:
        """Return the lease that keeps others out of the run, or None."""
        with self._session as conn:
            return sqlite_lease.lease_of(conn, self._name, text(run_id), self._left_ms)

    def _left_ms(self, held: HeldLease) -> int | None:
        return self._watch.left_ms(held, self.boot_clock())

    def _now(self) -> int:
        return self.clock()  # a test may replace it

    def post(self, run_id: str, kind: str, data: Any, *, passes_on: bool = True) -> int:
        """Put a message into the run's inbox, durable on return, and return its number (see `Store.post`)."""
        encoded = check_message(kind, data)
        with self._session.writing() as conn:
            run = sqlite_inbox.last_segment(conn, text(run_id)) if passes_on else text(run_id)
            return sqlite_inbox.post(conn, run, str(kind), encoded, self.clock())

    def inbox(self, run_id: str, after: int = 0) -> list[Message]:
        """Return the run's messages with a number above `after`, in order. Raises `NotFoundError`."""
        with self._session as conn:
            return sqlite_inbox.messages(conn, text(run_id), after)

    def due_runs(self, now_ms: int, limit: int = 50, *, op: str | None = None) -> list[str]:
        """Return ids of suspended runs that can continue (see `Store.due_runs`)."""
        now_ms, limit = check_due(now_ms, limit)
        with self._session as conn:
            return sqlite_due.due_runs(conn, now_ms, limit, None if op is None else text(op))

    def last_segment(self, run_id: str) -> str:
        """Return the last run of the chain that a run belongs to (see `Store.last_segment`)."""
        with self._session as conn:
            return sqlite_inbox.last_segment(conn, text(run_id))

    def find_invocation(self, key: str) -> str | None:
        """Return the id of the run whose first event has this invocation key, or None."""
        with self._session as conn:
            found = conn.execute(FIND_INVOCATION, (text(key),)).fetchone()
        return None if found is None else str(found[0])

    def read_range(self, run_id: str, from_seq: int = 1, to_seq: int | None = None) -> Iterator[StoredEvent]:
        """Yield events in order, of the log as it was at the call (see `Store.read_range`)."""
        with self._session as conn:
            found = find_run(conn, text(run_id))
        key, head_seq = found[:2] if found else (0, 0)
        first, last = check_range(from_seq, to_seq, head_seq or 0)
        return self._read(key, first, last)

    def _read(self, key: int, first: int, last: int) -> Iterator[StoredEvent]:
        while first <= last:
            with self._session as conn:
                rows = conn.execute(_READ, (key, first, last, _CHUNK)).fetchall()
            for row in rows:
                yield event_of(row)
            if len(rows) < _CHUNK:
                return
            first = rows[-1][0] + 1

    def put(self, kind: str, data: bytes) -> str:
        """Store bytes and return their id; storing the same bytes again changes nothing."""
        check_kind(kind)
        check_size(data)
        artifact_id = hash_of(data)
        if not self.exists(artifact_id):
            with self._session as conn:
                self._session.check_place()
                conn.execute(NEW_ARTIFACT, (bytes.fromhex(artifact_id), str(kind), data))
        return artifact_id

    def _artifact(self, artifact_id: str, column: str) -> Any:
        key = artifact_key(artifact_id)
        with self._session as conn:
            query = f"SELECT {column} FROM artifacts WHERE id = ?"  # noqa: S608 - one of three constants
            found = conn.execute(query, (key,)).fetchone()
        if found is None:
            raise no_artifact(artifact_id)
        return found[0]

    def get(self, artifact_id: str) -> bytes:
        """Return an artifact's bytes, hashed again. Raises `NotFoundError` or `CorruptionError`."""
        data = self._artifact(artifact_id, "data")
        if type(data) is not bytes or hash_of(data) != artifact_id:
            raise CorruptionError(
                f"artifact {artifact_id} does not hash to its id", code=Code.ARTIFACT_CORRUPT
            )
        return data

    def kind(self, artifact_id: str) -> str:
        """Return the kind an artifact was first stored under. Raises `NotFoundError`."""
        kind = self._artifact(artifact_id, "kind")
        if type(kind) is not str:
            raise CorruptionError(
                f"the kind of artifact {artifact_id} is damaged", code=Code.ARTIFACT_CORRUPT
            )
        return kind

    def exists(self, artifact_id: str) -> bool:
        """Say whether the artifact exists; its bytes are not checked."""
        key = artifact_key(artifact_id)
        with self._session as conn:
            return conn.execute("SELECT 1 FROM artifacts WHERE id = ?", (key,)).fetchone() is not None

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
        limit, cursor, labelled = check_limit(limit), check_cursor(cursor), checked_labels(labels or {})
        # by key, the order of arrival; the + prevents SQLite from sorting all that an index finds: few are running
        indexed = indexed_status(status)
        few = indexed == RunStatus.RUNNING and op is None
        terms = [("status = ?" if few else "+status = ?", indexed), ("+op_id = ?", op)]
        given = [(term, text(value)) for term, value in terms if value is not None]
        chosen = () if segments else (_ENDS_CHAIN,)
        where = " AND ".join(
            ["key < ?", *(term for term, _ in given), *[_HAS_LABEL] * len(labelled), *chosen]
        )
        values = [*(value for _, value in given), *chain.from_iterable(labelled.items())]
        query = f"SELECT key, {RUN_COLUMNS} FROM runs WHERE {where} ORDER BY key DESC LIMIT ?"  # noqa: S608
        rows: list[RunRow] = []
        with self._session as conn:
            before = MAX_SEQ if cursor is None else self._key(conn, cursor)
            while len(rows) <= limit:
                found = conn.execute(query, (before, *values, limit + 1)).fetchall()
                told = [self._told(conn, row_of(columns)) for _, *columns in found]
                rows += [row for row in told if status in {None, row.status}]
                if len(found) <= limit:
                    break
                before = found[-1][0]
        return RunPage(rows=rows[:limit], cursor=rows[limit - 1].run_id if len(rows) > limit else None)

    def _key(self, conn: sqlite3.Connection, cursor: str) -> int:
        found = conn.execute("SELECT key FROM runs WHERE run_id = ?", (cursor,)).fetchone()
        if found is None:
            raise unknown_cursor(cursor)
        return int(found[0])

    def _told(self, conn: sqlite3.Connection, row: RunRow) -> RunRow:
        held = functools.partial(sqlite_lease.lease_of, conn, self._name, row.run_id, self._left_ms)
        return as_told(row, held, self.clock)

    def run_row(self, run_id: str) -> RunRow:
        """Return one run's row of the index, as `list_runs` reports it. Raises `NotFoundError`."""
        with self._session as conn:
            found = find_run(conn, text(run_id))
            if found is None:
                raise no_run(run_id)
            return self._told(conn, row_of(found[2:]))

    def count_events(self, run_id: str) -> int:
        """Count the run's events; 0 for an unknown run."""
        query = f"SELECT count(*) FROM events WHERE run = {_RUN}"  # noqa: S608 - constants
        with self._session as conn:
            return int(conn.execute(query, (text(run_id),)).fetchone()[0])

    def find_runs(self, prefix: str, limit: int = 10) -> list[str]:
        """Return ids of runs that begin with `prefix`, newest first."""
        limit = check_limit(limit)
        possible = is_run_prefix(prefix)
        query = "SELECT run_id FROM runs WHERE run_id >= ? AND run_id < ? ORDER BY key DESC LIMIT ?"
        with self._session as conn:
            if not possible:
                return []
            # "g" comes after every character that may follow in a run id
            found = conn.execute(query, (prefix, f"{prefix}g", limit)).fetchall()
        return [run_id for (run_id,) in found]

    def integrity_problems(self) -> list[str]:
        """Check the file's structure, its schema and its index against the logs; empty when sound."""
        with self._session:
            found = self._session.out_of_place()
        if found:
            return [str(found)]
        connected = functools.partial(
            connect, self._path, synchronous=self._synchronous, busy_timeout=self._busy_timeout
        )
        return problems_of(connected, self._path, self._name)

    def close(self) -> None:
        """Release the store; twice is harmless."""
        self._session.close()
