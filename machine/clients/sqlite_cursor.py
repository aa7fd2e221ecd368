"""The recorded cursors of sqlite3."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Final

from machine.clients.sql_errors import not_recorded
from machine.clients.sql_text import Kind, Statement, statement_of
from machine.clients.sql_values import restored_rows, stored_params

_PLAIN: Final = frozenset({int, float, str, bytes, type(None)})


class CursorMixin:
    """The methods of a cursor that are recorded."""

    row_factory: Any
    arraysize: int

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)  # type: ignore[call-arg]  # of sqlite3.Cursor
        self._of: Any = connection
        self._columns: list[str] | None = None
        self._rows: Iterator[Any] = iter(())
        self._count = -1
        self._last: int | None = None
        self._is_closed = False
        self._shaped: Any = None

    @property
    def connection(self) -> Any:
        """The connection of this cursor."""
        return self._of

    @property
    def description(self) -> Any:
        """The columns of the rows, as the DB-API wants them; None without rows."""
        if self._columns is None:
            return None
        return tuple((name, None, None, None, None, None, None) for name in self._columns)

    @property
    def rowcount(self) -> int:
        """The number of rows that the last change has changed, or -1."""
        return self._count

    @property
    def lastrowid(self) -> Any:
        """The id of the row that was inserted last, or None."""
        return self._last

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """Execute a statement and return this cursor."""
        self._run(sql, {"sql": sql, **({"params": _adapted(parameters)} if parameters else {})})
        return self

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Any:
        """Execute a statement for each of several parameters."""
        if not statement_of(sql).dml:
            raise sqlite3.ProgrammingError("executemany() can only execute DML statements.")
        many = [_adapted(each) for each in parameters]
        self._run(sql, {"op": "executemany", "sql": sql, "params": many}, many=True)
        return self

    def executescript(self, sql: str) -> Any:
        """Execute several statements, after a commit of what is open."""
        self._check()
        self._of.commit()
        self._run(sql, {"op": "script", "sql": sql}, script=True)
        return self

    def _check(self) -> None:
        self._of.check()
        if self._is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed cursor.")

    def _run(self, sql: str, request: dict[str, Any], *, many: bool = False, script: bool = False) -> None:
        self._check()
        self._columns, self._rows, self._count, self._shaped = None, iter(()), -1, None
        response = self._of.make(self._calls(sql, request, script=script))
        if response is None or "rows" not in response:
            return
        self._columns, self._rows = response["columns"], iter(restored_rows(response["rows"]))
        self._count = response["rowcount"]
        self._of.changed += max(self._count, 0)
        if not many and response["lastrowid"] is not None:
            self._last = response["lastrowid"]

    def _calls(self, sql: str, request: dict[str, Any], *, script: bool) -> Any:
        of = self._of
        session, kind = of.session, statement_of(sql)
        if kind.kind is Kind.REFUSED:
            raise not_recorded(f"{kind.word} ({kind.name or 'it lifts what a state may do'})")
        if of.asking and sql in of.asked:
            return _known(of.asked[sql])
        if script:
            script_kind = Statement(kind.kind, kind.word, several=True)  # it ends transactions by itself
            return session.statement(request, script_kind, begins=False)
        if kind.kind in {Kind.COMMIT, Kind.ROLLBACK} and session.transaction is not None:
            return session.end("commit" if kind.kind is Kind.COMMIT else "rollback", sql=sql)
        own = session.transaction
        if kind.word == "RELEASE" and own is not None and own.savepoint == kind.name:
            return session.end("commit", sql=sql)
        implicit = of.isolation_level is not None and kind.dml and of.autocommit == -1
        explicit = kind.kind in {Kind.BEGIN, Kind.SAVEPOINT} and kind.word not in {"RELEASE", "ROLLBACK TO"}
        begins = implicit or explicit or of.autocommit is False
        savepoint = kind.name if kind.word == "SAVEPOINT" else ""
        return session.statement(request, kind, begins=begins, savepoint=savepoint)

    def _made(self, row: tuple[Any, ...]) -> Any:
        """Return a row as the row factory makes it."""
        factory = self.row_factory
        if factory is None:
            return row
        if (
            isinstance(factory, type)
            and issubclass(factory, sqlite3.Row)
            and self._shaped is not self._columns
        ):
            own: Any = self
            self._shaped = self._columns  # which such a row reads from inside the cursor
            names = ", ".join('NULL AS "' + name.replace('"', '""') + '"' for name in self._columns or ())
            sqlite3.Cursor.execute(own, "SELECT " + names)
            sqlite3.Cursor.fetchall(own)
        return factory(self, row)

    def fetchone(self) -> Any:
        """Return the next row, None at the end."""
        self._check()
        row = next(self._rows, None)
        return None if row is None else self._made(row)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return at most `size` rows; `arraysize` is used when it is not given."""
        self._check()
        wanted = self.arraysize if size is None else size
        rows: list[Any] = []
        for row in self._rows:
            rows.append(self._made(row))
            if len(rows) == wanted:
                break
        return rows

    def fetchall(self) -> list[Any]:
        """Return the rest of the rows."""
        self._check()
        return [self._made(row) for row in self._rows]

    def close(self) -> None:
        """Close the cursor."""
        self._of.check()
        self._is_closed, self._rows = True, iter(())

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        self._check()
        return self._made(next(self._rows))


def _known(response: Any) -> Generator[Any, Any, Any]:
    """Return an answer for which nothing is called."""
    yield from ()
    return response


def _adapted(parameters: Any) -> Any:
    """Return parameters as JSON, adapted as sqlite3 does."""
    if isinstance(parameters, Mapping):
        return stored_params({name: _one(value) for name, value in parameters.items()})
    try:
        return stored_params([_one(value) for value in parameters])
    except TypeError:
        raise sqlite3.ProgrammingError("parameters are of unsupported type") from None


def _one(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    adapted = sqlite3.adapt(value, sqlite3.PrepareProtocol, value)
    if isinstance(adapted, int) and type(adapted) is not int:
        return int(adapted)
    if isinstance(adapted, str) and type(adapted) is not str:
        return str.__str__(adapted)
    if isinstance(adapted, float) and type(adapted) is not float:
        return float(adapted)
    if type(adapted) not in _PLAIN and not isinstance(adapted, bytearray | memoryview):
        raise sqlite3.ProgrammingError(f"Error binding parameter: type '{kind.__name__}' is not supported")
    return adapted
