"""Conformance tests of suspended runs: the last look at the inbox, and which runs are due."""

from __future__ import annotations

from typing import Any

import pytest

from machine.canonical import artifact_id
from machine.errors import Code, ConcurrencyError, UsageError
from machine.stores.base import Message, Store
from machine.testing.conformance_sharing import THREADS, SharedStoreConformance, StoreFactory, contended
from machine.testing.store_samples import (
    ANSWER,
    OTHER,
    RESUMED,
    RUN,
    Clock,
    artifact_of,
    log_of,
    read_log,
    run_id_of,
    suspend,
    suspended,
    then,
)


class DueConformance(SharedStoreConformance):
    """The part of `StoreConformance` about suspended runs."""

    # the last look at the inbox

    def test_a_message_that_was_not_seen_stops_an_append(self, store: Store) -> None:
        """Check that `inbox_moved` names the last message, and that nothing is written."""
        log = log_of(RUN, 1)
        store.append(RUN, 0, log, inbox_seen=0)
        store.append(OTHER, 0, log_of(OTHER, 1))
        store.post(RUN, "signal", {})
        store.post(RUN, "signal", {})
        for seen in (0, 1):
            for events in (then(store, RUN, suspended(None)), []):
                with pytest.raises(ConcurrencyError) as caught:
                    store.append(RUN, 1, events, [artifact_of(b"with it")], inbox_seen=seen)
                assert caught.value.code == Code.INBOX_MOVED
                assert caught.value.info.details == {"run_id": RUN, "seen": seen, "last": 2}
        assert read_log(store, RUN) == log
        assert not store.exists(artifact_id(b"with it"))
        store.append(RUN, 1, then(store, RUN, suspended(None)), inbox_seen=2)
        store.append(OTHER, 1, then(store, OTHER, suspended(None)), inbox_seen=0)
        assert store.run_row(RUN).status == store.run_row(OTHER).status == "suspended"

    def test_a_driver_is_held_to_what_it_has_seen(self, store: Store) -> None:
        """Check that the lease of a run that is driven makes no difference, and is looked at first."""
        lease = store.acquire(RUN, "one", 60_000)
        store.append(RUN, 0, log_of(RUN, 1), lease=lease)
        store.append(RUN, 1, then(store, RUN, ANSWER), lease=lease, inbox_seen=0)
        store.post(RUN, "signal", {})
        with pytest.raises(ConcurrencyError) as caught:
            store.append(RUN, 2, then(store, RUN, ANSWER), lease=lease, inbox_seen=0)
        assert caught.value.code == Code.INBOX_MOVED
        with pytest.raises(ConcurrencyError) as caught:
            store.append(RUN, 1, then(store, RUN, ANSWER)[:0], lease=lease, inbox_seen=0)
        assert caught.value.code == Code.CONCURRENCY
        store.release(lease)
        with pytest.raises(ConcurrencyError) as caught:
            store.append(RUN, 2, then(store, RUN, ANSWER), lease=lease, inbox_seen=0)
        assert caught.value.code == Code.LEASE_LOST

    @pytest.mark.parametrize("seen", [-1, 1.5, "0", 2**80])
    def test_a_bad_number_of_a_message_is_refused(self, store: Store, seen: Any) -> None:
        """Check that only the number of a message, or 0, can have been seen."""
        with pytest.raises(UsageError):
            store.append(RUN, 0, log_of(RUN, 1), inbox_seen=seen)
        assert not store.run_exists(RUN)

    def test_a_run_is_never_suspended_over_a_message(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that a message posted while a run is being suspended stops that, or makes the run due."""
        runs = [run_id_of(number) for number in range(20)]
        for run_id in runs:
            store.append(run_id, 0, log_of(run_id, 1))

        def act(name: int, handle: Store) -> list[str]:
            moved = []
            for run_id in runs:
                if name:
                    handle.post(run_id, "signal", {})
                    continue
                try:
                    handle.append(run_id, 1, then(handle, run_id, suspended(None)), inbox_seen=0)
                except ConcurrencyError:
                    moved.append(run_id)
            return moved

        moved = contended(store, store_factory, act)[0]
        assert {len(store.inbox(run_id)) for run_id in runs} == {THREADS - 1}
        assert sorted([*moved, *store.due_runs(2**60, 100)]) == runs

    # which runs are due

    def test_a_suspended_run_is_due_at_its_earliest_time(self, store_factory: StoreFactory) -> None:
        """Check that the row has the time, that the run is due from it on, and that both survive reopening."""
        with store_factory() as store:
            suspend(store, RUN, 9_000, None, 7_000, 8_000)
            suspend(store, OTHER, None)
            assert (store.run_row(RUN).wake_ms, store.run_row(OTHER).wake_ms) == (7_000, None)
        with store_factory() as again:
            assert {row.run_id: row.wake_ms for row in again.list_runs().rows} == {RUN: 7_000, OTHER: None}
            assert again.due_runs(6_999) == []
            assert again.due_runs(7_000) == again.due_runs(2**80) == [RUN]
            assert again.integrity_problems() == []

    @pytest.mark.parametrize("status", ["completed", None])
    def test_a_run_that_goes_on_is_not_due(self, store: Store, status: str | None) -> None:
        """Check that a run that was resumed or has ended is due neither by its time nor by its messages."""
        suspend(store, RUN, 5)
        store.post(RUN, "signal", {})
        assert store.due_runs(5) == [RUN]
        body = b'{"status":"%b","type":"run_completed"}' % status.encode() if status else RESUMED
        store.append(RUN, 2, then(store, RUN, body))
        assert store.run_row(RUN).wake_ms is None
        store.post(RUN, "signal", {})
        assert store.due_runs(2**60) == []
        assert store.integrity_problems() == []

    def test_a_run_that_is_suspended_again_waits_anew(self, store: Store) -> None:
        """Check that neither the earlier time nor the earlier messages make it due."""
        suspend(store, RUN, 5)
        store.post(RUN, "signal", {})
        store.append(RUN, 2, then(store, RUN, RESUMED, suspended(9)), inbox_seen=1)
        assert (store.due_runs(8), store.due_runs(9)) == ([], [RUN])

    @pytest.mark.parametrize("what", ["message", "fact"])
    def test_what_a_suspended_run_receives_makes_it_due_at_once(self, store: Store, what: str) -> None:
        """Check that a message and an event do, whatever the time is, and that earlier messages do not."""
        store.append(RUN, 0, log_of(RUN, 1))
        store.post(RUN, "signal", {})
        store.append(RUN, 1, then(store, RUN, suspended(None, 10_000)))
        assert store.due_runs(0) == []
        if what == "message":
            store.post(RUN, "signal", {})
        else:
            store.append(RUN, 2, then(store, RUN, ANSWER))
        assert store.due_runs(0) == [RUN]
        assert store.run_row(RUN).wake_ms == 10_000  # noqa: PLR2004 - still what its log says
        assert store.integrity_problems() == []

    def test_a_fact_of_the_driver_makes_a_suspended_run_due(self, store: Store) -> None:
        """Check that an append under a lease is no exception."""
        lease = store.acquire(RUN, "one", 60_000)
        store.append(RUN, 0, log_of(RUN, 1), lease=lease)
        store.append(RUN, 1, then(store, RUN, suspended(None)), lease=lease)
        store.append(RUN, 2, then(store, RUN, ANSWER), lease=lease)
        assert store.due_runs(0) == [RUN]

    def test_a_message_of_no_use_does_not_keep_a_run_due(self, store: Store) -> None:
        """Check that an append without events, by a driver that has seen the last message, ends that it is due."""
        suspend(store, RUN, None, 10_000)
        store.post(RUN, "signal", {})
        store.append(RUN, 2, [])
        assert store.due_runs(0) == [RUN]
        store.append(RUN, 2, [], inbox_seen=1)
        assert (store.due_runs(9_999), store.due_runs(10_000)) == ([], [RUN])
        store.post(RUN, "signal", {})
        assert store.due_runs(0) == [RUN]

    def test_what_is_due_for_longest_comes_first(self, store: Store) -> None:
        """Check the order over both reasons, the limit, and the filter by op."""
        store.clock = clock = Clock(50)
        by_time = {1: 40, 2: 20, 3: 90, 4: None, 5: 60}
        for number, due_ms in by_time.items():
            suspend(store, run_id_of(number), due_ms, op="odd" if number % 2 else "even")
        store.post(run_id_of(4), "signal", {})
        clock.now = 55
        store.post(run_id_of(4), "signal", {})
        store.post(run_id_of(5), "signal", {})

        def due(now_ms: int, limit: int = 50, op: str | None = None) -> list[int]:
            return [int(run_id[:8], 16) for run_id in store.due_runs(now_ms, limit, op=op)]

        assert due(100) == [2, 1, 4, 5, 3]
        assert due(60) == [2, 1, 4, 5]
        assert due(0) == [4, 5]
        assert [due(100, limit) for limit in (1, 3, 2**80)] == [[2], [2, 1, 4], [2, 1, 4, 5, 3]]
        assert (due(100, op="odd"), due(100, 1, "even"), due(100, op="\ud800")) == ([1, 5, 3], [2], [])

    @pytest.mark.parametrize(("now_ms", "limit"), [(0, 0), (0, -1), (0, None), (-1, 1), (1.5, 1), (None, 1)])
    def test_a_bad_look_for_due_runs_is_refused(self, store: Store, now_ms: Any, limit: Any) -> None:
        """Check that a time is a whole number, and that a limit is at least 1."""
        with pytest.raises(UsageError):
            store.due_runs(now_ms, limit)

    # from another store

    def test_a_run_brings_its_messages_from_another_store(self, store: Store) -> None:
        """Check that they come with the whole log, retain numbers and times, and make a suspended run due."""
        messages = [Message(1, "signal", {"a": 1}, 7), Message(2, "answer", None, 9)]
        log = log_of(RUN, 1)
        store.append(RUN, 0, log, messages=messages)
        assert (store.inbox(RUN), store.due_runs(0)) == (messages, [])
        assert store.post(RUN, "signal", {}) == 3  # noqa: PLR2004 - the next one
        body = then(store, RUN, suspended(None))[0]
        whole = [*log_of(OTHER, 1), *then(store, OTHER, suspended(None))]
        whole[1] = body._replace(seq=2)
        store.append(OTHER, 0, whole, messages=messages)
        assert (store.inbox(OTHER), store.due_runs(0)) == (messages, [OTHER])

    @pytest.mark.parametrize(
        "messages",
        [
            [Message(2, "signal", {}, 7)],
            [Message(1, "", {}, 7)],
            [Message(1, "signal", {}, -1)],
            [Message(1, "signal", {}, 7), Message(1, "signal", {}, 7)],
        ],
    )
    def test_messages_that_no_inbox_had_are_refused(self, store: Store, messages: list[Message]) -> None:
        """Check that they are numbered from 1, have a kind and a time, and that nothing is written otherwise."""
        with pytest.raises(UsageError):
            store.append(RUN, 0, log_of(RUN, 1), messages=messages)
        assert not store.run_exists(RUN)
        store.append(RUN, 0, log_of(RUN, 1))
        with pytest.raises(UsageError):
            store.append(RUN, 1, then(store, RUN, ANSWER), messages=[Message(1, "signal", {}, 7)])
        assert store.inbox(RUN) == []
