"""Connections of psycopg 3, blocking and asynchronous, recorded.

A recorded connection is one of psycopg's own classes (or the user's subclass of one) with a `PGconn` that sends
nothing. psycopg's own code decides what is to be sent; the generators in which it does so end here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.clients.psycopg_connection import (
    AsyncConnectionMixin,
    AsyncCursorMixin,
    ConnectionMixin,
    CursorMixin,
    RecordedConnection,
    RecordedCursor,
    mixed,
)
from machine.clients.psycopg_errors import rebuilt
from machine.clients.psycopg_live import PsycopgLive
from machine.clients.psycopg_wire import RecordedPGconn, escape_for_recorded
from machine.clients.recording import all_of, recorder, replaced
from machine.clients.sql_calls import run_async, run_blocking
from machine.clients.sql_errors import said_by
from machine.clients.sql_session import SqlSession
from machine.errors import IoError

_OWN: Final = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")


def connect(io: Any, conninfo: str = "", *, kind: Any = psycopg.Connection, **options: Any) -> Any:
    """Return a recorded connection of a handler's `io`; the arguments are those of `psycopg.connect`."""
    recorded, live, session, own = _prepared(io, kind, (ConnectionMixin, CursorMixin), conninfo, options)
    known = _opened(lambda: run_blocking(session, session.connect(), live.do))
    return _made(recorded, live, session, known, own)


async def connect_async(
    io: Any, conninfo: str = "", *, kind: Any = psycopg.AsyncConnection, **options: Any
) -> Any:
    """Return a recorded asynchronous connection; the arguments are those of `psycopg.AsyncConnection.connect`."""
    recorded, live, session, own = _prepared(
        io, kind, (AsyncConnectionMixin, AsyncCursorMixin), conninfo, options
    )
    try:
        known = await run_async(session, session.connect(), live.do_async)
    except IoError as exc:
        session.abandon()
        raise _as_raised(exc) from exc
    return _made(recorded, live, session, known, own)


def patch() -> Callable[[], None]:
    """Record connections that handlers open with psycopg."""

    def blocking(before: Any) -> Any:
        def connecting(cls: Any, /, conninfo: str = "", **options: Any) -> Any:
            io = _io(cls)
            if io is None:
                return before.__func__(cls, conninfo, **options)
            return connect(io, conninfo, kind=cls, **options)

        return classmethod(connecting)

    def asynchronous(before: Any) -> Any:
        async def connecting(cls: Any, /, conninfo: str = "", **options: Any) -> Any:
            io = _io(cls)
            if io is None:
                return await before.__func__(cls, conninfo, **options)
            return await connect_async(io, conninfo, kind=cls, **options)

        return classmethod(connecting)

    def function(before: Any) -> Any:
        def connecting(conninfo: str = "", **options: Any) -> Any:
            if recorder("psycopg", "sqlalchemy") is None:
                return before(conninfo, **options)
            return psycopg.Connection.connect(conninfo, **options)

        return connecting

    return all_of(
        [
            _replaced_method(psycopg.Connection, blocking),
            _replaced_method(psycopg.AsyncConnection, asynchronous),
            replaced(psycopg, "connect", function),
        ]
    )


def _replaced_method(owner: Any, make: Callable[[Any], Any]) -> Callable[[], None]:
    before = vars(owner)["connect"]
    after = make(before)
    owner.connect = after

    def undo() -> None:
        if vars(owner).get("connect") is after:
            owner.connect = before

    return undo


def _io(cls: Any) -> Any:
    if issubclass(cls, ConnectionMixin | AsyncConnectionMixin):
        return None
    return recorder("psycopg", "sqlalchemy")


def _prepared(
    io: Any, kind: Any, mixins: tuple[Any, Any], conninfo: str, options: Mapping[str, Any]
) -> tuple[Any, PsycopgLive, SqlSession, dict[str, Any]]:
    escape_for_recorded()
    _recorded_cursors()
    own = {name: options[name] for name in _OWN if name in options}
    given = {name: value for name, value in options.items() if name not in own}
    try:
        params = conninfo_to_dict(conninfo, **given)
    except psycopg.ProgrammingError:
        params = {}  # which opening it will say again
    database = params.get("dbname") or os.environ.get("PGDATABASE") or params.get("user") or "postgres"
    session = SqlSession(io, str(database))
    passed = {name: own[name] for name in ("prepare_threshold",) if name in own}
    live = PsycopgLive(kind, make_conninfo(conninfo, **given), passed, session)
    session.let_go = live.close
    return mixed(kind, mixins[0]), live, session, {**own, "params": params, "cursors": mixins[1]}


def _recorded_cursors() -> None:
    """Let a cursor that is made of a recorded connection by its class be one that is recorded, too."""
    base = psycopg.Cursor.__mro__[1]
    if "__new__" in vars(base):
        return

    def make(cls: Any, connection: Any = None, *args: Any, **options: Any) -> Any:
        del args, options
        if isinstance(connection, RecordedConnection) and not issubclass(cls, RecordedCursor):
            cls = mixed(cls, connection._cursors)  # noqa: SLF001 - a class of this module
        return object.__new__(cls)

    setattr(base, "__new__", make)  # noqa: B010 - which psycopg leaves to `object`


def _opened(opening: Callable[[], Any]) -> Any:
    try:
        return opening()
    except IoError as exc:
        raise _as_raised(exc) from exc


def _made(recorded: Any, live: PsycopgLive, session: SqlSession, known: Any, own: Mapping[str, Any]) -> Any:
    connection = recorded(RecordedPGconn(session, known, own["params"]))
    connection.take(live, session, known, own["cursors"])
    connection._autocommit = bool(own.get("autocommit", False))  # noqa: SLF001 - as psycopg's own connect does
    if own.get("row_factory"):
        connection.row_factory = own["row_factory"]
    if own.get("cursor_factory"):
        connection.cursor_factory = own["cursor_factory"]
    if own.get("context"):
        connection._adapters = AdaptersMap(own["context"].adapters)  # noqa: SLF001 - the same
    live.adapters = connection.adapters
    return connection


def _as_raised(exc: IoError) -> Exception:
    """Return what a handler gets for a recorded error: psycopg's own exception, or a refusal as it is."""
    said = said_by(exc)
    return exc if said is None else rebuilt(said)
