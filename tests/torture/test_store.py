"""Each fault leaves on the disk exactly what it says, and tells the run what a store in that case tells."""

from __future__ import annotations

import pytest

from machine.engine.run_keeper import Keeper
from machine.errors import ConcurrencyError, OtherStoreError
from machine.events import chain_next, seal
from machine.stores.base import ZERO_CHAIN, StoredEvent
from machine.stores.sqlite import SqliteStore
from machine.torture.crashed_disk import tear
from machine.torture.faults import Blow, Fault, Pace, PowerCut
from machine.torture.faulty_store import TorturedStore

RUN = "01890000-0000-7000-8000-000000000001"


def log_of(count):
    chain, events = ZERO_CHAIN, []
    for seq in range(1, count + 1):
        data = seal(seq, b'{"op_id":"one","type":"run_started"}', RUN, 1_700_000_000_000)
        chain = chain_next(chain, data)
        events.append(StoredEvent(seq, data, chain))
    return events


def struck(path, fault, appends=4, at=3):
    """Append event by event into a blow at `at`. Return what came of it and what the disk has."""
    store = TorturedStore(path, blow=Blow(fault, at, at))
    ended = None
    try:
        for number, event in enumerate(log_of(appends)):
            store.append(RUN, number, [event])
    except (PowerCut, OtherStoreError, ConcurrencyError) as exc:
        ended = getattr(exc, "code", "dead")
    with SqliteStore(store.leave()) as left:
        assert left.integrity_problems() == []
        return ended, left.latest_seq(RUN), store


@pytest.mark.parametrize(
    ("fault", "ended", "left"),
    [
        (Fault.KILLED_BEFORE_APPEND, "dead", 2),
        (Fault.KILLED_AFTER_APPEND, "dead", 3),
        (Fault.TORN_WRITE, "dead", 2),
        (Fault.FSYNC_LOST, "dead", 2),
        (Fault.ENOSPC, "store_full", 2),
        (Fault.EIO, "store_failed", 2),
        (Fault.DUPLICATE_APPEND, "concurrency", 3),
        (Fault.STORE_LOCKED, "store_busy", 2),
    ],
)
def test_a_fault_leaves_what_it_says(fault, ended, left, tmp_path):
    said, kept, store = struck(tmp_path / "runs.db", fault)
    assert (said, kept) == (ended, left)
    assert [event.seq for event in store.appended] == list(
        range(1, 3 if fault != Fault.KILLED_AFTER_APPEND else 4)
    )


def test_a_disk_that_lost_the_last_append_loses_it_though_nobody_noticed(tmp_path):
    said, kept, store = struck(tmp_path / "runs.db", Fault.FSYNC_LOST, appends=3)
    assert (said, kept, store.told) == (None, 2, 3)


def test_a_dead_process_appends_nothing(tmp_path):
    store = TorturedStore(tmp_path / "runs.db", blow=Blow(Fault.KILLED_BEFORE_APPEND, 1, 1))
    for _ in range(2):
        with pytest.raises(PowerCut):
            store.append(RUN, 0, log_of(1))
    store.leave()


def test_a_disk_that_is_full_stays_full_and_a_lock_is_let_go(tmp_path):
    for fault, again in ((Fault.ENOSPC, 0), (Fault.STORE_LOCKED, 1)):
        with TorturedStore(tmp_path / f"{fault}.db", blow=Blow(fault, 1, 1)) as store:
            with pytest.raises(OtherStoreError):
                store.append(RUN, 0, log_of(1))
            try:
                store.append(RUN, 0, log_of(1))
            except OtherStoreError:
                assert fault is Fault.ENOSPC
            assert store.latest_seq(RUN) == again


def test_a_run_that_goes_ahead_appends_late_from_the_blow_on(tmp_path):
    with TorturedStore(tmp_path / "one.db", blow=Blow(Fault.EIO, 3, 3, Pace.AHEAD)) as store:
        assert store.commit_limits.max_pending == 1
        store.append(RUN, 0, log_of(2))
        assert store.commit_limits.max_pending > 1_000_000
    with TorturedStore(tmp_path / "two.db", blow=Blow(Fault.EIO, 1, 1, Pace.AHEAD)) as store:
        assert store.commit_limits.max_pending > 1_000_000


def test_a_store_without_a_log_has_nothing_to_tear(tmp_path):
    assert not tear(tmp_path / "none.db")
    (tmp_path / "runs.db-wal").write_bytes(b"\0" * 40)
    assert not tear(tmp_path / "runs.db")


def test_a_later_life_may_take_what_a_dead_one_had_leased(tmp_path):
    """The image is of the moment of its death: the lease in it was never given back."""
    blow = Blow(Fault.KILLED_AFTER_APPEND, 1, 1)
    with TorturedStore(tmp_path / "runs.db", blow=blow) as store:
        with Keeper(store, RUN) as keeper:
            with pytest.raises(ConcurrencyError):
                store.acquire(RUN, "the living", 60_000)
            with pytest.raises(PowerCut):
                store.append(RUN, 0, log_of(1), lease=keeper.lease)
        disk = store.leave()
    with TorturedStore(disk) as store:
        assert store.acquire(RUN, "the living", 60_000).epoch > keeper.lease.epoch


def test_a_lease_goes_with_the_append(tmp_path):
    with TorturedStore(tmp_path / "runs.db") as store:
        lease = store.acquire(RUN, "me", 60_000)
        store.append(RUN, 0, log_of(1), lease=lease)
        with pytest.raises(ConcurrencyError):
            store.append(RUN, 1, log_of(2)[1:])
        assert store.appended == log_of(1)
