"""The store in memory keeps the whole contract, as strictly as one on disk."""

from __future__ import annotations

import pytest

from machine.errors import OtherStoreError
from machine.stores import MemoryStore
from machine.testing.store_conformance import StoreConformance
from machine.testing.store_samples import log_of, run_id_of


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store_factory(self):
        first = MemoryStore()
        return lambda: MemoryStore(shared_with=first)


def test_two_stores_share_nothing():
    with MemoryStore() as one, MemoryStore() as other:
        one.append(run_id_of(1), 0, log_of(run_id_of(1), 1))
        assert not other.run_exists(run_id_of(1))


def test_a_handle_is_closed_by_itself():
    first = MemoryStore()
    second = MemoryStore(shared_with=first)
    first.close()
    second.append(run_id_of(1), 0, log_of(run_id_of(1), 1))
    with pytest.raises(OtherStoreError, match="closed"):
        first.head(run_id_of(1))


def test_it_does_not_gain_from_writing_behind():
    assert MemoryStore.write_behind is False
    assert MemoryStore().url == "memory://"


def test_an_index_row_that_is_not_its_logs_is_reported():
    store = MemoryStore()
    run_id = run_id_of(1)
    store.append(run_id, 0, log_of(run_id, 2))
    store._contents.rows.pop(run_id)
    assert store.integrity_problems() == [f"run {run_id}: its index row is not what its log says"]
