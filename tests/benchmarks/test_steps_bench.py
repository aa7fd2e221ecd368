"""What a step costs, live and replayed, beside bare SQLite commits of the same bytes."""

from __future__ import annotations

import itertools
import sqlite3

import pytest

from machine import Plan, RunConfig, open_store, replay, run
from machine.stores import MemoryStore

STEPS = 1000


def linear_plan():
    """Return a plan of trivial states that each put about 200 bytes into the context."""
    plan = Plan("bench")
    previous = []
    for number in range(STEPS):

        async def handler(ctx, io, rec, number=number):
            ctx["result"] = {"number": number, "text": "x" * 150, "ok": True, "list": [1, 2, 3]}

        previous = [plan.state(f"step.n{number}", after=previous)(handler)]
    assert plan.graph
    return plan


@pytest.fixture(scope="module")
def plan():
    return linear_plan()


@pytest.fixture(scope="module")
def commits(plan):
    """Return the bytes of each commit of a run under `states`: what goes to disk at every boundary."""

    class Batches(MemoryStore):
        def __init__(self):
            super().__init__()
            self.batches = []

        def append(self, run_id, expected_seq, events, artifacts=(), **more):
            super().append(run_id, expected_seq, events, artifacts, **more)
            self.batches.append((list(events), list(artifacts)))

    with Batches() as store:
        run(plan, store=store, config=RunConfig(durability="states"))
        return store.batches


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_bare_commits_of_the_same_bytes(per_step, commits, tmp_path, synchronous):
    numbers = itertools.count()

    def setup():
        connection = sqlite3.connect(tmp_path / f"{next(numbers)}.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("CREATE TABLE events(seq INTEGER PRIMARY KEY, data BLOB, chain BLOB)")
        connection.execute("CREATE TABLE artifacts(id BLOB UNIQUE, kind TEXT, data BLOB)")
        return (connection,), {}

    def commit(connection):
        for events, artifacts in commits:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?)",
                [(bytes.fromhex(item.id), item.kind, item.data) for item in artifacts],
            )
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?)",
                [(event.seq, event.data, event.chain) for event in events],
            )
            connection.execute("COMMIT")
        connection.close()

    per_step(f"bare commit, {synchronous}", STEPS, setup, commit)


@pytest.mark.parametrize(
    ("name", "url", "durability"),
    [
        ("live, memory", "memory://", "states"),
        ("live, SQLite FULL, effects", "sqlite:///{path}", "effects"),
        ("live, SQLite FULL, states", "sqlite:///{path}", "states"),
        ("live, SQLite NORMAL, states", "sqlite:///{path}?synchronous=normal", "states"),
    ],
)
def test_a_live_step(per_step, plan, tmp_path, name, url, durability):
    numbers = itertools.count()
    config = RunConfig(durability=durability)

    def setup():
        return (open_store(url.format(path=tmp_path / f"{next(numbers)}.db")),), {}

    def drive(store):
        with store:
            assert run(plan, store=store, config=config).status == "completed"

    per_step(name, STEPS, setup, drive)


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{path}"])
def test_a_replayed_step(per_step, plan, tmp_path, url):
    with open_store(url.format(path=tmp_path / "runs.db")) as store:
        run_id = run(plan, store=store).run_id

        def again():
            assert replay(run_id, plan=plan, store=store).identical

        per_step(f"replayed, {url.split(':')[0]}", STEPS, None, again)
