"""Suspended runs in a file: older files, damage, and that only what is due is looked at."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from machine.errors import Code, CorruptionError, OtherStoreError
from machine.stores import SqliteStore
from machine.testing.store_samples import log_of, run_id_of, suspended, then

RUN = run_id_of(1)
MANY = 10_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def suspended_run(store, *due_ms):
    store.append(RUN, 0, log_of(RUN, 1))
    store.append(RUN, 1, then(store, RUN, suspended(*due_ms)))


def test_a_file_of_version_3_gets_what_it_lacks_and_keeps_what_it_has(path, version_3):
    log = version_3(path)
    with SqliteStore(path, create=False) as store:
        assert list(store.read_range(RUN)) == log
        assert store.integrity_problems() == []
        store.append(RUN, 3, then(store, RUN, suspended(7)))
        assert (store.due_runs(6), store.due_runs(7)) == ([], [RUN])
        store.post(RUN, "signal", {})
        assert store.due_runs(6) == [RUN]
        assert store.integrity_problems() == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("wake_ms = NULL", "is not what its log says"),
        ("wake_ms = 6", "is not what its log says"),
        ("wake_ms = 'soon'", "values of other types"),
        ("answered_ms = 'soon'", "was answered and is not suspended"),
        ("answered_ms = 1, status = 'running'", "was answered and is not suspended"),
    ],
)
def test_a_row_that_says_otherwise_is_reported(path, change, problem):
    with SqliteStore(path) as store:
        suspended_run(store, 7)
        store.post(RUN, "signal", {})
        assert store.integrity_problems() == []
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute(f"UPDATE runs SET {change}")
        assert any(problem in said for said in store.integrity_problems())


def test_a_damaged_time_is_damage(path):
    with SqliteStore(path) as store:
        suspended_run(store, 7)
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute("UPDATE runs SET wake_ms = 'soon'")
        for use in (lambda: store.run_row(RUN), store.list_runs):
            with pytest.raises(CorruptionError):
                use()


def test_a_post_that_fails_leaves_the_run_as_it_was(path):
    with SqliteStore(path) as store:
        suspended_run(store, 7)
        store._session.conn.execute("PRAGMA query_only = ON")
        with pytest.raises(OtherStoreError) as caught:
            store.post(RUN, "signal", {})
        assert caught.value.code == Code.STORE_READ_ONLY
        store._session.conn.execute("PRAGMA query_only = OFF")
        assert (store.inbox(RUN), store.due_runs(0)) == ([], [])


def test_a_signal_of_other_types_is_damage(path):
    with SqliteStore(path) as store:
        store.post_signal("paid", "7", {})
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.executescript("DROP TRIGGER signals_are_taken_once; UPDATE signals SET value = 'text'")
        with pytest.raises(CorruptionError, match="signal 1 is damaged"):
            store.signals()


def test_a_wait_for_a_signal_that_is_left_over_is_reported(path):
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 1))
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute("INSERT INTO signal_waits VALUES (1, 'paid', '7')")
        assert store.integrity_problems() == [f"index: run {RUN} waits for a signal and is not suspended"]


TAKER = """
import json, sys
from machine.errors import ConcurrencyError
from machine.stores import SqliteStore
from machine.testing.store_samples import ANSWER, log_of, then

path, run_id = sys.argv[1:]
with SqliteStore(path) as store:
    store.append(run_id, 0, log_of(run_id, 1))
    sys.stdin.readline()
    won, refused = [], 0
    while waiting := store.signals("paid", "7"):
        try:
            events = then(store, run_id, ANSWER)
            store.append(run_id, 1 + len(won), events, takes=(waiting[0].number,))
        except ConcurrencyError as exc:
            assert exc.code == "signal_taken", exc
            refused += 1
        else:
            won.append(waiting[0].number)
print(json.dumps([won, refused]))
"""


def test_two_processes_never_take_one_signal(path):
    count = 60
    with SqliteStore(path) as store:
        for number in range(count):
            store.post_signal("paid", "7", number)
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, str(path), run_id_of(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2)
    ]
    for taker in takers:
        taker.stdin.write("go\n")
        taker.stdin.flush()
    results = [json.loads(taker.communicate(timeout=60)[0]) for taker in takers]
    assert sorted(number for won, _ in results for number in won) == list(range(1, count + 1))
    with SqliteStore(path) as store:
        assert [store.count_events(run_id_of(number)) - 1 for number in (1, 2)] == [
            len(r[0]) for r in results
        ]
        assert store.integrity_problems() == []


def test_a_signal_is_found_by_its_index(path):
    with SqliteStore(path) as store:
        store.append(RUN, 0, log_of(RUN, 1))
        seen = []
        store._session.conn.set_trace_callback(seen.append)
        store.append(RUN, 1, then(store, RUN, suspended(None)), inbox_seen=0, awaits=[("paid", "7")])
        store.signals("paid", "7")
        store.awaiting("paid", "7")
        store._session.conn.set_trace_callback(None)
        for statement in seen:
            if "signal" in statement and statement.startswith("SELECT"):
                plan = store._session.conn.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
                assert not [step for step in plan if "SCAN" in step[3]], statement


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """Make a file of as many suspended runs: half of them wait for a person, the others for a later time."""
    path = tmp_path_factory.mktemp("crowd") / "runs.db"
    SqliteStore(path).close()
    columns = "(run_id, op_id, status, created_ms, updated_ms, head_seq, wake_ms)"
    with closing(sqlite3.connect(path)) as conn:
        conn.executemany(
            f"INSERT INTO runs {columns} VALUES (?, 'demo', 'suspended', 0, 0, 0, ?)",
            [(run_id_of(number), 1_000_000 + number if number % 2 else None) for number in range(MANY)],
        )
        conn.executemany(
            "UPDATE runs SET answered_ms = ? WHERE run_id = ?",
            [(number, run_id_of(number)) for number in (20, 40, 60)],
        )
        conn.commit()
    return path


def looked_up(store, *args, **more):
    """Return the ids of due runs, the plan of the statement, and the steps that SQLite took."""
    conn, seen, taken = store._session.conn, [], []
    conn.set_trace_callback(seen.append)
    conn.set_progress_handler(lambda: taken.append(1), 1)
    found = store.due_runs(*args, **more)
    conn.set_progress_handler(None, 0)
    conn.set_trace_callback(None)
    plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {seen[-1]}")]
    return found, plan, len(taken)


@pytest.mark.parametrize("more", [{}, {"op": "demo"}])
def test_only_what_is_due_is_looked_at_among_many(crowded, more):
    with SqliteStore(crowded) as store:
        found, plan, steps = looked_up(store, 1_000_003, **more)
        assert found == [run_id_of(number) for number in (20, 40, 60, 1, 3)]
        scans = [step for step in plan if " runs" in step]
        assert len(scans) == 2
        assert any("USING INDEX runs_by_answer" in step for step in scans)
        assert any("USING INDEX runs_by_wake (wake_ms>? AND wake_ms<?)" in step for step in scans)
        assert looked_up(store, 0, **more)[2] <= steps < 500
        # nor is all that is due, where there are many
        assert looked_up(store, 2_000_000, 5, **more)[2] < 500
