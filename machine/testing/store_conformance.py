"""The conformance tests of stores: subclass `StoreConformance` for a store of your own.

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store_factory(self, tmp_path):
            return lambda: MyStore(tmp_path / "runs")

They use a store only through its contract, so they apply to every store; what a medium does besides (file
modes, locks, damage) is for that store's own tests. They need the `test` extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from machine.canonical import artifact_id
from machine.errors import (
    Code,
    ConcurrencyError,
    IdError,
    MachineError,
    NotFoundError,
    OtherStoreError,
    UsageError,
)
from machine.events import Artifact
from machine.kernel.run_index import RunRow, advance
from machine.stores.base import MAX_ARTIFACT_BYTES, ZERO_CHAIN, Head, Store, StoredEvent
from machine.testing.conformance_artifacts import ArtifactConformance
from machine.testing.conformance_due import DueConformance
from machine.testing.conformance_keys import KeyConformance
from machine.testing.conformance_labels import LabelConformance
from machine.testing.conformance_leases import LeaseConformance
from machine.testing.conformance_schedules import ScheduleConformance
from machine.testing.conformance_segments import SegmentConformance
from machine.testing.conformance_sharing import StoreFactory
from machine.testing.conformance_signals import SignalConformance
from machine.testing.store_model import check_against_model
from machine.testing.store_samples import LONG, OTHER, RUN, artifact_of, log_of, read_log, run_id_of


def _oversized() -> Artifact:
    # all zeros: never touched, so never really there
    return Artifact("0" * 64, "output", bytes(MAX_ARTIFACT_BYTES + 1))


class StoreConformance(
    ArtifactConformance,
    LeaseConformance,
    DueConformance,
    SignalConformance,
    LabelConformance,
    ScheduleConformance,
    SegmentConformance,
    KeyConformance,
):
    """The contract of every store as tests; give it a `store_factory` fixture and pytest runs them."""

    # the log

    def test_is_a_store(self, store: Store) -> None:
        """Check that the store has every method of the contract."""
        assert isinstance(store, Store)
        assert isinstance(store.url, str)
        assert isinstance(store.write_behind, bool)
        assert store.commit_limits.max_pending > 0
        assert store.clock() > 1_700_000_000_000  # noqa: PLR2004 - milliseconds, of these years

    def test_an_unknown_run_is_empty(self, store: Store) -> None:
        """Check that reading an unknown run is no error, while asking for its row is."""
        for run_id in (RUN, "", "nonsense", "\ud800"):
            assert store.head(run_id) == Head(0, ZERO_CHAIN)
            assert read_log(store, run_id) == []
            assert store.count_events(run_id) == store.latest_seq(run_id) == 0
            assert not store.run_exists(run_id)
            with pytest.raises(NotFoundError) as caught:
                store.run_row(run_id)
            assert caught.value.code == Code.RUN_NOT_FOUND

    def test_what_was_appended_is_read_back(self, store: Store) -> None:
        """Check that bytes, order and chain values come back as they were written."""
        log = log_of(RUN, 5)
        store.append(RUN, 0, log[:1])
        store.append(RUN, 1, log[1:4])
        store.append(RUN, 4, log[4:])
        assert read_log(store, RUN) == log
        assert store.head(RUN) == Head(5, log[-1].chain)
        assert store.count_events(RUN) == store.latest_seq(RUN) == len(log)
        assert store.run_exists(RUN)
        assert type(next(store.read_range(RUN)).data) is bytes

    def test_it_is_durable(self, store_factory: StoreFactory) -> None:
        """Check that a store opened again holds what was appended before it was closed."""
        log = log_of(RUN, 3)
        with store_factory() as store:
            store.append(RUN, 0, log, [artifact_of(b"kept", "manifest")])
            row = store.run_row(RUN)
        with store_factory() as again:
            assert read_log(again, RUN) == log
            assert again.get(artifact_id(b"kept")) == b"kept"
            assert again.kind(artifact_id(b"kept")) == "manifest"
            assert again.run_row(RUN) == row

    def test_another_handle_sees_it_at_once(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that a completed `append` is visible to the next reader."""
        with store_factory() as other:
            store.append(RUN, 0, log_of(RUN, 2))
            assert other.latest_seq(RUN) == 2  # noqa: PLR2004 - what was appended
            other.append(RUN, 2, log_of(RUN, 1, first=3))
            assert store.count_events(RUN) == 3  # noqa: PLR2004 - and one more

    def test_ranges_include_both_ends(self, store: Store) -> None:
        """Check that bounds outside the log are clipped to it, and that an empty range is empty."""
        log = log_of(RUN, 6)
        store.append(RUN, 0, log)
        assert list(store.read_range(RUN, 2, 4)) == log[1:4]
        assert list(store.read_range(RUN, 3)) == log[2:]
        assert list(store.read_range(RUN, -5, 2)) == log[:2]
        assert list(store.read_range(RUN, 6, 2**80)) == log[5:]
        assert list(store.read_range(RUN, 4, 3)) == list(store.read_range(RUN, 2**80)) == []

    def test_a_long_log_comes_back_whole(self, store: Store) -> None:
        """Check that reading in pieces neither loses nor repeats an event between them."""
        log = log_of(RUN, LONG)
        store.append(RUN, 0, log)
        store.append(OTHER, 0, log_of(OTHER, 1))
        assert read_log(store, RUN) == log
        assert list(store.read_range(RUN, 2, LONG - 1)) == log[1:-1]

    def test_runs_are_apart(self, store: Store) -> None:
        """Check that each run has seqs and events of its own."""
        ours, theirs = log_of(RUN, 3), log_of(OTHER, 2)
        store.append(RUN, 0, ours)
        store.append(OTHER, 0, theirs)
        assert read_log(store, RUN) == ours
        assert read_log(store, OTHER) == theirs

    # refusals, which write nothing

    @pytest.mark.parametrize("expected", [0, 1, 3, 2**63 - 2])
    def test_a_stale_head_is_refused(self, store: Store, expected: int) -> None:
        """Check that `ConcurrencyError` names the expected and the actual head."""
        log = log_of(RUN, 2)
        store.append(RUN, 0, log)
        late = [StoredEvent(expected + 1, b"late", ZERO_CHAIN)]
        with pytest.raises(ConcurrencyError) as caught:
            store.append(RUN, expected, late, [artifact_of(b"late")])
        assert caught.value.info.details == {"run_id": RUN, "expected": expected, "actual": 2}
        assert read_log(store, RUN) == log
        assert not store.exists(artifact_id(b"late"))

    def test_a_stale_head_is_refused_for_artifacts_alone(self, store: Store) -> None:
        """Check that the expected head is compared even when no event is appended."""
        with pytest.raises(ConcurrencyError):
            store.append(RUN, 1, [], [artifact_of(b"late")])
        assert not store.exists(artifact_id(b"late"))

    @pytest.mark.parametrize("seqs", [(2,), (0,), (1, 3), (1, 1), (2, 1), (1, 2, 4), (-1, 0)])
    def test_a_gap_is_refused(self, store: Store, seqs: Sequence[int]) -> None:
        """Check that seqs must continue the head one by one, or nothing is written at all."""
        events = [StoredEvent(seq, b"x", ZERO_CHAIN) for seq in seqs]
        with pytest.raises(UsageError):
            store.append(RUN, 0, events, [artifact_of(b"with it")])
        self._nothing_written(store, b"with it")

    @pytest.mark.parametrize(
        "event",
        [
            StoredEvent(2, "text", ZERO_CHAIN),  # type: ignore[arg-type]
            StoredEvent(2, bytearray(b"x"), ZERO_CHAIN),  # type: ignore[arg-type]
            StoredEvent(2, b"x", "text"),  # type: ignore[arg-type]
            StoredEvent(2, b"x", b"short"),
        ],
    )
    def test_a_bad_event_is_refused(self, store: Store, event: StoredEvent) -> None:
        """Check that a valid event before an invalid one is not written either."""
        with pytest.raises(UsageError):
            store.append(RUN, 0, [*log_of(RUN, 1), event], [artifact_of(b"with it")])
        self._nothing_written(store, b"with it")

    @pytest.mark.parametrize("run_id", ["", "run", RUN.upper(), RUN + "0", "\ud800"])
    def test_a_bad_run_id_is_refused(self, store: Store, run_id: str) -> None:
        """Check that only a run id can have a log."""
        with pytest.raises(IdError):
            store.append(run_id, 0, [StoredEvent(1, b"x", ZERO_CHAIN)])
        assert store.list_runs().rows == []

    @pytest.mark.parametrize("expected", [-1, 1.5, "0", None, 2**80])
    def test_a_bad_expected_seq_is_refused(self, store: Store, expected: int) -> None:
        """Check that a value that cannot be an expected seq is refused, and that nothing is written."""
        with pytest.raises(UsageError):
            store.append(RUN, expected, [], [artifact_of(b"with it")])
        self._nothing_written(store, b"with it")

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (Artifact("0" * 63, "output", b""), IdError),
            (Artifact("G" * 64, "output", b""), IdError),
            (Artifact("A" * 64, "output", b""), IdError),
            (Artifact(" 0" * 32, "output", b""), IdError),
            (Artifact("0" * 64, "", b""), UsageError),
            (Artifact("0" * 64, "\ud800", b""), UsageError),
            (Artifact("0" * 64, "k" * 65, b""), UsageError),
            (Artifact("0" * 64, "output", "text"), UsageError),  # type: ignore[arg-type]
        ],
    )
    def test_a_bad_artifact_is_refused(self, store: Store, bad: Artifact, error: type[MachineError]) -> None:
        """Check that neither a valid artifact of the same append nor the events are written."""
        with pytest.raises(error):
            store.append(RUN, 0, log_of(RUN, 2), [artifact_of(b"with it"), bad])
        self._nothing_written(store, b"with it")

    def test_an_oversized_artifact_is_refused(self, store: Store) -> None:
        """Check that `append` and `put` raise `artifact_too_large` before anything is written."""
        with pytest.raises(OtherStoreError) as caught:
            store.append(RUN, 0, log_of(RUN, 2), [artifact_of(b"with it"), _oversized()])
        assert caught.value.code == Code.ARTIFACT_TOO_LARGE
        self._nothing_written(store, b"with it")
        with pytest.raises(OtherStoreError) as caught:
            store.put("output", _oversized().data)
        assert caught.value.code == Code.ARTIFACT_TOO_LARGE

    def _nothing_written(self, store: Store, data: bytes) -> None:
        assert read_log(store, RUN) == []
        assert not store.exists(artifact_id(data))
        assert store.list_runs().rows == []
        assert store.integrity_problems() == []

    # the index

    def test_the_index_says_what_the_log_says(self, store: Store) -> None:
        """Check that a run's row is `advance` over its events, however they were grouped."""
        log = log_of(RUN, 4, op="billing", status="failed")
        store.append(RUN, 0, log[:1])
        assert store.run_row(RUN).status == "interrupted"
        store.append(RUN, 1, log[1:3])
        indexed = advance(None, RUN, [(event.seq, event.data) for event in log[:3]])
        assert indexed.status == "running"
        assert store.run_row(RUN) == indexed._replace(status="interrupted")  # nobody drives it
        store.append(RUN, 3, log[3:])
        start = 1_700_000_000_000
        assert store.run_row(RUN) == RunRow(RUN, "billing", "failed", start + 1, start + 4, 4)
        assert store.integrity_problems() == []

    def test_bytes_that_are_no_envelope_are_kept(self, store: Store) -> None:
        """Check that a store accepts bytes that are no envelope, since it never interprets a log."""
        odd = [b"", b"\xff", b'{"type":"run_', b'{"event":{"type":"run_started"},"info":{"ts_millis":1e99}}']
        events = [StoredEvent(seq, data, ZERO_CHAIN) for seq, data in enumerate(odd, 1)]
        store.append(RUN, 0, events)
        assert read_log(store, RUN) == events
        assert store.run_row(RUN) == RunRow(RUN, "", "pending", 0, 0, len(odd))
        assert store.integrity_problems() == []

    def test_runs_are_listed_newest_first_in_pages(self, store: Store) -> None:
        """Check that pages follow one another by their cursor without gap or overlap."""
        numbers = [5, 1, 9, 3, 7, 2, 8]
        for number in numbers:
            store.append(run_id_of(number), 0, log_of(run_id_of(number), 1))
        newest_first = [run_id_of(number) for number in reversed(numbers)]
        for limit in (1, 3, 7, 8, 2**80):
            seen: list[str] = []
            cursor = None
            while True:
                page = store.list_runs(limit=limit, cursor=cursor)
                seen += [row.run_id for row in page.rows]
                cursor = page.cursor
                if cursor is None:
                    break
                assert len(page.rows) == limit
            assert seen == newest_first

    def test_the_newest_is_the_one_that_came_last(self, store: Store) -> None:
        """Check that runs are listed by arrival, whatever their ids and later appends to other runs."""
        for number in (9, 3, 5):
            store.append(run_id_of(number), 0, log_of(run_id_of(number), 1))
        first = log_of(run_id_of(9), 1)[0]
        store.append(run_id_of(9), 1, log_of(run_id_of(9), 2, first=2, chain=first.chain, status="failed"))
        assert [row.run_id for row in store.list_runs().rows] == [run_id_of(number) for number in (5, 3, 9)]
        page = store.list_runs(limit=1)
        assert page.cursor is not None
        store.append(run_id_of(4), 0, log_of(run_id_of(4), 1))  # so it is no row of the next page
        rest = store.list_runs(cursor=page.cursor).rows
        assert [row.run_id for row in rest] == [run_id_of(3), run_id_of(9)]
        assert store.find_runs("", 2) == [run_id_of(4), run_id_of(5)]

    def test_a_run_that_nobody_drives_is_interrupted(self, store: Store) -> None:
        """Check that a run is running only while its lease is held; an ended run has the status of its end."""
        driven, left, ended, late = (run_id_of(number) for number in range(4))
        lease = store.acquire(driven, "somebody", 60_000)
        store.append(driven, 0, log_of(driven, 1), lease=lease)
        store.append(left, 0, log_of(left, 2))
        store.append(ended, 0, log_of(ended, 2, status="completed"))
        store.append(late, 0, log_of(late, 1))

        def listed(status: str, **more: Any) -> list[str]:
            return [row.run_id for row in store.list_runs(status=status, **more).rows]

        assert (listed("running"), listed("interrupted")) == ([driven], [late, left])
        assert (listed("interrupted", limit=1), listed("completed")) == ([late], [ended])
        cursor = store.list_runs(status="interrupted", limit=1).cursor
        assert listed("interrupted", limit=1, cursor=cursor) == [left]
        told = {row.run_id: row.status for row in store.list_runs().rows}
        assert told == {driven: "running", left: "interrupted", ended: "completed", late: "interrupted"}
        assert {run_id: store.run_row(run_id).status for run_id in told} == told
        store.release(lease)
        assert store.run_row(driven).status == "interrupted"
        assert listed("running") == []

    def test_runs_are_filtered(self, store: Store) -> None:
        """Check the filters by status, by op, by both, and across pages."""
        made = [
            (1, "a", None),
            (2, "b", "failed"),
            (3, "a", "failed"),
            (4, "a", "completed"),
            (5, "a", "failed"),
        ]
        for number, op, status in made:
            run_id = run_id_of(number)
            store.append(run_id, 0, log_of(run_id, 2, op=op, status=status))

        def listed(**filters: Any) -> list[int]:
            return [int(row.run_id[:8], 16) for row in store.list_runs(**filters).rows]

        assert listed(op="a") == [5, 4, 3, 1]
        assert listed(status="failed") == [5, 3, 2]
        assert listed(status="failed", op="a") == [5, 3]
        assert listed(status="interrupted") == [1]
        assert listed(status="%") == listed(op="' OR 1 --") == []
        page = store.list_runs(status="failed", limit=2)
        assert page.cursor is not None
        rest = store.list_runs(status="failed", limit=2, cursor=page.cursor)
        assert [row.run_id for row in rest.rows] == [run_id_of(2)]
        assert rest.cursor is None

    @pytest.mark.parametrize("limit", [0, -1, 1.5, None])
    def test_a_bad_limit_is_refused(self, store: Store, limit: int) -> None:
        """Check that a page holds at least one row."""
        with pytest.raises(UsageError):
            store.list_runs(limit=limit)
        with pytest.raises(UsageError):
            store.find_runs("", limit)

    @pytest.mark.parametrize("cursor", ["", "nonsense", "%", RUN.upper(), OTHER])
    def test_a_bad_cursor_is_refused(self, store: Store, cursor: str) -> None:
        """Check that only a cursor from a page is accepted."""
        with pytest.raises(UsageError):
            store.list_runs(cursor=cursor)

    def test_runs_are_found_by_prefix(self, store: Store) -> None:
        """Check that prefixes are matched literally, including wildcards of a pattern language."""
        ids = [run_id_of(number) for number in (0x10, 0x11, 0x1F, 0x20)]
        for run_id in ids:
            store.append(run_id, 0, log_of(run_id, 1))
        assert store.find_runs("0000001") == [ids[2], ids[1], ids[0]]
        assert store.find_runs("0000001", 2) == [ids[2], ids[1]]
        assert store.find_runs(ids[3]) == [ids[3]]
        assert store.find_runs("") == ids[::-1]
        for prefix in ("_", "%", "0000001_", "0*", "[0-9]", "'", "0000001F", "\ud800", ids[0] + "0"):
            assert store.find_runs(prefix) == []

    # all together

    def test_it_behaves_as_a_dictionary_would(self, store_factory: StoreFactory) -> None:
        """Compare random sequences of operations with a simple model."""
        check_against_model(store_factory)
