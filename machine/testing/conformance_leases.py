"""Conformance tests of leases: one driver for each run, and no append by an earlier one, whatever the clock.

The tests have clocks of their own; only the tests of dead and live owners look at real processes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from machine.canonical import artifact_id
from machine.errors import Code, ConcurrencyError, IdError, UsageError
from machine.stores.base import Store
from machine.stores.lease import MAX_TTL_MS, Driver, HeldLease, Lease, driver_of, owner_here
from machine.testing.conformance_sharing import SharedStoreConformance, StoreFactory, contended
from machine.testing.store_samples import OTHER, RUN, Clock, artifact_of, log_of, read_log

TTL = 30_000
TENTH = TTL // 10
LOOK = 1_000
"""Interval at which a waiter looks at a lease, in milliseconds."""

_OWNER = "from machine.stores.lease import owner_here; print(owner_here(), flush=True); input()"


def _refused(code: Code, call: Any, *args: Any, **options: Any) -> ConcurrencyError:
    with pytest.raises(ConcurrencyError) as caught:
        call(*args, **options)
    assert caught.value.code == code
    assert caught.value.hint
    return caught.value


def _watch(store: Store, boot_clock: Clock, milliseconds: int) -> None:
    """Observe the lease now, and once a second until a number of milliseconds have passed."""
    store.lease_of(RUN)
    end = boot_clock.now + milliseconds
    while boot_clock.now < end:
        boot_clock.now = min(boot_clock.now + LOOK, end)
        store.lease_of(RUN)


class LeaseConformance(SharedStoreConformance):
    """The part of `StoreConformance` about leases."""

    @pytest.fixture
    def clock(self, store: Store) -> Clock:
        """Give the store a wall clock that the test moves."""
        store.clock = Clock()
        return store.clock

    @pytest.fixture
    def boot_clock(self, store: Store) -> Clock:
        """Give the store a clock of elapsed time that the test moves."""
        store.boot_clock = Clock(1_000)
        return store.boot_clock

    @pytest.fixture
    def living(self) -> Iterator[subprocess.Popen[str]]:
        """Start a process that prints its owner name and lives until it is asked to end."""
        process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, "-c", _OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        yield process
        process.kill()
        process.communicate()

    # holding a lease

    def test_a_lease_keeps_others_out(self, store: Store, store_factory: StoreFactory, clock: Clock) -> None:
        """Check that another caller learns who drives the run and how long to keep watching."""
        lease = store.acquire(RUN, "one", TTL)
        assert lease == Lease(RUN, 1, "one", TTL)
        clock.now += 1_000
        with store_factory() as other:
            other.clock, other.boot_clock = clock, Clock()
            for owner, left in (("another", TTL + TENTH), ("one", TTL + TENTH - LOOK)):
                error = _refused(Code.RUN_LEASED, other.acquire, RUN, owner, TTL)
                assert error.info.details == {"run_id": RUN, "owner": "one", "expires_in_ms": left}
                assert error.info.retryable
                other.boot_clock.now += LOOK
            assert other.lease_of(RUN) == HeldLease(RUN, 1, "one", clock.now - 1_000 + TTL, TTL)
        assert store.acquire(OTHER, "another", TTL).epoch == 1

    def test_a_lease_makes_no_run(self, store: Store, clock: Clock) -> None:
        """Check that a lease can be taken before the first event, and makes no run."""
        assert store.lease_of(RUN) is None
        lease = store.acquire(RUN, "one", TTL)
        assert not store.run_exists(RUN)
        assert store.list_runs().rows == []
        assert store.integrity_problems() == []
        store.append(RUN, 0, log_of(RUN, 1), lease=lease)
        assert store.run_exists(RUN)
        assert clock.now < store.lease_of(RUN).expires_at_ms  # type: ignore[union-attr]

    def test_nothing_that_is_no_run_is_leased(self, store: Store) -> None:
        """Check that an invalid run id gets no lease, while asking who drives it is no error."""
        for run_id in (RUN, "", "nonsense", "\ud800"):
            assert store.lease_of(run_id) is None

    def test_epochs_grow_by_one_and_never_come_again(self, store_factory: StoreFactory) -> None:
        """Check that an epoch never repeats after a release, an expiry or reopening."""
        for epoch in (1, 2, 3, 4):
            with store_factory() as store:
                store.boot_clock = Clock()
                if epoch > 1 and epoch % 2:
                    _watch(store, store.boot_clock, TTL + TENTH)
                lease = store.acquire(RUN, "one", TTL)
                assert lease.epoch == epoch
                if epoch % 2:
                    store.release(lease)
                    assert store.lease_of(RUN) is None

    def test_a_lease_outlives_the_handle(self, store_factory: StoreFactory) -> None:
        """Check that a lease belongs to the run until it ends, not to the connection."""
        with store_factory() as store:
            lease = store.acquire(RUN, "one", TTL)
        with store_factory() as again:
            _refused(Code.RUN_LEASED, again.acquire, RUN, "another", TTL)
            again.append(RUN, 0, log_of(RUN, 1), lease=lease)

    def test_one_of_many_gets_it(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that threads that ask concurrently over two handles get one lease."""

        def ask(name: int, handle: Store) -> Lease | None:
            try:
                return handle.acquire(RUN, f"thread {name}", TTL)
            except ConcurrencyError:
                return None

        (lease,) = filter(None, contended(store, store_factory, ask))
        assert lease.epoch == 1

    # end of a lease

    def test_a_lease_is_over_when_it_was_seen_unrenewed_for_its_time(
        self, store: Store, boot_clock: Clock
    ) -> None:
        """Check that it excludes others until 1.1 times its duration has passed without renewal."""
        store.acquire(RUN, "one", TTL)
        _watch(store, boot_clock, TTL + TENTH - 1)
        _refused(Code.RUN_LEASED, store.acquire, RUN, "another", TTL)
        boot_clock.now += 1
        assert store.lease_of(RUN) is None
        assert store.acquire(RUN, "another", TTL).epoch == 2  # noqa: PLR2004 - the second

    @pytest.mark.parametrize("step", [3_600_000, -3_600_000, TTL, 20_000, -20_000, 50, -50])
    @pytest.mark.usefixtures("boot_clock")
    def test_a_wall_clock_that_is_set_changes_nothing(self, store: Store, clock: Clock, step: int) -> None:
        """Check that setting the wall clock of the holder or of another caller changes nothing."""
        lease = store.acquire(RUN, "one", TTL)
        clock.now += step
        _refused(Code.RUN_LEASED, store.acquire, RUN, "another", TTL)
        assert store.lease_of(RUN) is not None
        store.renew(lease)
        clock.now -= step
        _refused(Code.RUN_LEASED, store.acquire, RUN, "another", TTL)

    def test_a_clock_that_was_ahead_does_not_block_a_run(
        self, store: Store, clock: Clock, boot_clock: Clock
    ) -> None:
        """Check that a lease ends after its own duration, whatever expiry time is stored."""
        store.acquire(RUN, "one", TTL)
        clock.now -= 3_600_000
        _watch(store, boot_clock, TTL + TENTH)
        assert store.lease_of(RUN) is None
        assert store.acquire(RUN, "another", TTL).epoch == 2  # noqa: PLR2004 - the second
        _refused(Code.RUN_LEASED, store.acquire, RUN, "one", TTL)

    def test_only_time_in_which_somebody_looked_counts(self, store: Store, boot_clock: Clock) -> None:
        """Check that a gap without observation counts as one second, as the driver may have paused too."""
        store.acquire(RUN, "one", TTL)
        assert store.lease_of(RUN) is not None
        boot_clock.now += 10 * TTL
        error = _refused(Code.RUN_LEASED, store.acquire, RUN, "another", TTL)
        assert (error.info.details or {})["expires_in_ms"] == TTL + TENTH - LOOK

    def test_each_handle_looks_for_itself(
        self, store: Store, store_factory: StoreFactory, boot_clock: Clock
    ) -> None:
        """Check that each store object must observe the lease itself."""
        store.acquire(RUN, "one", TTL)
        _watch(store, boot_clock, TTL + TENTH)
        with store_factory() as other:
            _refused(Code.RUN_LEASED, other.acquire, RUN, "another", TTL)
        assert store.acquire(RUN, "another", TTL).epoch == 2  # noqa: PLR2004 - the second

    def test_a_run_whose_lease_was_not_renewed_is_shown_as_interrupted(
        self, store: Store, clock: Clock
    ) -> None:
        """Check that every handle shows such a run as interrupted, even one for which the lease still holds."""
        lease = store.acquire(RUN, "one", TTL)
        store.append(RUN, 0, log_of(RUN, 1), lease=lease)
        assert store.run_row(RUN).status == "running"
        clock.now += 2 * TTL
        assert store.run_row(RUN).status == "interrupted"
        assert [row.run_id for row in store.list_runs(status="interrupted").rows] == [RUN]
        assert store.lease_of(RUN) is not None

    @pytest.mark.parametrize("step", [0, -1_000, 1_000])
    def test_renewing_gives_it_its_time_again(
        self, store: Store, clock: Clock, boot_clock: Clock, step: int
    ) -> None:
        """Check that a renewal keeps the epoch and restarts the duration, even if the wall clock does not move."""
        lease = store.acquire(RUN, "one", TTL)
        for _ in range(3):
            _watch(store, boot_clock, TTL + TENTH - 1)
            clock.now += step
            store.renew(lease)
        _refused(Code.RUN_LEASED, store.acquire, RUN, "another", TTL)
        held = store.lease_of(RUN)
        assert held is not None
        assert (held.epoch, held.owner, held.ttl_ms) == (1, "one", TTL)
        assert held.expires_at_ms - clock.now - TTL in {0, 1}

    def test_a_lease_that_is_over_and_nobody_took_is_renewed(self, store: Store, boot_clock: Clock) -> None:
        """Check that a paused driver continues if nobody took the run over."""
        lease = store.acquire(RUN, "one", TTL)
        _watch(store, boot_clock, TTL + TENTH)
        store.renew(lease)
        _refused(Code.RUN_LEASED, store.acquire, RUN, "another", TTL)

    def test_a_lost_lease_is_neither_renewed_nor_released(self, store: Store, boot_clock: Clock) -> None:
        """Check that renewing a lost lease is refused, and that releasing it does not affect the new holder."""
        late = store.acquire(RUN, "one", TTL)
        _watch(store, boot_clock, TTL + TENTH)
        taken = store.acquire(RUN, "another", TTL)
        error = _refused(Code.LEASE_LOST, store.renew, late)
        assert error.info.details == {"run_id": RUN, "epoch": 1, "current": 2}
        store.release(late)
        held = store.lease_of(RUN)
        assert held is not None
        assert (held.epoch, held.owner) == (taken.epoch, "another")
        store.renew(taken)

    def test_a_release_is_immediate_for_everybody(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that a release needs no observation by others."""
        lease = store.acquire(RUN, "one", TTL)
        with store_factory() as other:
            _refused(Code.RUN_LEASED, other.acquire, RUN, "another", TTL)
            store.release(lease)
            assert other.lease_of(RUN) is None
            other.append(RUN, 0, log_of(RUN, 1))
            assert other.acquire(RUN, "another", TTL).epoch == 2  # noqa: PLR2004 - the second

    def test_releasing_twice_is_harmless(self, store: Store) -> None:
        """Check that a second release is harmless, and that renewing does not restore a released lease."""
        lease = store.acquire(RUN, "one", TTL)
        store.release(lease)
        store.release(lease)
        store.release(Lease(OTHER, 1, "nobody", TTL))
        _refused(Code.LEASE_LOST, store.renew, lease)
        assert store.lease_of(RUN) is None
        assert store.acquire(RUN, "another", TTL).owner == "another"

    def test_a_living_process_keeps_its_lease_and_a_dead_one_loses_it_at_once(
        self, store: Store, boot_clock: Clock, living: subprocess.Popen[str]
    ) -> None:
        """Check that the system's word on a process decides, however long ago the lease was renewed."""
        assert living.stdout is not None
        owner = living.stdout.readline().strip()
        if driver_of(owner) is Driver.UNKNOWN:
            pytest.skip("this system does not tell which process an owner is")
        late = store.acquire(RUN, owner, TTL)
        _watch(store, boot_clock, 3 * TTL)
        error = _refused(Code.RUN_LEASED, store.acquire, RUN, owner_here(), TTL)
        assert (error.info.details or {})["expires_in_ms"] is None
        _refused(Code.RUN_LEASED, store.append, RUN, 0, log_of(RUN, 1))
        living.kill()
        living.wait()
        assert store.lease_of(RUN) is None
        store.append(RUN, 0, log_of(RUN, 1))
        taken = store.acquire(RUN, owner_here(), TTL)
        _refused(Code.LEASE_LOST, store.append, RUN, 1, log_of(RUN, 1, first=2), lease=late)
        assert store.lease_of(RUN) is not None
        _refused(Code.RUN_LEASED, store.acquire, RUN, owner_here(), TTL)
        store.append(RUN, 1, log_of(RUN, 1, first=2), lease=taken)

    # the fence

    def test_the_holder_appends(self, store: Store, clock: Clock, boot_clock: Clock) -> None:
        """Check that the holder appends any number of times, even after expiry if nobody took over."""
        log = log_of(RUN, 3)
        lease = store.acquire(RUN, "one", TTL)
        store.append(RUN, 0, log[:1], lease=lease)
        _watch(store, boot_clock, TTL + TENTH)
        store.append(RUN, 1, log[1:2], lease=lease)
        clock.now -= 100 * TTL
        store.append(RUN, 2, log[2:], lease=lease)
        assert read_log(store, RUN) == log

    def test_a_loser_appends_nothing(
        self, store: Store, store_factory: StoreFactory, boot_clock: Clock
    ) -> None:
        """Check `lease_lost` for a former holder, even with the right head and after the winner released."""
        late = store.acquire(RUN, "one", TTL)
        store.append(RUN, 0, log_of(RUN, 1), lease=late)
        with store_factory() as other:
            other.boot_clock = boot_clock
            _watch(other, boot_clock, TTL + TENTH)
            taken = other.acquire(RUN, "another", TTL)
            self._refuses(store, late)
            other.append(RUN, 1, log_of(RUN, 1, first=2), lease=taken)
            self._refuses(store, late)
            other.release(taken)
        self._refuses(store, late)

    @pytest.mark.usefixtures("boot_clock")
    def test_a_released_lease_appends_nothing(self, store: Store) -> None:
        """Check that neither a released lease nor one that was never granted may append."""
        lease = store.acquire(RUN, "one", TTL)
        store.append(RUN, 0, log_of(RUN, 1), lease=lease)
        store.release(lease)
        self._refuses(store, lease)
        self._refuses(store, attrs.evolve(lease, epoch=7))
        held = store.acquire(RUN, "one", TTL)
        self._refuses(store, lease)
        self._refuses(store, attrs.evolve(held, epoch=3))

    def _refuses(self, store: Store, lease: Lease) -> None:
        log = read_log(store, RUN)
        for expected in (len(log), 0):
            events = log_of(RUN, 1, first=expected + 1)
            with_it = [artifact_of(b"with it")]
            _refused(Code.LEASE_LOST, store.append, RUN, expected, events, with_it, lease=lease)
            _refused(Code.LEASE_LOST, store.append, RUN, expected, [], with_it, lease=lease)
        assert read_log(store, RUN) == log
        assert not store.exists(artifact_id(b"with it"))

    def test_who_has_no_lease_waits_for_who_has(self, store: Store, boot_clock: Clock) -> None:
        """Check that an append without a lease is refused while another holds one, and accepted otherwise."""
        lease = store.acquire(RUN, "one", TTL)
        error = _refused(Code.RUN_LEASED, store.append, RUN, 0, log_of(RUN, 1), [artifact_of(b"with it")])
        assert error.info.details == {"run_id": RUN, "owner": "one", "expires_in_ms": TTL + TENTH}
        assert not store.run_exists(RUN)
        assert not store.exists(artifact_id(b"with it"))
        store.append(OTHER, 0, log_of(OTHER, 1))
        _watch(store, boot_clock, TTL + TENTH)
        store.append(RUN, 0, log_of(RUN, 1))
        store.renew(lease)
        _refused(Code.RUN_LEASED, store.append, RUN, 1, log_of(RUN, 1, first=2))
        store.release(lease)
        store.append(RUN, 1, log_of(RUN, 1, first=2))

    def test_a_lease_does_not_replace_the_expected_head(self, store: Store) -> None:
        """Check that the holder's append must also continue the log."""
        lease = store.acquire(RUN, "one", TTL)
        store.append(RUN, 0, log_of(RUN, 2), lease=lease)
        _refused(Code.CONCURRENCY, store.append, RUN, 1, log_of(RUN, 1, first=2), lease=lease)

    # refusals

    def test_a_lease_on_another_run_is_refused(self, store: Store) -> None:
        """Check that a lease on another run is reported as a usage error, not as a lost lease."""
        lease = store.acquire(OTHER, "one", TTL)
        with pytest.raises(UsageError):
            store.append(RUN, 0, log_of(RUN, 1), lease=lease)
        assert not store.run_exists(RUN)

    @pytest.mark.parametrize("ttl", [0, -1, 1.5, "30", None, True, MAX_TTL_MS + 1])
    def test_a_bad_time_is_refused(self, store: Store, ttl: Any) -> None:
        """Check that a lease lasts from a millisecond to a day."""
        with pytest.raises(UsageError):
            store.acquire(RUN, "one", ttl)
        assert store.lease_of(RUN) is None

    @pytest.mark.parametrize("owner", ["", "two\nlines", "x" * 513, "\ud800", None, b"bytes"])
    def test_a_bad_owner_is_refused(self, store: Store, owner: Any) -> None:
        """Check that an owner's name is printable, since errors show it and stores hold it."""
        with pytest.raises(UsageError):
            store.acquire(RUN, owner, TTL)
        assert store.lease_of(RUN) is None

    @pytest.mark.parametrize("run_id", ["", "run", RUN.upper(), "\ud800"])
    def test_only_a_run_id_is_leased(self, store: Store, run_id: str) -> None:
        """Check that only a run id can have a lease, as only a run id can have a log."""
        with pytest.raises(IdError):
            store.acquire(run_id, "one", TTL)
