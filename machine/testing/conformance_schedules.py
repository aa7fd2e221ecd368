"""Conformance tests of schedules, and of finding the runs that they started."""

from __future__ import annotations

import pytest

from machine.errors import Code, NotFoundError, UsageError
from machine.kernel.run_index import RunRow
from machine.stores.base import Store
from machine.testing.conformance_sharing import SharedStoreConformance, StoreFactory, contended
from machine.testing.store_samples import Clock, log_of, run_id_of, schedule_of


class ScheduleConformance(SharedStoreConformance):
    """The part of `StoreConformance` about schedules and ranges of invocation keys."""

    def test_schedules_are_kept_as_they_are(self, store_factory: StoreFactory) -> None:
        """Check that schedules are read back whole and in the order of their names, after reopening too."""
        one, other = schedule_of("one"), schedule_of("a.b-c_9", paused=True, input={})
        with store_factory() as store:
            assert store.schedules() == []
            store.add_schedule(one)
            store.add_schedule(other)
        with store_factory() as again:
            assert again.schedules() == [other, one]
            assert again.integrity_problems() == []
            assert again.list_runs().rows == []

    def test_a_schedule_is_not_changed_by_its_readers(self, store: Store) -> None:
        """Check that neither readers nor the caller that added it can change a stored schedule."""
        given = {"list": [1]}
        store.add_schedule(schedule_of("one", input=given))
        given["list"].append(2)
        store.schedules()[0].input["list"].append(3)
        store.pause_schedule("one", paused=True).input["list"].append(4)
        assert store.schedules()[0].input == {"list": [1]}

    def test_a_name_is_given_once(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that of threads that add a schedule of one name, one succeeds and the others change nothing."""

        def add(number: int, handle: Store) -> int | None:
            try:
                handle.add_schedule(schedule_of("one", created_ms=number))
            except UsageError as exc:
                assert exc.code == Code.SCHEDULE_EXISTS  # noqa: PT017 - a thread hands it on
                return None
            return number

        (added,) = [number for number in contended(store, store_factory, add) if number is not None]
        assert [one.created_ms for one in store.schedules()] == [added]

    def test_a_schedule_is_paused_and_resumed_from_then_on(self, store: Store) -> None:
        """Check that only a change moves the time since which a schedule starts runs."""
        store.clock = clock = Clock()
        one = schedule_of("one")
        store.add_schedule(one)
        assert store.pause_schedule("one", paused=False) == one
        clock.now += 5
        paused = store.pause_schedule("one", paused=True)
        assert (paused.paused, paused.since_ms) == (True, one.since_ms)
        clock.now += 5
        assert store.pause_schedule("one", paused=True) == paused
        resumed = store.pause_schedule("one", paused=False)
        assert (resumed.paused, resumed.since_ms, resumed.created_ms) == (False, clock.now, one.created_ms)
        clock.now += 5
        assert store.pause_schedule("one", paused=False) == resumed
        assert store.schedules() == [resumed]

    def test_a_schedule_is_removed(self, store: Store) -> None:
        """Check that a removed schedule is gone and that its name is free; an unknown one is an error."""
        store.add_schedule(schedule_of("one"))
        store.add_schedule(schedule_of("two"))
        store.remove_schedule("one")
        assert [one.name for one in store.schedules()] == ["two"]
        for name in ("one", "", "\ud800"):
            with pytest.raises(NotFoundError) as caught:
                store.remove_schedule(name)
            assert caught.value.code == Code.SCHEDULE_NOT_FOUND
            with pytest.raises(NotFoundError) as caught:
                store.pause_schedule(name, paused=True)
            assert caught.value.code == Code.SCHEDULE_NOT_FOUND
        store.add_schedule(schedule_of("one"))

    def test_the_last_invocation_of_a_range_is_found(self, store: Store) -> None:
        """Check that the greatest key below the end of a range is found, among the runs that began by a time."""
        begun = 1_700_000_000_001  # by every log of `log_of`
        keys = ["s:a:2", "s:a:1", "s:a:3", "s:a!", "s:b:1", "s:a:é"]
        for number, key in enumerate(keys):
            store.append(run_id_of(number), 0, log_of(run_id_of(number), 1, info={"invocation_key": key}))
        store.append(run_id_of(9), 0, log_of(run_id_of(9), 1))

        def found(first: str, before: str, created_by_ms: int | None = None) -> str | None:
            row = store.last_invocation(first, before, created_by_ms=created_by_ms)
            assert row is None or isinstance(row, RunRow)
            assert row is None or row == store.run_row(row.run_id)
            return None if row is None else row.invocation_key

        assert found("s:a:", "s:a;") == "s:a:é"
        assert found("s:a:", "s:a:é") == "s:a:3"
        assert found("s:a:", "s:a:3") == found("s:a:2", "s:a:2\0") == "s:a:2"
        assert found("s:a:", "s:a:1") is found("s:a:4", "s:a:5") is found("s:a:", "s:a:") is None
        assert found("", "\U0010ffff") == "s:b:1"
        assert found("s:a:", "s:a:3", begun) == "s:a:2"
        assert found("s:a:", "s:a:3", begun - 1) is None
