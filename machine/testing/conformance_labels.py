"""Conformance tests of the labels of runs, and of finding runs by them."""

from __future__ import annotations

import pytest

from machine.errors import Code, UsageError
from machine.labels import LABELS, labels_in
from machine.stores.base import Store
from machine.testing.conformance_sharing import SharedStoreConformance, StoreFactory
from machine.testing.store_samples import log_of, run_id_of

_LABELS = (
    '{"env":"test","team":"search"}',
    '{"team":"search"}',
    '{"team":"shop"}',
    None,
    '{"team":7}',
    "no json",
    "[]",
)


class LabelConformance(SharedStoreConformance):
    """The part of `StoreConformance` about labels."""

    def test_runs_are_found_by_their_labels(self, store_factory: StoreFactory) -> None:
        """Check that a run is found by each of its labels and by all of them, after reopening too."""
        with store_factory() as store:
            for number, text in enumerate(_LABELS):
                info = {} if text is None else {LABELS: text}
                store.append(run_id_of(number), 0, log_of(run_id_of(number), 3, info=info))
        with store_factory() as again:
            assert [labels_in(row.labels) for row in again.list_runs().rows[-4:]] == [
                {},
                {"team": "shop"},
                {"team": "search"},
                {"env": "test", "team": "search"},
            ]
            for wanted, found in (
                ({"team": "search"}, [1, 0]),
                ({"team": "shop"}, [2]),
                ({"team": "search", "env": "test"}, [0]),
                ({"team": "shop", "env": "test"}, []),
                ({"team": "7"}, []),
                ({"none": "x"}, []),
            ):
                rows = again.list_runs(labels=wanted).rows
                assert [row.run_id for row in rows] == [run_id_of(number) for number in found]
            first = again.list_runs(labels={"team": "search"}, limit=1)
            assert [row.run_id for row in first.rows] == [run_id_of(1)]
            last = again.list_runs(labels={"team": "search"}, limit=1, cursor=first.cursor)
            assert ([row.run_id for row in last.rows], last.cursor) == ([run_id_of(0)], None)
            assert again.list_runs(labels={"team": "search"}, op="none").rows == []
            assert again.integrity_problems() == []

    def test_a_label_that_no_run_can_have_is_refused(self, store: Store) -> None:
        """Check that a filter which could match nothing is an error, and not an empty list."""
        for wrong in ({"a b": "x"}, {"a": ""}, {"a": 7}, {7: "a"}):
            with pytest.raises(UsageError) as caught:
                store.list_runs(labels=wrong)  # type: ignore[arg-type]  # what a caller may do all the same
            assert caught.value.code == Code.INVALID_LABEL
