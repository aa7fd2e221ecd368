"""Suspended runs of a store file that can continue, found by two partial indexes that hold no other run."""

from __future__ import annotations

import sqlite3
from typing import Final

# The first of either index are all that can be among the first of both.
_BY: Final = (
    "SELECT * FROM (SELECT key, run_id, {0} AS since FROM runs WHERE {0} IS NOT NULL AND {1} "
    "ORDER BY {0} LIMIT :limit)"
)
_DUE: Final = "SELECT run_id FROM (%s UNION ALL %s) GROUP BY key ORDER BY min(since), key LIMIT :limit"
_ANY: Final = _DUE % (_BY.format("answered_ms", "1"), _BY.format("wake_ms", "wake_ms <= :now"))
_OF_OP: Final = _DUE % (
    # the + prevents SQLite from looking at all runs of the op
    _BY.format("answered_ms", "+op_id = :op"),
    _BY.format("wake_ms", "wake_ms <= :now AND +op_id = :op"),
)


def due_runs(conn: sqlite3.Connection, now_ms: int, limit: int, op: str | None) -> list[str]:
    """Return the ids of runs that are due or were answered, those first that have been for the longest."""
    values = {"now": now_ms, "limit": limit, "op": op}
    return [run_id for (run_id,) in conn.execute(_ANY if op is None else _OF_OP, values).fetchall()]
