"""The floor: bare commits of the bytes that a run writes, one transaction for each state."""

from __future__ import annotations

import sqlite3

from ours import drive
from plans import linear
from stage import main, stopwatch

from machine import RunConfig
from machine.stores import MemoryStore


class Batches(MemoryStore):
    """A store that keeps what it is given at each append: under `states`, what each boundary commits."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def append(self, run_id, expected_seq, events, artifacts=(), **more):
        super().append(run_id, expected_seq, events, artifacts, **more)
        rows = [(bytes.fromhex(item.id), str(item.kind), item.data) for item in artifacts]
        self.batches.append((rows, [(event.seq, event.data, event.chain) for event in events]))


def commits(n, synchronous):
    """Write the bytes of a run of `n` states into a bare SQLite file."""
    with Batches() as store:
        drive(linear(n), store, config=RunConfig(durability="states"))
        batches = store.batches
    told = {}
    connection = sqlite3.connect("bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("CREATE TABLE events(seq INTEGER PRIMARY KEY, data BLOB, chain BLOB)")
    connection.execute("CREATE TABLE artifacts(id BLOB UNIQUE, kind TEXT, data BLOB)")
    with stopwatch(n, told):
        for artifacts, events in batches:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?)", artifacts)
            connection.executemany("INSERT INTO events VALUES (?, ?, ?)", events)
            connection.execute("COMMIT")
    connection.close()
    return told


if __name__ == "__main__":
    main(commits)
