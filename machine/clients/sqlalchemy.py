"""SQLAlchemy over recorded connections: its dialects open them, and its pools give none to another attempt.

A connection belongs to the attempt that opened it. An engine outlives attempts, so its pool is asked at every
checkout, and replaces a connection that is not of the attempt whose code runs, or a plain one inside a handler.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import sqlalchemy.exc
import sqlalchemy.pool
from sqlalchemy import event

from machine.clients.recording import all_of, recorder, replaced

_DRIVERS: Final = ("sqlite3", "psycopg", "duckdb")


def patch() -> Callable[[], None]:
    """Record connections that engines open in handlers, with each driver that is installed."""
    drivers = [name for name in _DRIVERS if find_spec(name) is not None]
    return all_of([_hooks(), *(import_module(f"machine.clients.{name}").patch() for name in drivers)])


def _hooks() -> Callable[[], None]:
    if not event.contains(sqlalchemy.pool.Pool, "checkout", _check):
        # for good: an engine that outlives the run has its connections in the pool
        event.listen(sqlalchemy.pool.Pool, "checkout", _check)
    undoing: list[Callable[[], None]] = []
    if find_spec("psycopg") is not None:
        from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg  # noqa: PLC0415 - only with psycopg

        undoing.append(replaced(PGDialect_psycopg, "initialize", _asking))
    from sqlalchemy.dialects.sqlite.base import SQLiteDialect  # noqa: PLC0415 - the same

    undoing.append(replaced(SQLiteDialect, "initialize", _asking))
    return all_of(undoing)


def _asking(before: Any) -> Any:
    """Let what a dialect asks of its first connection be answered from what was recorded with that."""

    def initialize(self: Any, connection: Any) -> Any:
        recorded = _recorded(connection.connection.driver_connection)
        if recorded is None:
            return before(self, connection)
        recorded.asking = True
        try:
            return before(self, connection)
        finally:
            recorded.asking = False

    return initialize


def _check(dbapi_connection: Any, record: Any, proxy: Any) -> None:
    """Have the pool replace a connection that does not belong to the code that asks for one."""
    del dbapi_connection, proxy
    recorded = _recorded(record.driver_connection)
    wanted = recorder("sqlalchemy", *_DRIVERS)
    if wanted is None and recorded is not None and recorded.session.belongs_here():
        return  # one that io.connect opened for this engine
    if (None if recorded is None else recorded.session.io) is not wanted:
        raise sqlalchemy.exc.DisconnectionError("the connection belongs to another attempt")


def _recorded(driver: Any) -> Any:
    """Return the recorded connection behind what a dialect calls its driver's, or None for a plain one."""
    for one in (driver, getattr(driver, "_conn", None), getattr(driver, "_ConnectionWrapper__c", None)):
        if getattr(one, "is_recorded_by_machine", False):
            return one
    return None
