"""Conformance tests of several callers of one store, and of closing it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeAlias, TypeVar

import pytest

from machine.errors import Code, ConcurrencyError, OtherStoreError
from machine.stores.base import ZERO_CHAIN, Store, StoredEvent
from machine.testing.store_samples import LONG, OTHER, RUN, log_of, read_log, schedule_of

T = TypeVar("T")

THREADS: Final = 4

StoreFactory: TypeAlias = Callable[[], Store]
"""A callable that opens the same store on each call."""


def contended(store: Store, store_factory: StoreFactory, act: Callable[[int, Store], T]) -> list[T]:
    """Return what `act` returns in each of some threads, which begin together, over two handles in turn."""
    ready = threading.Barrier(THREADS)

    def one(name: int, handle: Store) -> T:
        ready.wait()
        return act(name, handle)

    with store_factory() as other, ThreadPoolExecutor(THREADS) as pool:
        acts = [pool.submit(one, name, (store, other)[name % 2]) for name in range(THREADS)]
        return [done.result(timeout=60) for done in acts]


class SharedStoreConformance:
    """The part of `StoreConformance` about threads, handles and closing."""

    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        """Return a callable that opens the same store again; empty before the first test step."""
        raise NotImplementedError("override the store_factory fixture")

    @pytest.fixture
    def store(self, store_factory: StoreFactory) -> Iterator[Store]:
        """Open the store under test, and close it afterwards."""
        with store_factory() as store:
            yield store

    # several callers

    def test_one_appender_wins_each_seq(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that threads that contend for one run over two handles neither lose nor repeat an event."""
        each = 15

        def fight(name: int, handle: Store) -> list[int]:
            won: list[int] = []
            while len(won) < each:
                seq = handle.latest_seq(RUN)
                event = StoredEvent(seq + 1, b"%d:%d" % (name, len(won)), ZERO_CHAIN)
                try:
                    handle.append(RUN, seq, [event])
                except ConcurrencyError:
                    continue
                won.append(seq + 1)
            return won

        won = contended(store, store_factory, fight)
        assert sorted(seq for seqs in won for seq in seqs) == list(range(1, THREADS * each + 1))
        log = read_log(store, RUN)
        for name, seqs in enumerate(won):
            assert [log[seq - 1].data for seq in seqs] == [b"%d:%d" % (name, n) for n in range(each)]

    def test_a_paused_reader_stops_nobody(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that a reader reads the log as of the call, however long it takes and whatever is appended."""
        log = log_of(RUN, LONG)
        store.append(RUN, 0, log)
        paused = store.read_range(RUN)
        head = list(islice(paused, 3))
        with store_factory() as other:
            store.append(RUN, LONG, log_of(RUN, 1, first=LONG + 1))
            other.append(RUN, LONG + 1, log_of(RUN, 1, first=LONG + 2))
        assert head + list(paused) == log
        assert store.count_events(RUN) == LONG + 2

    # closing

    def test_closing_twice_is_harmless(self, store_factory: StoreFactory) -> None:
        """Check that closing twice, and leaving the context of a closed store, are harmless."""
        with store_factory() as store:
            store.close()
            store.close()

    def test_a_closed_store_says_so(self, store_factory: StoreFactory) -> None:
        """Check that every method, and a paused reader, raises `store_closed`."""
        with store_factory() as store:
            store.append(RUN, 0, log_of(RUN, LONG))
            lease = store.acquire(RUN, "one", 60_000)
            paused = store.read_range(RUN)
            next(paused)
        uses: list[Callable[[], object]] = [
            lambda: store.head(RUN),
            lambda: store.append(RUN, LONG, log_of(RUN, 1, first=LONG + 1)),
            lambda: store.acquire(OTHER, "one", 1_000),
            lambda: store.renew(lease),
            lambda: store.release(lease),
            lambda: store.lease_of(RUN),
            lambda: store.post(RUN, "signal", {}),
            lambda: store.inbox(RUN),
            lambda: store.due_runs(0),
            lambda: store.post_signal("paid", "7", {}),
            store.signals,
            lambda: store.awaiting("paid", "7"),
            lambda: store.find_invocation("key"),
            lambda: store.last_invocation("a", "b"),
            lambda: store.add_schedule(schedule_of("one")),
            store.schedules,
            lambda: store.pause_schedule("one", paused=True),
            lambda: store.remove_schedule("one"),
            store.secret_key,
            store.secret_key_id,
            lambda: store.data_key(RUN),
            store.data_keys,
            lambda: store.add_data_key(RUN, "key", b"wrapped"),
            lambda: store.forget_data_key(RUN),
            lambda: store.rewrap_data_keys("key", "other", bytes),
            lambda: store.read_range(RUN),
            lambda: list(paused),
            lambda: store.put("output", b""),
            lambda: store.get("0" * 64),
            lambda: store.kind("0" * 64),
            lambda: store.exists("0" * 64),
            store.list_runs,
            lambda: store.run_row(RUN),
            lambda: store.run_exists(RUN),
            lambda: store.count_events(RUN),
            lambda: store.latest_seq(RUN),
            lambda: store.find_runs(""),
            store.integrity_problems,
        ]
        for use in uses:
            with pytest.raises(OtherStoreError) as caught:
                use()
            assert caught.value.code == Code.STORE_CLOSED
        with store_factory() as again:
            assert again.latest_seq(RUN) == LONG
