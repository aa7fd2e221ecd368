"""Files as earlier versions of the store made them."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from machine.stores import sqlite_schema
from machine.testing.store_samples import log_of, run_id_of


@pytest.fixture
def version_1():
    """Return a function that makes a file of schema version 1, with one run in it, and returns the log."""
    return lambda path: _made(path, 1)


@pytest.fixture
def version_2():
    """Return a function that makes a file of schema version 2, with one run in it, and returns the log."""
    return lambda path: _made(path, 2)


@pytest.fixture
def version_3():
    """Return a function that makes a file of schema version 3, with one run in it, and returns the log."""
    return lambda path: _made(path, 3)


def _made(path, version):
    run_id = run_id_of(1)
    log = log_of(run_id, 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        for step in sqlite_schema.MIGRATIONS[:version]:
            for statement in step:
                conn.execute(statement)
        conn.execute(f"PRAGMA application_id = {sqlite_schema.APPLICATION_ID}")
        conn.execute(f"PRAGMA user_version = {version}")
        row = (run_id, "demo", "running", 1_700_000_000_001, 1_700_000_000_001, 3)
        columns = "key, run_id, op_id, status, created_ms, updated_ms, head_seq"
        conn.execute(f"INSERT INTO runs ({columns}) VALUES (1, ?, ?, ?, ?, ?, ?)", row)
        for event in log:
            conn.execute("INSERT INTO events VALUES (1, ?, ?, ?)", (event.seq, event.data, event.chain))
    return log
