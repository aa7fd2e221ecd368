"""A minimal model of a store, and random operations that compare a real store with it.

The model consists of dictionaries and `advance`; it must stay too simple to be wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from machine.canonical import artifact_id
from machine.envelope import chain_next, seal
from machine.errors import ConcurrencyError, NotFoundError
from machine.events import Artifact
from machine.kernel.run_index import RunRow, advance
from machine.stores.base import ZERO_CHAIN, Head, Store, StoredEvent
from machine.testing.store_samples import RESUMED, suspended

_BODIES = (
    b'{"op_id":"one","type":"run_started"}',
    b'{"op_id":"two","type":"run_started"}',
    b'{"status":"completed","type":"run_completed"}',
    b'{"status":"failed","type":"run_completed"}',
    b'{"state_id":"a.b.c","type":"state_entered"}',
    suspended(2_000, 1_000),
    suspended(None),
    RESUMED,
    b"not JSON",
)
_RUNS = st.integers(0, 3)
_BYTES = st.binary(max_size=40)
_KINDS = st.sampled_from(("output", "manifest", "of my own"))
_ARTIFACTS = st.lists(st.tuples(_BYTES, _KINDS), max_size=3)


def check_against_model(open_store: Callable[[], Store]) -> None:
    """Run random operations on the store that `open_store` opens and on the model, and compare.

    The store may hold other runs already: every example uses run ids and artifacts of its own.
    """
    numbers = count(1)
    run_state_machine_as_test(
        lambda: _Comparison(open_store, next(numbers)),  # type: ignore[arg-type]
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


class _Comparison(RuleBasedStateMachine):
    """One example: a store and a model that are given the same operations."""

    def __init__(self, open_store: Callable[[], Store], number: int) -> None:
        super().__init__()
        self.open_store = open_store
        self.store = open_store()
        self.prefix = f"{number:08x}-"
        self.salt = b"%d:" % number
        self.logs: dict[str, list[StoredEvent]] = {}
        self.rows: dict[str, RunRow] = {}
        self.artifacts: dict[str, tuple[str, bytes]] = {}
        self.inboxes: dict[str, int] = {}
        self.answered: set[str] = set()

    def teardown(self) -> None:
        self.store.close()

    def run_id(self, run: int) -> str:
        return f"{self.prefix}0000-7000-8000-{run:012x}"

    def known(self, artifacts: list[tuple[bytes, str]]) -> list[Artifact]:
        return [Artifact(artifact_id(self.salt + data), kind, self.salt + data) for data, kind in artifacts]

    @rule(
        run=_RUNS,
        bodies=st.lists(st.sampled_from(_BODIES), max_size=4),
        artifacts=_ARTIFACTS,
        off_by=st.sampled_from((0, 0, 0, 0, 1, -1, 5)),
        unseen=st.sampled_from((None, None, 0, 0, 1)),
    )
    def append(
        self,
        run: int,
        bodies: list[bytes],
        artifacts: list[tuple[bytes, str]],
        off_by: int,
        unseen: int | None,
    ) -> None:
        run_id = self.run_id(run)
        log = self.logs.get(run_id, [])
        expected, chain = max(0, len(log) + off_by), log[-1].chain if log else ZERO_CHAIN
        events: list[StoredEvent] = []
        for seq, body in enumerate(bodies, expected + 1):
            data = seal(seq, body, run_id, 1_700_000_000_000 + seq)
            chain = chain_next(chain, data)
            events.append(StoredEvent(seq, data, chain))
        last = self.inboxes.get(run_id, 0)
        seen = None if unseen is None else max(0, last - unseen)
        if expected != len(log) or (seen is not None and seen < last):
            with pytest.raises(ConcurrencyError):
                self.store.append(run_id, expected, events, self.known(artifacts), inbox_seen=seen)
            return
        self.store.append(run_id, expected, events, self.known(artifacts), inbox_seen=seen)
        for artifact in self.known(artifacts):
            self.artifacts.setdefault(artifact.id, (artifact.kind, artifact.data))
        if events:
            self.logs[run_id] = log + events
            self.rows[run_id] = advance(None, run_id, self.logs[run_id])
            if any(b'"type":"run_' in body for body in bodies):
                self.answered.discard(run_id)
            if self.rows[run_id].status == "suspended" and b'"type":"run_' not in bodies[-1]:
                self.answered.add(run_id)
        elif seen is not None:
            self.answered.discard(run_id)

    @rule(run=_RUNS)
    def post(self, run: int) -> None:
        run_id = self.run_id(run)
        if run_id not in self.rows:
            with pytest.raises(NotFoundError):
                self.store.post(run_id, "signal", {})
            return
        self.inboxes[run_id] = self.inboxes.get(run_id, 0) + 1
        assert self.store.post(run_id, "signal", {}) == self.inboxes[run_id]
        if self.rows[run_id].status == "suspended":
            self.answered.add(run_id)

    @rule(now_ms=st.sampled_from((999, 1_000, 2_000)))
    def due_runs(self, now_ms: int) -> None:
        wanted = self.answered | {
            row.run_id for row in self.rows.values() if row.wake_ms is not None and row.wake_ms <= now_ms
        }
        found = self.store.due_runs(now_ms, 10_000)
        assert {run_id for run_id in found if run_id.startswith(self.prefix)} == wanted
        assert len(found) == len(set(found))

    @rule(data=_BYTES, kind=_KINDS)
    def put(self, data: bytes, kind: str) -> None:
        (artifact,) = self.known([(data, kind)])
        assert self.store.put(kind, artifact.data) == artifact.id
        self.artifacts.setdefault(artifact.id, (kind, artifact.data))

    @rule(data=_BYTES)
    def get(self, data: bytes) -> None:
        (artifact,) = self.known([(data, "output")])
        assert self.store.exists(artifact.id) == (artifact.id in self.artifacts)
        if artifact.id in self.artifacts:
            found = (self.store.kind(artifact.id), self.store.get(artifact.id))
            assert found == self.artifacts[artifact.id]
        else:
            with pytest.raises(NotFoundError):
                self.store.get(artifact.id)

    @rule(run=_RUNS, first=st.integers(-1, 12), last=st.none() | st.integers(-1, 12))
    def read_range(self, run: int, first: int, last: int | None) -> None:
        log = self.logs.get(self.run_id(run), [])
        wanted = [event for event in log if first <= event.seq <= (len(log) if last is None else last)]
        assert list(self.store.read_range(self.run_id(run), first, last)) == wanted

    @rule(
        status=st.sampled_from((None, "pending", "running", "interrupted", "completed")),
        op=st.sampled_from((None, "", "one", "two")),
        limit=st.integers(1, 5),
    )
    def list_runs(self, status: str | None, op: str | None, limit: int) -> None:
        wanted = [
            row
            for row in map(_nobody_drives, reversed(self.rows.values()))
            if status in {None, row.status} and op in {None, row.op_id}
        ]
        filters: dict[str, Any] = {"status": status, "op": op, "limit": limit}
        found: list[RunRow] = []
        page = self.store.list_runs(**filters)
        # later examples come first; this one is the last, so what follows its rows belongs to others
        while page.rows and page.rows[0].run_id.startswith(self.prefix):
            found += [row for row in page.rows if row.run_id.startswith(self.prefix)]
            if page.cursor is None:
                break
            page = self.store.list_runs(**filters, cursor=page.cursor)
        assert found == wanted

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open_store()

    @invariant()
    def heads_agree(self) -> None:
        for run in range(4):
            log = self.logs.get(self.run_id(run), [])
            head = Head(log[-1].seq, log[-1].chain) if log else Head(0, ZERO_CHAIN)
            assert self.store.head(self.run_id(run)) == head
            assert self.store.count_events(self.run_id(run)) == len(log)
        assert self.store.find_runs(self.prefix) == list(reversed(self.logs))


def _nobody_drives(row: RunRow) -> RunRow:
    return row._replace(status="interrupted") if row.status == "running" else row
