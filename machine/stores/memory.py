"""A store in memory: for tests, dry runs and programs that do not need their runs after they end.

It keeps the whole contract but durability, which ends with the process; it must never be laxer than a store
on disk, or a test that passes on it would mean nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Self

import attrs

from machine.canonical import artifact_id as hash_of
from machine.errors import Code, Corruption
from machine.kernel.index import RunRow, advance
from machine.stores.base import ZERO_CHAIN, Artifact, Head, RunPage, StoredEvent
from machine.stores.checks import (
    check_append,
    check_cursor,
    check_kind,
    check_limit,
    check_range,
    check_size,
    closed,
    is_run_prefix,
    no_artifact,
    no_run,
    stale,
)

__all__ = ["MemoryStore"]


@attrs.define
class _Contents:
    """What the handles on one store share."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    logs: dict[str, list[StoredEvent]] = attrs.field(factory=dict)
    rows: dict[str, RunRow] = attrs.field(factory=dict)
    artifacts: dict[str, tuple[str, bytes]] = attrs.field(factory=dict)


class MemoryStore:
    """A `Store` in this process's memory.

    `shared_with` makes this a second handle on another's contents, as two connections to one file are: each
    is closed by itself, and the contents live as long as one handle does.
    """

    url: str = "memory://"
    write_behind: bool = False

    def __init__(self, *, shared_with: MemoryStore | None = None) -> None:
        self._contents: _Contents = shared_with._contents if shared_with else _Contents()  # noqa: SLF001
        self._closed = False

    def _open(self) -> _Contents:
        if self._closed:
            raise closed(self.url)
        return self._contents

    def head(self, run_id: str) -> Head:
        """Return where the run's log ends; `Head(0, ZERO_CHAIN)` for a run that has no events."""
        log = self._open().logs.get(run_id)
        return Head(log[-1].seq, log[-1].chain) if log else Head(0, ZERO_CHAIN)

    def append(
        self,
        run_id: str,
        expected_seq: int,
        events: Sequence[StoredEvent],
        artifacts: Sequence[Artifact] = (),
    ) -> None:
        """Write artifacts and events, all or none (see `Store.append`)."""
        contents = self._open()
        check_append(run_id, expected_seq, events, artifacts)
        run_id = str(run_id)
        with contents.lock:
            log = contents.logs.get(run_id, [])
            if len(log) != expected_seq:
                raise stale(run_id, expected_seq, len(log))
            row = advance(contents.rows.get(run_id), run_id, ((event.seq, event.data) for event in events))
            for artifact in artifacts:
                contents.artifacts.setdefault(str(artifact.id), (str(artifact.kind), artifact.data))
            if events:
                log.extend(events)
                contents.logs[run_id] = log
                contents.rows[run_id] = row

    def read_range(self, run_id: str, from_seq: int = 1, to_seq: int | None = None) -> Iterator[StoredEvent]:
        """Yield events in order, of the log as it stood at the call (see `Store.read_range`)."""
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
        """Return an artifact's bytes, re-hashed. Raises `NotFound`, or `Corruption` when the hash differs."""
        _, data = self._artifact(artifact_id)
        if hash_of(data) != artifact_id:
            raise Corruption(f"artifact {artifact_id} does not hash to its id", code=Code.ARTIFACT_CORRUPT)
        return data

    def kind(self, artifact_id: str) -> str:
        """Return the kind an artifact was first stored under. Raises `NotFound`."""
        return self._artifact(artifact_id)[0]

    def exists(self, artifact_id: str) -> bool:
        """Say whether the artifact is there; its bytes are not looked at."""
        return artifact_id in self._open().artifacts

    def list_runs(
        self,
        *,
        status: str | None = None,
        op: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Return rows of the index, newest first, filtered by status and op id."""
        contents = self._open()
        limit, cursor = check_limit(limit), check_cursor(cursor)
        with contents.lock:
            rows = [
                row
                for run_id, row in contents.rows.items()
                if (status is None or row.status == status)
                and (op is None or row.op_id == op)
                and (cursor is None or run_id < cursor)
            ]
        rows.sort(key=lambda row: row.run_id, reverse=True)
        return RunPage(rows=rows[:limit], cursor=rows[limit - 1].run_id if len(rows) > limit else None)

    def run_row(self, run_id: str) -> RunRow:
        """Return one run's row of the index. Raises `NotFound`."""
        row = self._open().rows.get(run_id)
        if row is None:
            raise no_run(run_id)
        return row

    def run_exists(self, run_id: str) -> bool:
        """Say whether the run has any event."""
        return run_id in self._open().logs

    def count_events(self, run_id: str) -> int:
        """Count the run's events; 0 for an unknown run."""
        return len(self._open().logs.get(run_id, ()))

    def head_seq(self, run_id: str) -> int:
        """Return the seq of the run's last event; 0 for an unknown run."""
        return self.head(run_id).seq

    def latest_seq(self, run_id: str) -> int:
        """Return the run's head seq; 0 for an unknown run."""
        return self.head(run_id).seq

    def find_runs(self, prefix: str, limit: int = 10) -> list[str]:
        """Return ids of runs that begin with `prefix`, newest first."""
        contents = self._open()
        limit = check_limit(limit)
        if not is_run_prefix(prefix):
            return []
        with contents.lock:
            found = [run_id for run_id in contents.rows if run_id.startswith(prefix)]
        return sorted(found, reverse=True)[:limit]

    def integrity_problems(self) -> list[str]:
        """Say which rows of the index are not what their logs say; memory has no structure to check."""
        contents = self._open()
        with contents.lock:
            logs = {run_id: list(log) for run_id, log in contents.logs.items()}
            rows = dict(contents.rows)
        return [
            f"run {run_id}: its index row is not what its log says"
            for run_id in sorted(logs.keys() | rows.keys())
            if advance(None, run_id, ((event.seq, event.data) for event in logs.get(run_id, ())))
            != rows.get(run_id)
        ]

    def close(self) -> None:
        """Release the store; twice is harmless."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
