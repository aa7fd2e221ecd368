"""Data keys in a file: older files, what is synced, what is left of a key that is gone, and damage."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from machine.errors import CorruptionError
from machine.stores import SqliteStore
from machine.testing.store_samples import log_of, run_id_of

RUN, OTHER = run_id_of(1), run_id_of(2)
TRACE = b"a wrapped data key that is easily found"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def stored(path):
    return b"".join(each.read_bytes() for each in path.parent.iterdir())


def test_a_file_of_version_2_gets_data_keys_and_keeps_what_it_has(path, version_2):
    log = version_2(path)
    with SqliteStore(path, create=False) as store:
        assert list(store.read_range(RUN)) == log
        assert store.data_keys() == []
        store.add_data_key(RUN, "key", b"wrapped")
        assert store.integrity_problems() == []
    with SqliteStore(path, create=False) as store:
        assert store.data_key(RUN) == b"wrapped"
        store.append(RUN, 3, log_of(RUN, 1, first=4))


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.forget_data_key(RUN),
        lambda store: store.rewrap_data_keys("k", "l", lambda _: b"new"),
    ],
    ids=["forgotten", "wrapped anew"],
)
def test_nothing_is_left_of_a_data_key_that_is_gone(path, change):
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 5))
        store.add_data_key(RUN, "k", TRACE)
        assert TRACE in stored(path)
        change(store)
        assert TRACE not in stored(path)
        assert store.integrity_problems() == []


@pytest.mark.long
def test_a_reader_delays_that_and_does_not_stop_it(path):
    with SqliteStore(path) as store:
        store.add_data_key(RUN, "k", TRACE)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM data_keys").fetchall()
            assert store.forget_data_key(RUN)
            assert store.data_key(RUN) is None
    assert TRACE not in stored(path)


def test_a_data_key_is_synced_whatever_the_store_risks(path):
    with SqliteStore(path, synchronous="normal") as store:
        seen = []
        store._session.conn.set_trace_callback(seen.append)
        store.add_data_key(RUN, "k", b"one")
        store.rewrap_data_keys("k", "l", lambda _: b"two")
        store.forget_data_key(RUN)
        begun = [index for index, statement in enumerate(seen) if statement == "BEGIN IMMEDIATE"]
        assert [seen[index - 1] for index in begun] == ["PRAGMA synchronous = full"] * 3
        assert store._session.conn.execute("PRAGMA synchronous").fetchone()[0] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE data_keys SET wrapped = 'text'", "the data key of run"),
        ("UPDATE secret_key_id SET id = x'00'", "the id of the store's secret key"),
    ],
)
def test_a_key_of_another_type_is_damage(path, change, said):
    with SqliteStore(path) as store:
        store.add_data_key(RUN, "k", b"one")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(change)
        uses = [lambda: store.rewrap_data_keys("k", "l", bytes)]
        uses += [store.data_keys] if "wrapped" in change else [store.secret_key_id]
        uses += [lambda: store.data_key(RUN)] if "wrapped" in change else []
        for use in uses:
            with pytest.raises(CorruptionError, match=said):
                use()
