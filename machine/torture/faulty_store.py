"""A real SQLite store with a fault at one append.

Everything but the fault is `SqliteStore` itself, including its error handling. It must never report as appended
an event that it has not appended, except for a fault that consists of just that.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from machine import codec
from machine.errors import OtherStoreError
from machine.events import Artifact, EffectIntended
from machine.stores.base import CommitLimits, StoredEvent
from machine.stores.sqlite import SqliteStore
from machine.torture.crashed_disk import copy_image, copy_log, spoil, tear
from machine.torture.faults import Blow, Fault, Pace, PowerCut

_UNBOUNDED: Final = 2**62
_PATIENCE: Final = 0.01
"""Seconds that this store waits for a lock: the one that holds it does not mean to let go."""

_FAILURES: Final = {
    Fault.ENOSPC: (sqlite3.SQLITE_FULL, "SQLITE_FULL", "database or disk is full"),
    Fault.EIO: (1034, "SQLITE_IOERR_FSYNC", "disk I/O error"),
}


_NOW_MS: Final = 4_102_444_800_000
"""A time far from now, in milliseconds since the epoch."""


def fixed_clock() -> int:
    """Return always the same time, as the answers to waits hold their times: they are the same in each run."""
    return _NOW_MS


class TorturedStore(SqliteStore):
    """The store of one simulated process, which fails at the fault `blow`.

    Its `commit_limits` make the run append event by event, or as late as possible, and its writer immediately.
    `appended` is the number of durable events, and `appends` has the first and the last seq of each append.
    """

    write_behind: bool = False

    def __init__(self, path: Path, *, blow: Blow | None = None) -> None:
        super().__init__(path, busy_timeout=_PATIENCE)
        self.clock = fixed_clock
        self._runs_ahead: Final = blow is not None and blow.pace is not Pace.EACH
        self.write_behind = blow is not None and blow.pace is Pace.BEHIND
        late = blow is not None and blow.seq == 1 and self._runs_ahead
        self.commit_limits = CommitLimits(max_pending=_UNBOUNDED if late else 1, max_delay=0.0)
        self.appended: list[StoredEvent] = []
        self.appends: list[tuple[int, int]] = []
        self.told = 0
        """Number of events reported as durable, with those that the disk wrongly acknowledged."""
        self.intents: Counter[str] = Counter()
        """Number of effect intents among them, by request digest."""
        self.struck = False
        self.fault_occurred: Final = threading.Event()
        """Set when the fault has occurred, for a run that learns of it later."""
        self.dead = False
        self.accepted_twice = False
        self._place: Final = Path(path)
        self._blow: Final = blow
        self._image: Path | None = None

    def append(
        self,
        run_id: str,
        expected_seq: int,
        events: Sequence[StoredEvent],
        artifacts: Sequence[Artifact] = (),
        **more: Any,
    ) -> None:
        """Append as `SqliteStore.append` does until the event of the fault; from then on do what the fault does."""
        if self.dead:
            raise PowerCut
        blow = self._blow

        def take() -> None:
            super(TorturedStore, self).append(run_id, expected_seq, events, artifacts, **more)

        if blow is None or not events or events[-1].seq < blow.seq:
            take()
            self._note(events)
            if blow is not None and self._runs_ahead and events and events[-1].seq == blow.seq - 1:
                self.commit_limits.max_pending = _UNBOUNDED
            return
        if blow.fault is Fault.KILLED_AFTER_RETURN:  # which the simulated I/O detects
            take()
            self._note(events)
            return
        again, self.struck = self.struck, True
        try:
            self._strike(blow, run_id, events, take, again=again)
        finally:
            self.fault_occurred.set()

    def _strike(
        self,
        blow: Blow,
        run_id: str,
        events: Sequence[StoredEvent],
        take: Callable[[], None],
        *,
        again: bool,
    ) -> None:
        match blow.fault:
            case Fault.KILLED_BEFORE_APPEND:
                self._die()
            case Fault.KILLED_AFTER_APPEND:
                take()
                self._note(events)
                self._die()
            case Fault.TORN_WRITE if blow.unnoticed:
                take()
                image = self._copy()
                spoil(image, run_id, events[-1].seq)
                self._die(image)
            case Fault.TORN_WRITE:
                image = self._copy()
                take()
                # the old database with the new log: SQLite writes a commit to its log before anything else
                copy_log(self._place, image)
                tear(image)
                self._die(image)
            case Fault.FSYNC_LOST if again:
                self._die(self._image)
            case Fault.FSYNC_LOST:
                self._image = self._copy()
                take()
                self._tell(events)  # and the run may rely on it
                self.commit_limits.max_pending = _UNBOUNDED
            case Fault.DUPLICATE_APPEND if not again:
                take()
                take()
                self.accepted_twice = True
                self._note(events)
            case Fault.STORE_LOCKED if not again:
                with self._locked_by_another():
                    take()
            case Fault.ENOSPC | Fault.EIO:
                with self._failing(*_FAILURES[blow.fault]):
                    take()
            case _:
                take()
                self._note(events)

    def leave(self) -> Path:
        """End this process and return the path of the store as it is on the disk now."""
        self.dead = True
        self.close()
        return self._image or self._place

    def kill(self) -> NoReturn:
        """End the simulated process here, with the store as it is, by raising `PowerCut`."""
        self._die()

    def _note(self, events: Sequence[StoredEvent]) -> None:
        self.appended += events
        self._tell(events)
        if events:
            self.appends.append((events[0].seq, events[-1].seq))

    def _tell(self, events: Sequence[StoredEvent]) -> None:
        self.told += len(events)
        self.intents.update(_intents(events))

    def _copy(self) -> Path:
        return copy_image(self._place, self._place.parent / "left")

    def _die(self, image: Path | None = None) -> NoReturn:
        self._image = image or self._copy()
        self.dead = True
        raise PowerCut

    @contextmanager
    def _locked_by_another(self) -> Iterator[None]:
        other = sqlite3.connect(self._place, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
        finally:
            other.close()

    @contextmanager
    def _failing(self, code: int, name: str, text: str) -> Iterator[None]:
        """Make every commit fail as SQLite itself would."""
        conn = self._session.conn
        if conn is None:
            raise OtherStoreError("the store is closed")
        self._session.conn = cast("sqlite3.Connection", _FailingCommit(conn, code, name, text))
        try:
            yield
        finally:
            self._session.conn = conn


class _FailingCommit:
    """A connection that works except for COMMIT."""

    def __init__(self, conn: sqlite3.Connection, code: int, name: str, text: str) -> None:
        self._conn = conn
        self._error = sqlite3.OperationalError(text)
        self._error.sqlite_errorcode, self._error.sqlite_errorname = code, name

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Execute a statement, or fail to commit."""
        if sql == "COMMIT":
            raise self._error
        return self._conn.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)


def _intents(events: Sequence[StoredEvent]) -> Iterator[str]:
    for stored in events:
        if b'"type":"effect_intended"' in stored.data:
            event = codec.decode_entry(stored.seq, stored.data).event
            if isinstance(event, EffectIntended):
                yield event.request_digest
