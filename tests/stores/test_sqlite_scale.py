"""What is looked at for one run, or one page of runs, does not grow with the number of runs in the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from machine import Plan, run, verify
from machine.errors import NotFoundError
from machine.stores import SqliteStore
from machine.testing.store_samples import log_of, run_id_of

FEW, MANY = 100, 10_000


def filled(path, count):
    """Fill a file with as many runs of two events, the last of which is a whole one, and return its id."""
    SqliteStore(path).close()
    logs = [(number, run_id_of(number), log_of(run_id_of(number), 2)) for number in range(1, count)]
    with closing(sqlite3.connect(path)) as conn:
        conn.executemany(
            "INSERT INTO runs VALUES (?, ?, 'demo', 'running', ?, ?, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            [(number, run_id, number, number) for number, run_id, _ in logs],
        )
        conn.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?)",
            [(number, *event) for number, _, log in logs for event in log],
        )
        conn.executemany("INSERT INTO leases VALUES (?, 1, NULL, 0, 1)", [(run_id,) for _, run_id, _ in logs])
        conn.commit()
    plan = Plan("op")
    plan.state("s.one")(lambda ctx: None)
    with SqliteStore(path) as store:
        return run(plan, store=store).run_id


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {count: (folder / f"{count}.db", filled(folder / f"{count}.db", count)) for count in (FEW, MANY)}


def steps(files, count, look):
    """Return how many steps of its virtual machine SQLite takes for a look at a file."""
    path, run_id = files[count]
    taken = []
    with SqliteStore(path) as store:
        store._session.conn.set_progress_handler(lambda: taken.append(1), 1)
        look(store, run_id)
        store._session.conn.set_progress_handler(None, 0)
    return len(taken)


@pytest.mark.parametrize(
    "look",
    [
        lambda store, run_id: store.run_row(run_id),
        lambda store, run_id: store.last_segment(run_id),
        lambda store, run_id: store.list_runs(limit=10, segments=False),
        lambda store, run_id: store.run_row(run_id_of(50)),
        lambda store, run_id: list(store.read_range(run_id)),
        lambda store, run_id: store.find_runs(run_id[:8]),
        lambda store, run_id: store.find_runs(run_id_of(50)[:8]),
        lambda store, run_id: store.list_runs(),
        lambda store, run_id: store.list_runs(cursor=run_id_of(60)),
        lambda store, run_id: store.list_runs(status="interrupted", op="demo"),
        lambda store, run_id: verify(store.list_runs(limit=1).rows[0].run_id, store=store),
        lambda store, run_id: store.acquire(run_id_of(50), "one", 1000),
        lambda store, run_id: store.find_invocation("nobody"),
    ],
)
def test_a_hundred_times_as_many_runs_take_no_more_steps(files, look):
    # SQLite's own steps, and a few of a tree that is one level higher
    assert steps(files, MANY, look) <= steps(files, FEW, look) * 1.1 + 10


def test_a_run_that_is_not_there_is_not_looked_for_in_all_others(files):
    def look(store, run_id):
        with pytest.raises(NotFoundError):
            verify(run_id_of(MANY + 1), store=store)

    assert steps(files, MANY, look) <= steps(files, FEW, look) + 10
