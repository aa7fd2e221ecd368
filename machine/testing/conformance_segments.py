"""Conformance tests of runs that go on as another: one append ends a run and begins the next."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from machine.errors import Code, ConcurrencyError, UsageError
from machine.kernel.segments import FIRST_RUN, NEXT_RUN, PREVIOUS_RUN, SEGMENT
from machine.stores.base import Beginning, Message, Store, StoredEvent
from machine.stores.lease import Lease
from machine.testing.conformance_sharing import SharedStoreConformance, StoreFactory
from machine.testing.store_samples import OTHER, RUN, artifact_of, log_of, read_log, run_id_of

_ARTIFACT = artifact_of(b"the input")


def _end(run_id: str, chain: bytes, next_id: str) -> list[StoredEvent]:
    """Return the end of a run that has one event and goes on as another."""
    return log_of(run_id, 1, first=2, chain=chain, status="completed", info={NEXT_RUN: next_id})


def _first(run_id: str, previous: str, first: str, number: int) -> list[StoredEvent]:
    return log_of(run_id, 1, info={PREVIOUS_RUN: previous, FIRST_RUN: first, SEGMENT: str(number)})


def _go_on(
    store: Store,
    lease: Lease,
    run_id: str,
    next_id: str,
    *,
    first: str | None = None,
    number: int = 2,
    messages: Sequence[Message] = (),
    **terms: Any,
) -> Lease:
    """Have a run that has one event go on as another, and return the lease on that."""
    next_lease = store.acquire(next_id, "me", 60_000)
    begins = Beginning(next_lease, _first(next_id, run_id, first or run_id, number), messages)
    end = _end(run_id, read_log(store, run_id)[-1].chain, next_id)
    store.append(run_id, 1, end, [_ARTIFACT], lease=lease, begins=begins, **terms)
    return next_lease


class SegmentConformance(SharedStoreConformance):
    """The part of `StoreConformance` about runs that go on as another."""

    def test_one_append_ends_a_run_and_begins_the_next(self, store_factory: StoreFactory) -> None:
        """Check that both logs, the inbox of the next run and the index are there, and after reopening too."""
        messages = [Message(1, "signal", {"name": "a"}, 5), Message(2, "cancel", {}, 6)]
        with store_factory() as store:
            lease = store.acquire(RUN, "me", 60_000)
            store.append(RUN, 0, log_of(RUN, 1), lease=lease)
            next_lease = _go_on(store, lease, RUN, OTHER, messages=messages)
            store.append(OTHER, 1, log_of(OTHER, 2, first=2), lease=next_lease)
        with store_factory() as again:
            assert [event.seq for event in read_log(again, RUN)] == [1, 2]
            assert [event.seq for event in read_log(again, OTHER)] == [1, 2, 3]
            assert again.inbox(OTHER) == messages
            assert again.get(_ARTIFACT.id) == b"the input"
            before, after = again.run_row(RUN), again.run_row(OTHER)
            assert (before.status, before.next_run_id, before.first_run_id, before.segment) == (
                *("completed", OTHER),
                *(None, None),
            )
            assert (after.first_run_id, after.segment, after.next_run_id) == (RUN, 2, None)
            assert again.integrity_problems() == []

    @pytest.mark.parametrize("why", ["begun", "leased", "lost", "moved", "stale"])
    def test_both_logs_are_written_or_neither(self, store: Store, why: str) -> None:
        """Check that nothing is written of either run where one of them may not be."""
        lease = store.acquire(RUN, "me", 60_000)
        store.append(RUN, 0, log_of(RUN, 1), lease=lease)
        next_lease = store.acquire(OTHER, "me", 60_000)
        terms: dict[str, Any] = {}
        expected, code = 1, Code.CONCURRENCY
        if why == "begun":
            store.append(OTHER, 0, log_of(OTHER, 1), lease=next_lease)
        elif why in {"leased", "lost"}:
            store.release(next_lease)
            code = Code.LEASE_LOST
            if why == "leased":
                store.acquire(OTHER, "another", 60_000)
        elif why == "moved":
            store.post(RUN, "signal", {})
            terms, code = {"inbox_seen": 0}, Code.INBOX_MOVED
        else:
            store.append(RUN, 1, log_of(RUN, 1, first=2), lease=lease)
        begins = Beginning(next_lease, _first(OTHER, RUN, RUN, 2))
        known = len(read_log(store, RUN)), len(read_log(store, OTHER))
        end = _end(RUN, read_log(store, RUN)[0].chain, OTHER)
        with pytest.raises(ConcurrencyError) as caught:
            store.append(RUN, expected, end, [_ARTIFACT], lease=lease, begins=begins, **terms)
        assert caught.value.code == code
        assert (len(read_log(store, RUN)), len(read_log(store, OTHER))) == known
        assert not store.exists(_ARTIFACT.id)
        assert store.run_row(RUN).next_run_id is None
        assert store.last_segment(RUN) == RUN
        assert store.integrity_problems() == []

    def test_a_beginning_needs_an_end_and_another_run(self, store: Store) -> None:
        """Check that a run is begun by the events that end another one, and by nothing else."""
        lease = store.acquire(RUN, "me", 60_000)
        store.append(RUN, 0, log_of(RUN, 1), lease=lease)
        next_lease = store.acquire(OTHER, "me", 60_000)
        end = _end(RUN, read_log(store, RUN)[0].chain, OTHER)
        bad = [
            ([], Beginning(next_lease, _first(OTHER, RUN, RUN, 2))),
            (end, Beginning(next_lease, [])),
            (end, Beginning(lease, _first(RUN, RUN, RUN, 2))),
            (end, Beginning(next_lease, log_of(OTHER, 1, first=2))),
        ]
        for events, begins in bad:
            with pytest.raises(UsageError):
                store.append(RUN, 1, events, lease=lease, begins=begins)
        assert not store.run_exists(OTHER)

    def test_the_last_segment_is_found_from_each(self, store: Store) -> None:
        """Check that each run of a chain leads to its last one, and that messages reach that."""
        ids = [run_id_of(number) for number in range(12)]
        lease = store.acquire(ids[0], "me", 60_000)
        store.append(ids[0], 0, log_of(ids[0], 1), lease=lease)
        for number, (run_id, next_id) in enumerate(itertools.pairwise(ids), 2):
            lease = _go_on(store, lease, run_id, next_id, first=ids[0], number=number)
        assert {store.last_segment(run_id) for run_id in ids} == {ids[-1]}
        for run_id in ids:
            store.post(run_id, "signal", run_id)
        assert [message.data for message in store.inbox(ids[-1])] == ids
        assert all(not store.inbox(run_id) for run_id in ids[:-1])
        assert store.post(ids[0], "answer", {}, passes_on=False) == 1
        assert [message.kind for message in store.inbox(ids[0])] == ["answer"]
        for unknown in (RUN, "nonsense", ""):
            assert store.last_segment(unknown) == unknown

    def test_a_chain_is_listed_as_its_last_run(self, store: Store) -> None:
        """Check that the list without segments has one row for a chain, on every page and with every filter."""
        ids = [run_id_of(number) for number in range(3)]
        for run_id in (RUN, ids[0]):
            lease = store.acquire(run_id, "me", 60_000)
            store.append(run_id, 0, log_of(run_id, 1), lease=lease)
        lease = _go_on(store, lease, ids[0], ids[1], first=ids[0], number=2)
        _go_on(store, lease, ids[1], ids[2], first=ids[0], number=3)
        assert [row.run_id for row in store.list_runs().rows] == [ids[2], ids[1], ids[0], RUN]
        page = store.list_runs(segments=False, limit=1)
        assert [row.run_id for row in page.rows] == [ids[2]]
        rest = store.list_runs(segments=False, limit=1, cursor=page.cursor)
        assert ([row.run_id for row in rest.rows], rest.cursor) == ([RUN], None)
        assert store.list_runs(segments=False, status="completed").rows == []
        assert [row.run_id for row in store.list_runs(segments=False, op="demo").rows] == [ids[2], RUN]

    def test_a_segment_whose_next_run_is_elsewhere_is_the_last(self, store: Store) -> None:
        """Check that a run is listed and found although it went on as one that this store does not have."""
        lease = store.acquire(OTHER, "me", 60_000)
        store.append(OTHER, 0, _first(OTHER, RUN, RUN, 7), lease=lease)
        store.append(OTHER, 1, _end(OTHER, read_log(store, OTHER)[0].chain, run_id_of(5)), lease=lease)
        assert [row.run_id for row in store.list_runs(segments=False).rows] == [OTHER]
        assert store.last_segment(OTHER) == OTHER
