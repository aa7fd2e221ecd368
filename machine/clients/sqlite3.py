"""Connections of the standard library's `sqlite3`, recorded.

A recorded connection is a `sqlite3.Connection` over an empty database in memory, which takes part in nothing but
in building rows; what its methods do, a session does. The real connection is opened when something has to be sent.
"""

from __future__ import annotations

import functools
import sqlite3
import sqlite3.dbapi2
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from machine.clients.recording import all_of, recorder, replaced
from machine.clients.sql_calls import run_blocking
from machine.clients.sql_errors import not_recorded, said_by
from machine.clients.sql_session import SqlSession
from machine.clients.sql_text import Kind, Statement, statement_of
from machine.clients.sql_values import restored_rows, stored_params
from machine.clients.sqlite_live import CLASSES, SqliteLive, is_private, name_of
from machine.errors import IoError
from machine.watch.watch import unguarded

_UNCHANGED: Final = sqlite3.connect
_PLAIN: Final = frozenset({int, float, str, bytes, type(None)})


def connect(io: Any, database: Any, *args: Any, **options: Any) -> Any:
    """Return a recorded connection of a handler's `io`; the arguments are those of `sqlite3.connect`."""
    names = ("timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "cached_statements", "uri")
    given = {**dict(zip(names, args, strict=False)), **options}
    factory = given.pop("factory", None) or sqlite3.Connection
    with unguarded():
        return _recorded(factory, ConnectionMixin)(io, database, given)


def patch() -> Callable[[], None]:
    """Record connections that handlers open with `sqlite3.connect`."""

    def make(before: Any) -> Any:
        def connecting(database: Any, *args: Any, **options: Any) -> Any:
            io = recorder("sqlite3") or recorder("sqlalchemy")
            return before(database, *args, **options) if io is None else connect(io, database, *args, **options)

        return connecting

    return all_of([replaced(sqlite3, "connect", make), replaced(sqlite3.dbapi2, "connect", make)])


@functools.cache
def _recorded(kind: type[Any], mixin: type[Any]) -> type[Any]:
    return type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})


class ConnectionMixin:
    """The methods of a connection that are recorded."""

    is_recorded_by_machine = True

    def __init__(self, io: Any, database: Any, options: dict[str, Any]) -> None:
        super().__init__(":memory:", check_same_thread=False)  # type: ignore[call-arg] - of sqlite3.Connection
        text = database.decode() if isinstance(database, bytes) else str(database)
        self._thread = threading.get_ident() if options.get("check_same_thread", True) else None
        self._isolation = options.get("isolation_level", "")
        self._autocommit = options.get("autocommit", -1)
        self._text: Any = str
        self.asking = False
        """True while a dialect of SQLAlchemy asks for what was recorded when the connection was opened."""
        self._made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self._changed = 0
        self._live = SqliteLive(text, options, self._prepare)
        self.session = SqlSession(io, name_of(text), private=is_private(text))
        self.session.let_go = self._live.close
        self._asked = (self._call(self.session.connect()) or {}).get("asked", {})

    def _prepare(self, real: sqlite3.Connection) -> None:
        """Make the real connection like this one."""
        real.text_factory = self._text
        if not real.in_transaction and real.isolation_level != self._isolation:
            real.isolation_level = self._isolation
        while self._made:
            name, args, options = self._made.pop(0)
            getattr(real, name)(*args, **options)

    def _call(self, calls: Any) -> Any:
        self._check()
        try:
            response = run_blocking(self.session, calls, self._live.do)
        except IoError as exc:
            said = said_by(exc)
            if said is None:
                raise
            self._follow(said)
            raise _rebuilt(said) from exc
        self._follow(response)
        return response

    def _follow(self, said: Any) -> None:
        """Take over whether a transaction is open, which a statement may have ended by failing."""
        if isinstance(said, Mapping) and said.get("in_transaction") is False and self._autocommit is not False:
            self.session.transaction = None

    def _check(self) -> None:
        if self.session.closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        if self._thread not in {None, threading.get_ident()}:
            raise sqlite3.ProgrammingError(
                "SQLite objects created in a thread can only be used in that same thread. The object was created in "
                f"thread id {self._thread} and this is thread id {threading.get_ident()}."
            )

    # -- the interface of sqlite3.Connection -----------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open."""
        return self.session.transaction is not None or self._autocommit is False

    @property
    def total_changes(self) -> int:
        """The number of rows changed so far."""
        return self._changed

    @property
    def isolation_level(self) -> Any:
        """The way in which transactions begin; None when they do not by themselves."""
        return self._isolation

    @isolation_level.setter
    def isolation_level(self, value: Any) -> None:
        if value is None and self.session.transaction is not None:
            self.commit()
        self._isolation = value

    @property
    def autocommit(self) -> Any:
        """The mode of Python 3.12."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: Any) -> None:
        raise not_recorded("a change of `autocommit` of an open connection", "give it to sqlite3.connect")

    @property
    def text_factory(self) -> Any:
        """The class of texts."""
        return self._text

    @text_factory.setter
    def text_factory(self, value: Any) -> None:
        self._text = value

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        """Return a new cursor."""
        self._check()
        cursor = _recorded(factory, CursorMixin)(self)
        if self.row_factory is not None:  # type: ignore[attr-defined] - of sqlite3.Connection
            cursor.row_factory = self.row_factory  # type: ignore[attr-defined] - the same
        return cursor

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """Execute a statement on a new cursor, and return that."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Any:
        """Execute a statement for each of several parameters on a new cursor, and return that."""
        return self.cursor().executemany(sql, parameters)

    def executescript(self, sql: str) -> Any:
        """Execute several statements on a new cursor, and return that."""
        return self.cursor().executescript(sql)

    def commit(self) -> None:
        """Commit the open transaction, if there is one."""
        self._check()
        if self._autocommit is not True:
            self._call(self.session.end("commit"))

    def rollback(self) -> None:
        """Undo the open transaction, if there is one."""
        self._check()
        if self._autocommit is not True:
            self._call(self.session.end("rollback"))

    def close(self) -> None:
        """Close the connection, which undoes what is open."""
        if self.session.closed:
            return
        transaction = self.session.transaction
        if transaction is not None and transaction.calls and not self.session.scope.closed:
            self._call(self.session.end("rollback"))
        self.session.transaction = None
        self.session.abandon()
        super().close()  # type: ignore[misc] - of sqlite3.Connection

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, raised: Any, traceback: Any) -> bool:
        if kind is None:
            try:
                self.commit()
            except BaseException:
                self.rollback()
                raise
        else:
            self.rollback()
        return False

    def interrupt(self) -> None:
        """Do nothing: a statement has ended when its call returns."""

    def _make(self, name: str, *args: Any, **options: Any) -> None:
        self._check()
        self._made.append((name, args, options))

    def create_function(self, *args: Any, **options: Any) -> None:
        """Define a function of SQL, which the real connection calls."""
        self._make("create_function", *args, **options)

    def create_aggregate(self, *args: Any, **options: Any) -> None:
        """Define an aggregate of SQL, which the real connection calls."""
        self._make("create_aggregate", *args, **options)

    def create_window_function(self, *args: Any, **options: Any) -> None:
        """Define a window function of SQL, which the real connection calls."""
        self._make("create_window_function", *args, **options)

    def create_collation(self, *args: Any, **options: Any) -> None:
        """Define a collation, which the real connection calls."""
        self._make("create_collation", *args, **options)

    def set_authorizer(self, *args: Any, **options: Any) -> None:
        """Set the authorizer of the real connection."""
        self._make("set_authorizer", *args, **options)

    def set_progress_handler(self, *args: Any, **options: Any) -> None:
        """Set the progress handler of the real connection."""
        self._make("set_progress_handler", *args, **options)

    def set_trace_callback(self, *args: Any, **options: Any) -> None:
        """Set the trace callback of the real connection."""
        self._make("set_trace_callback", *args, **options)

    def _refuse(self, *args: Any, **options: Any) -> Any:
        """Refuse what is no statement of SQL."""
        raise not_recorded("backup, blobopen, iterdump, serialize, extensions and limits of a sqlite3 connection")

    backup = blobopen = iterdump = serialize = deserialize = _refuse
    enable_load_extension = load_extension = setlimit = getlimit = setconfig = getconfig = _refuse


class CursorMixin:
    """The methods of a cursor that are recorded."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)  # type: ignore[call-arg] - of sqlite3.Cursor
        self._of: ConnectionMixin = connection
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
        self._of._check()  # noqa: SLF001 - a class of this module
        if self._is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed cursor.")

    def _run(self, sql: str, request: dict[str, Any], *, many: bool = False, script: bool = False) -> None:
        self._check()
        self._columns, self._rows, self._count, self._shaped = None, iter(()), -1, None
        response = self._of._call(self._calls(sql, request, script=script))  # noqa: SLF001 - the same
        if response is None or "rows" not in response:
            return
        self._columns, self._rows = response["columns"], iter(restored_rows(response["rows"]))
        self._count = response["rowcount"]
        self._of._changed += max(self._count, 0)  # noqa: SLF001 - the same
        if not many and response["lastrowid"] is not None:
            self._last = response["lastrowid"]

    def _calls(self, sql: str, request: dict[str, Any], *, script: bool) -> Any:
        of = self._of
        session, kind = of.session, statement_of(sql)  # noqa: SLF001 - the same
        if kind.kind is Kind.REFUSED:
            raise not_recorded(f"{kind.word} ({kind.name or 'it lifts what a state may do'})")
        if of.asking and sql in of._asked:  # noqa: SLF001 - the same
            return _known(of._asked[sql])  # noqa: SLF001 - the same
        if script:
            script_kind = Statement(kind.kind, kind.word, several=True)  # it ends transactions by itself
            return session.statement(request, script_kind, begins=False)
        if kind.kind in {Kind.COMMIT, Kind.ROLLBACK} and session.transaction is not None:
            return session.end("commit" if kind.kind is Kind.COMMIT else "rollback", sql=sql)
        own = session.transaction
        if kind.word == "RELEASE" and own is not None and own.savepoint == kind.name:
            return session.end("commit", sql=sql)
        implicit = of._isolation is not None and kind.dml and of._autocommit == -1  # noqa: SLF001 - the same
        explicit = kind.kind in {Kind.BEGIN, Kind.SAVEPOINT} and kind.word not in {"RELEASE", "ROLLBACK TO"}
        begins = implicit or explicit or of._autocommit is False  # noqa: SLF001 - the same
        savepoint = kind.name if kind.word == "SAVEPOINT" else ""
        return session.statement(request, kind, begins=begins, savepoint=savepoint)

    def _made(self, row: tuple[Any, ...]) -> Any:
        """Return a row as the row factory makes it."""
        factory = self.row_factory  # type: ignore[attr-defined] - of sqlite3.Cursor
        if factory is None:
            return row
        if isinstance(factory, type) and issubclass(factory, sqlite3.Row) and self._shaped is not self._columns:
            self._shaped = self._columns  # which such a row reads from inside the cursor
            names = ", ".join('NULL AS "' + name.replace('"', '""') + '"' for name in self._columns or ())
            sqlite3.Cursor.execute(self, "SELECT " + names)  # type: ignore[arg-type] - it is one
            sqlite3.Cursor.fetchall(self)  # type: ignore[arg-type] - the same
        return factory(self, row)

    def fetchone(self) -> Any:
        """Return the next row, None at the end."""
        self._check()
        row = next(self._rows, None)
        return None if row is None else self._made(row)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return at most `size` rows; `arraysize` is used when it is not given."""
        self._check()
        wanted = self.arraysize if size is None else size  # type: ignore[attr-defined] - of sqlite3.Cursor
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
        self._of._check()  # noqa: SLF001 - the same
        self._is_closed, self._rows = True, iter(())

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        self._check()
        return self._made(next(self._rows))


def _known(response: Any) -> Any:
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


def _rebuilt(said: Mapping[str, Any]) -> Exception:
    """Return the exception of sqlite3 that an error was recorded for."""
    kind: type[Exception] | None = CLASSES.get(str(said["class"])) or _OTHERS.get(str(said["class"]))
    exc = (kind or sqlite3.DatabaseError)(*said["args"])
    for name in ("sqlite_errorcode", "sqlite_errorname"):
        if said.get(name) is not None:
            setattr(exc, name, said[name])
    return exc


_OTHERS: Final[Mapping[str, type[Exception]]] = {
    "Warning": sqlite3.Warning,
    "OverflowError": OverflowError,
    "TypeError": TypeError,
    "ValueError": ValueError,
}
