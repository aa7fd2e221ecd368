"""Schedules in a store file: older files get their table, damage is noticed, an index finds their runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from machine.errors import Code, CorruptionError, OtherStoreError
from machine.stores import SqliteStore, sqlite_schedules, sqlite_schema
from machine.testing.store_samples import log_of, run_id_of, schedule_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def test_an_older_file_gets_the_table(path, version_2):
    log = version_2(path)
    with SqliteStore(path) as store:
        assert store.schedules() == []
        store.add_schedule(schedule_of("one"))
    with SqliteStore(path) as store:
        assert store.schedules() == [schedule_of("one")]
        assert list(store.read_range(run_id_of(1))) == log
        assert store.integrity_problems() == []


def test_an_older_file_that_cannot_be_written_has_no_schedules(path, version_2):
    version_2(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        sqlite_schema.read_as_newest(conn, 2)
        assert conn.execute(sqlite_schedules._ALL).fetchall() == []
        assert conn.execute(sqlite_schedules._LAST, ("a", "b")).fetchall() == []
        with pytest.raises(sqlite3.OperationalError):
            conn.execute("DELETE FROM schedules")


@pytest.mark.parametrize(
    "change",
    [
        "created_ms = 'soon'",
        "input = 'text'",
        "input = x'5b5d'",
        "input = x'7b'",
        "catch_up = 'most'",
        "overlap = ''",
        "name = 'two words'",
    ],
)
def test_a_damaged_row_is_reported(path, change):
    with SqliteStore(path) as store:
        store.add_schedule(schedule_of("one"))
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute(f"UPDATE schedules SET {change}")
        with pytest.raises(CorruptionError, match="schedule") as caught:
            store.schedules()
        assert caught.value.code == Code.STORE_CORRUPT
        assert [said[:10] for said in store.integrity_problems()] == ["schedules:"]


def test_the_last_run_of_a_schedule_is_found_by_the_index_of_invocation_keys(path):
    with SqliteStore(path) as store:
        store.append(run_id_of(1), 0, log_of(run_id_of(1), 1, info={"invocation_key": "schedule:one:2"}))
        conn = store._session.conn
        for query, values in ((sqlite_schedules._LAST, ()), (sqlite_schedules._LAST_BEGUN, (5,))):
            rows = conn.execute(f"EXPLAIN QUERY PLAN {query}", ("a", "b", *values)).fetchall()
            (plan,) = [row[-1] for row in rows]
            assert plan.startswith("SEARCH runs USING INDEX runs_by_invocation (invocation_key>")


def test_a_schedule_is_written_whole_or_not_at_all(path):
    with SqliteStore(path) as store:
        store._session.conn.execute("PRAGMA max_page_count = 1")
        with pytest.raises(OtherStoreError) as caught:
            store.add_schedule(schedule_of("one", input={"much": "x" * 1_000_000}))
        assert caught.value.code == Code.STORE_FULL
        assert store.schedules() == []


def test_runs_that_nobody_drives_are_found_by_the_index_of_their_status(path):
    asked = []
    with SqliteStore(path) as store:
        store.append(run_id_of(1), 0, log_of(run_id_of(1), 1))
        store.append(run_id_of(2), 0, log_of(run_id_of(2), 2, status="completed"))
        conn = store._session.conn
        conn.set_trace_callback(asked.append)
        assert [row.run_id for row in store.list_runs(status="interrupted").rows] == [run_id_of(1)]
        conn.set_trace_callback(None)
        (query,) = [text for text in asked if "FROM runs" in text]
        plan = [row[-1] for row in conn.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()]
        assert plan[0].startswith("SEARCH runs USING INDEX runs_by_status (status=?")
