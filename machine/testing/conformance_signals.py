"""Conformance tests of signals that are addressed to no run: each is given to one wait."""

from __future__ import annotations

from typing import Any

import pytest

from machine.canonical import artifact_id
from machine.errors import CanonicalError, Code, ConcurrencyError, UsageError
from machine.stores.base import Signal, Store
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

PAID = ("paid", "order 7, täglich")


def _numbers(signals: list[Signal]) -> list[int]:
    return [signal.number for signal in signals]


class SignalConformance(SharedStoreConformance):
    """The part of `StoreConformance` about signals."""

    # keeping

    def test_signals_are_kept_in_order(self, store_factory: StoreFactory) -> None:
        """Check that signals need no run, are found by name and correlation, and survive reopening."""
        with store_factory() as store:
            store.clock = clock = Clock()
            assert store.signals() == []
            assert store.post_signal(*PAID, {"a": [1, 2.5, None, "ä"]}) == 1
            clock.now += 5
            assert store.post_signal("paid", "other", None, expires_ms=clock.now + 10) == 2  # noqa: PLR2004
            assert store.post_signal(*PAID, "second") == 3  # noqa: PLR2004 - they are numbered in the store
        with store_factory() as again:
            again.clock = clock
            first = Signal(1, *PAID, {"a": [1, 2.5, None, "ä"]}, clock.now - 5)
            other = Signal(2, "paid", "other", None, clock.now, clock.now + 10)
            second = Signal(3, *PAID, "second", clock.now)
            assert again.signals() == again.signals("paid") == [first, other, second]
            assert again.signals(*PAID) == again.signals(correlation=PAID[1]) == [first, second]
            assert again.signals("sent") == again.signals("paid", "\ud800") == []
            assert again.list_runs().rows == []
            assert again.integrity_problems() == []

    def test_an_expired_signal_is_given_to_nobody(self, store: Store) -> None:
        """Check that a signal is not there from its end on, by the clock of the store."""
        store.clock = clock = Clock()
        store.post_signal(*PAID, 1, expires_ms=clock.now + 10)
        clock.now += 9
        assert _numbers(store.signals(*PAID)) == [1]
        clock.now += 1
        assert store.signals(*PAID) == []
        suspend(store, RUN, None, inbox_seen=0, awaits=[PAID])
        assert store.due_runs(0) == []

    @pytest.mark.parametrize(
        "given",
        [("", "7"), ("paid", ""), ("two\nlines", "7"), ("paid", "x" * 257), ("\ud800", "7"), (None, "7")],
    )
    def test_a_bad_name_of_a_signal_is_refused(self, store: Store, given: Any) -> None:
        """Check that a name and a correlation have 1 to 256 printable characters."""
        with pytest.raises(UsageError):
            store.post_signal(given[0], given[1], {})
        with pytest.raises(UsageError):
            suspend(store, RUN, None, inbox_seen=0, awaits=[given])
        assert store.signals() == []

    @pytest.mark.parametrize("value", [object(), {1: 2}, float("nan"), "\ud800", b"bytes", 2**80])
    def test_a_signal_that_is_not_json_is_refused(self, store: Store, value: Any) -> None:
        """Check that only a value that JSON can represent exactly is accepted."""
        with pytest.raises(CanonicalError):
            store.post_signal(*PAID, value)
        assert store.signals() == []

    @pytest.mark.parametrize("expires_ms", [-1, 1.5, "soon", 2**80])
    def test_a_bad_end_of_a_signal_is_refused(self, store: Store, expires_ms: Any) -> None:
        """Check that a the end of a signal is in milliseconds."""
        with pytest.raises(UsageError):
            store.post_signal(*PAID, 1, expires_ms=expires_ms)
        assert store.signals() == []

    # taking

    def test_a_signal_is_taken_with_the_fact_that_hands_it_out(self, store: Store) -> None:
        """Check that it is gone from then on, and that a second append that takes it writes nothing."""
        for run_id in (RUN, OTHER):
            suspend(store, run_id, None)
        for value in range(3):
            store.post_signal(*PAID, value)
        log = read_log(store, OTHER)
        store.append(RUN, 2, then(store, RUN, ANSWER), takes=(1, 2))
        for takes in ((1,), (3, 2), (3, 3), (4,)):
            with pytest.raises(ConcurrencyError) as caught:
                store.append(OTHER, 2, then(store, OTHER, ANSWER), [artifact_of(b"with it")], takes=takes)
            assert caught.value.code == Code.SIGNAL_TAKEN
            assert caught.value.info.details == {"run_id": OTHER, "number": takes[-1]}
        assert read_log(store, OTHER) == log
        assert not store.exists(artifact_id(b"with it"))
        assert _numbers(store.signals()) == [3]

    def test_an_append_that_is_refused_takes_nothing(self, store: Store) -> None:
        """Check that a signal stays when the head, the lease or the inbox has moved."""
        store.post_signal(*PAID, 1)
        suspend(store, RUN, None)
        store.post(RUN, "signal", {})
        answer = then(store, RUN, ANSWER)
        with pytest.raises(ConcurrencyError):
            store.append(RUN, 2, answer, takes=(1,), inbox_seen=0)
        store.acquire(RUN, "one", 60_000)
        with pytest.raises(ConcurrencyError):
            store.append(RUN, 2, answer, takes=(1,))
        assert _numbers(store.signals()) == [1]

    @pytest.mark.parametrize("takes", [(0,), (-1,), ("1",), (1.5,), (None,)])
    def test_a_bad_number_of_a_signal_is_refused(self, store: Store, takes: Any) -> None:
        """Check that only a number from 1 up can be taken."""
        with pytest.raises(UsageError):
            store.append(RUN, 0, log_of(RUN, 1), takes=takes)
        assert not store.run_exists(RUN)

    def test_signals_go_with_events(self, store: Store) -> None:
        """Check that an append without events can neither take nor await, nor one after which the run goes on."""
        store.post_signal(*PAID, 1)
        suspend(store, RUN, None)
        for events, terms in (
            ([], {"takes": (1,)}),
            ([], {"awaits": [PAID]}),
            (then(store, RUN, RESUMED), {"awaits": [("sent", "7")]}),
        ):
            with pytest.raises(UsageError):
                store.append(RUN, 2, events, **terms)
        assert (store.latest_seq(RUN), _numbers(store.signals()), store.awaiting("sent", "7")) == (2, [1], [])

    def test_each_signal_is_given_to_one_run(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that runs that contend for signals over two handles neither share nor lose one."""
        each = 5
        for number in range(each * THREADS):
            store.post_signal(*PAID, number)

        def act(name: int, handle: Store) -> list[int]:
            run_id = run_id_of(name)
            won: list[int] = []
            handle.append(run_id, 0, log_of(run_id, 1))
            while len(won) < each:
                first = handle.signals(*PAID)[0].number
                try:
                    handle.append(run_id, 1 + len(won), then(handle, run_id, ANSWER), takes=(first,))
                except ConcurrencyError as exc:
                    assert exc.code == Code.SIGNAL_TAKEN  # noqa: PT017 - the loop continues
                    continue
                won.append(first)
            return won

        won = contended(store, store_factory, act)
        assert sorted(number for numbers in won for number in numbers) == list(range(1, each * THREADS + 1))
        assert all(numbers == sorted(numbers) for numbers in won)
        assert store.signals() == []

    # waiting

    def test_a_signal_makes_the_runs_due_that_await_it(self, store_factory: StoreFactory) -> None:
        """Check that all of these are due at once, and no other, in every handle and after reopening."""
        both, one, neither = (run_id_of(number) for number in range(3))
        with store_factory() as store:
            suspend(store, both, None, inbox_seen=0, awaits=[PAID, ("sent", "7")])
            suspend(store, one, None, inbox_seen=0, awaits=[PAID])
            suspend(store, neither, None)
        with store_factory() as again:
            assert again.awaiting(*PAID) == [both, one]
            assert (again.awaiting("sent", "7"), again.awaiting("sent", PAID[1])) == ([both], [])
            again.post_signal("sent", PAID[1], 1)
            again.post_signal("paid", "7", 1)
            assert again.due_runs(0) == []
            again.post_signal(*PAID, 1)
            assert sorted(again.due_runs(0)) == [both, one]
            assert again.integrity_problems() == []

    def test_a_run_is_not_suspended_over_a_signal_that_it_awaits(self, store: Store) -> None:
        """Check that a signal that is there stops the suspension, and another one does not."""
        store.post_signal("sent", "7", 1)
        store.post_signal(*PAID, 1)
        log = log_of(RUN, 1)
        store.append(RUN, 0, log)
        with pytest.raises(ConcurrencyError) as caught:
            store.append(RUN, 1, then(store, RUN, suspended(None)), awaits=[("sent", "8"), PAID])
        assert caught.value.code == Code.INBOX_MOVED
        assert (read_log(store, RUN), store.awaiting(*PAID)) == (log, [])
        store.append(RUN, 1, then(store, RUN, suspended(None)), awaits=[("sent", "8")])

    def test_a_look_that_saw_too_little_leaves_the_run_due(self, store: Store) -> None:
        """Check that a driver cannot put a run aside over a signal, and that it can once another run has it."""
        for run_id in (RUN, OTHER):
            suspend(store, run_id, None, inbox_seen=0, awaits=[PAID])
        store.post_signal(*PAID, 1)
        with pytest.raises(ConcurrencyError) as caught:
            store.append(RUN, 2, [], inbox_seen=0)
        assert caught.value.code == Code.INBOX_MOVED
        store.append(OTHER, 2, then(store, OTHER, ANSWER), takes=(1,), inbox_seen=0)
        store.append(RUN, 2, [], inbox_seen=0)
        assert store.due_runs(0) == [OTHER]

    @pytest.mark.parametrize("body", [RESUMED, b'{"status":"failed","type":"run_completed"}'])
    def test_a_run_that_goes_on_awaits_nothing(self, store: Store, body: bytes) -> None:
        """Check that neither a run that was resumed nor one that has ended is due by a signal."""
        suspend(store, RUN, None, inbox_seen=0, awaits=[PAID])
        store.append(RUN, 2, then(store, RUN, body))
        assert store.awaiting(*PAID) == []
        store.post_signal(*PAID, 1)
        assert (store.due_runs(0), store.integrity_problems()) == ([], [])

    def test_a_run_is_never_suspended_over_a_signal(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that a signal posted while a run is being suspended stops that, or makes the run due."""
        runs = [run_id_of(number) for number in range(20)]
        for run_id in runs:
            store.append(run_id, 0, log_of(run_id, 1))

        def act(name: int, handle: Store) -> list[str]:
            moved = []
            for run_id in runs:
                if name:
                    handle.post_signal("paid", run_id, name)
                    continue
                events = then(handle, run_id, suspended(None))
                try:
                    handle.append(run_id, 1, events, inbox_seen=0, awaits=[("paid", run_id)])
                except ConcurrencyError:
                    moved.append(run_id)
            return moved

        moved = contended(store, store_factory, act)[0]
        assert sorted([*moved, *store.due_runs(2**60, 100)]) == runs
