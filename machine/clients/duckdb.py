"""Connections of DuckDB, recorded: what its DB-API interface does. Relations and data frames are refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Self

import duckdb

from machine.clients.duckdb_live import CLASSES, DuckdbLive, is_private, name_of
from machine.clients.recording import recorder, replaced
from machine.clients.sql_calls import run_blocking
from machine.clients.sql_errors import not_recorded, said_by
from machine.clients.sql_session import SqlSession
from machine.clients.sql_text import Kind, statement_of
from machine.clients.sql_values import restored_rows, stored_params
from machine.errors import IoError

_OTHERS: Final[Mapping[str, type[Exception]]] = {
    "TypeError": TypeError,
    "ValueError": ValueError,
    "RuntimeError": RuntimeError,
}
_HINT: Final = "fetch the rows, or do it in a step: io.step(function, ...)"


def connect(
    io: Any, database: Any = ":memory:", read_only: bool = False, config: Any = None
) -> RecordedConnection:
    """Return a recorded connection of a handler's `io`; the arguments are those of `duckdb.connect`."""
    path = os.fspath(database)
    session = SqlSession(io, name_of(path), private=is_private(path))

    def opening(only_reads: bool) -> Any:
        given: dict[str, Any] = {"config": config} if config else {}
        if only_reads and not read_only:
            try:
                return duckdb.connect(path, read_only=True, **given)
            except duckdb.ConnectionException:
                pass  # this process has it open to write, and then nobody can open it to read only
        return duckdb.connect(path, read_only=read_only, **given)

    connection = RecordedConnection(session, DuckdbLive(opening, session))
    connection.ask(session.connect())
    return connection


def patch() -> Callable[[], None]:
    """Record connections that handlers open with `duckdb.connect`."""

    def make(before: Any) -> Any:
        def connecting(*args: Any, **options: Any) -> Any:
            io = recorder("duckdb", "sqlalchemy")
            return before(*args, **options) if io is None else connect(io, *args, **options)

        return connecting

    return replaced(duckdb, "connect", make)


class RecordedConnection:
    """A substitute for a `DuckDBPyConnection`, a class that cannot be subclassed."""

    is_recorded_by_machine = True

    def __init__(self, session: SqlSession, live: DuckdbLive) -> None:
        self.session = session
        self.asking = False
        self._live = live
        self._columns: list[Any] | None = None
        self._rows: Iterator[Any] = iter(())
        session.let_go = live.close

    def ask(self, calls: Any) -> Any:
        """Make calls of the session and return the response. Raises DuckDB's own exceptions."""
        if self.session.closed and not self.session.scope.closed:
            raise duckdb.ConnectionException("Connection Error: Connection already closed!")
        try:
            return run_blocking(self.session, calls, self._live.do)
        except IoError as exc:
            said = said_by(exc)
            if said is None:
                raise
            kind = CLASSES.get(str(said["class"])) or _OTHERS.get(str(said["class"]), duckdb.Error)
            raise kind(*said["args"]) from exc

    def execute(self, query: str, parameters: Any = None) -> RecordedConnection:
        """Execute a statement and return this connection, from which its rows are fetched."""
        request: dict[str, Any] = {"sql": query}
        if parameters:
            request["params"] = stored_params(parameters, self._live.kinds)
        return self._run(query, request)

    def executemany(self, query: str, parameters: Iterable[Any] = ()) -> RecordedConnection:
        """Execute a statement for each of several parameters."""
        many = [stored_params(each, self._live.kinds) for each in parameters]
        return self._run(query, {"op": "executemany", "sql": query, "params": many})

    def _run(self, query: str, request: dict[str, Any]) -> RecordedConnection:
        session, kind = self.session, statement_of(query)
        if kind.kind is Kind.REFUSED:
            raise not_recorded(f"{kind.word} ({kind.name or 'it lifts what a state may do'})", _HINT)
        self._columns, self._rows = None, iter(())
        if kind.kind is Kind.BEGIN and not kind.several:
            return self.begin()
        if kind.kind in {Kind.COMMIT, Kind.ROLLBACK}:
            return self.commit() if kind.kind is Kind.COMMIT else self.rollback()
        if session.transaction is not None and not session.transaction.calls:
            request = {"begin": "BEGIN", **request}
        response = self.ask(session.statement(request, kind, begins=False))
        self._columns = response["columns"]
        self._rows = iter(restored_rows(response["rows"]))
        return self

    def begin(self) -> RecordedConnection:
        """Begin a transaction."""
        if self.session.transaction is not None:
            raise duckdb.TransactionException(
                "TransactionContext Error: cannot start a transaction within a transaction"
            )
        self.session.begin()
        return self

    def commit(self) -> RecordedConnection:
        """Commit the open transaction."""
        return self._end("commit")

    def rollback(self) -> RecordedConnection:
        """Undo the open transaction."""
        return self._end("rollback")

    def _end(self, op: str) -> RecordedConnection:
        if self.session.transaction is None:
            raise duckdb.TransactionException(
                f"TransactionContext Error: cannot {op} - no transaction is active"
            )
        self.ask(self.session.end(op))
        return self

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        """The columns of the rows, as the DB-API wants them; None without rows. A type is given as text."""
        if self._columns is None:
            return None
        return [(name, kind, None, None, None, None, None) for name, kind in self._columns]

    @property
    def rowcount(self) -> int:
        """Return -1, as DuckDB does."""
        return -1

    def fetchone(self) -> Any:
        """Return the next row, None at the end."""
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[Any]:
        """Return at most `size` rows."""
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[Any]:
        """Return the rest of the rows."""
        return list(self._rows)

    def cursor(self) -> RecordedConnection:
        """Return another connection to the same database."""
        session = SqlSession(self.session.io, self.session.database, private=self.session.private)
        return RecordedConnection(session, DuckdbLive(lambda _: self._live.real.cursor(), session))

    duplicate = cursor

    def close(self) -> None:
        """Close the connection, which undoes what is open."""
        session = self.session
        open_now = session.transaction is not None and session.transaction.calls and not session.scope.closed
        if open_now and not session.closed:
            self.ask(session.end("rollback"))
        session.transaction = None
        session.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(duckdb.DuckDBPyConnection, name):
            raise AttributeError(f"a connection of DuckDB has no attribute {name!r}")
        raise not_recorded(f"{name} of a connection of DuckDB", _HINT)
