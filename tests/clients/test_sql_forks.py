"""Transactions in forks, retries and runs on recorded facts: taken as a whole, or made again as a whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from machine import Plan, RetryPolicy, RunConfig, fork, open_store, replay, resume, run
from machine.testing import crash_matrix


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
        db.commit()
    return path


def names(path):
    with closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute("SELECT name FROM item ORDER BY id")]


def plan_of(handler, **more):
    plan = Plan("sql_fork", clients=["sqlite3"])
    plan.state("write.it", side_effects="apply_side_effect", idempotency="it", **more)(handler)
    return plan


def test_a_fork_makes_a_transaction_again_that_its_past_did_not_commit(path):
    fails = [True]

    def handler(ctx, io, rec):
        with closing(sqlite3.connect(path)) as db:
            with db:
                ctx["a"] = db.execute("INSERT INTO item (name) VALUES ('a')").lastrowid
            with db:
                ctx["b"] = db.execute("INSERT INTO item (name) VALUES ('b')").lastrowid
                if fails:
                    raise ValueError("later")

    plan = plan_of(handler)
    with open_store("memory://") as store:
        failed = run(plan, store=store)
        assert (failed.status, names(path)) == ("failed", ["a"])
        fails.clear()
        last = len(list(store.read_range(failed.run_id, 1, 100)))
        forked = resume(
            fork(failed.run_id, at=last - 2, plan=plan, store=store).run_id, plan=plan, store=store
        )
        assert forked.context == {"a": 1, "b": 2}, forked.error
        assert names(path) == ["a", "b"]
        assert replay(forked.run_id, plan=plan, store=store).identical

        live = run(plan, store=store, facts_from=forked.run_id)
        assert live.context == {"a": 3, "b": 4}, live.error
        assert names(path) == ["a", "b", "a", "b"]
        shut = run(plan, store=store, facts_from=forked.run_id, config=RunConfig(io_mode="replay"))
        assert shut.context == {"a": 1, "b": 2}, shut.error
        assert names(path) == ["a", "b", "a", "b"]


def test_a_retry_makes_a_transaction_again_that_was_rolled_back(path):
    """Reused statement by statement, the INSERT would be lost."""
    tries = []

    def handler(ctx, io, rec):
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("INSERT INTO item (name) VALUES ('a')")
            if not tries:
                tries.append(True)
                raise ConnectionError("again")

    plan = plan_of(handler, retry=RetryPolicy(max_attempts=2))
    with open_store("memory://") as store:
        result = run(plan, store=store)
        assert result.status == "completed", result.error
        assert names(path) == ["a"]


def test_what_a_rolled_back_read_found_is_what_the_next_attempt_decides_on(path):
    """A read that was made again would see what the first attempt has written after it, and write it twice."""
    tries = []

    def handler(ctx, io, rec):
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN")
            count = db.execute("SELECT count(*) FROM item").fetchone()[0]
            db.execute("ROLLBACK")
            db.execute("BEGIN")
            db.execute("INSERT INTO item (name) VALUES (?)", (f"number {count}",))
            db.execute("COMMIT")
            if not tries:
                tries.append(True)
                raise ConnectionError("again")

    plan = plan_of(handler, retry=RetryPolicy(max_attempts=2))
    with open_store("memory://") as store:
        result = run(plan, store=store)
        assert result.status == "completed", result.error
        assert names(path) == ["number 0"]


def test_a_transaction_that_differs_from_the_one_committed_in_its_place_is_refused(path):
    tries = []

    def handler(ctx, io, rec):
        with closing(sqlite3.connect(path)) as db:
            with db:
                db.execute("INSERT INTO item (name) VALUES ('a')")
                db.execute("INSERT INTO item (name) VALUES (?)", ("b" if tries else "c",))
            if not tries:
                tries.append(True)
                raise ConnectionError("again")

    plan = plan_of(handler, retry=RetryPolicy(max_attempts=2))
    with open_store("memory://") as store:
        result = run(plan, store=store)
        assert result.error.code == "transaction_changed"
        assert names(path) == ["a", "c"]


def test_transactions_are_safe_at_every_boundary(path):
    def handler(ctx, io, rec):
        with closing(sqlite3.connect(path)) as db:
            with db:
                ctx["a"] = db.execute("INSERT INTO item (name) VALUES ('a')").lastrowid
            with db:
                db.execute("INSERT INTO item (name) VALUES ('b')")
                db.rollback()
            own = db.execute("SELECT count(*) FROM item").fetchone()[0]
            with db:
                ctx["b"] = db.execute("INSERT INTO item (name) VALUES (?)", (f"number {own}",)).lastrowid

    matrix = crash_matrix(plan_of(handler), faults=["killed_before_append", "killed_after_append"])
    assert matrix.safe, matrix.render()
    assert names(path) == ["a", "number 1"]  # only the first run was real
