"""Connections of the standard library's `sqlite3`, recorded.

A recorded connection is a `sqlite3.Connection` over an empty database in memory, which takes part in nothing but
in building rows; what its methods do, a session does. The real connection is opened when something has to be sent.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import sqlite3.dbapi2
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from machine.clients.recording import all_of, recorder, replaced
from machine.clients.sql_calls import run_blocking
from machine.clients.sql_errors import not_recorded, said_by
from machine.clients.sql_session import SqlSession
from machine.clients.sqlite_cursor import CursorMixin
from machine.clients.sqlite_live import CLASSES, SqliteLive, is_private, name_of
from machine.errors import IoError
from machine.io.client_calls import ClientCalls
from machine.watch import audit_hook
from machine.watch.code_owner import CALLER
from machine.watch.watch import unguarded

NAMES: Final = ("sqlite3", "sqlalchemy")
"""The libraries whose connections `sqlite3.connect` opens."""

_UNCHANGED: Final = sqlite3.connect
_PLAIN: Final = frozenset({int, float, str, bytes, type(None)})


def connect(io: Any, database: Any, *args: Any, **options: Any) -> Any:
    """Return a recorded connection of a handler's `io`; the arguments are those of `sqlite3.connect`."""
    names = (
        "timeout",
        "detect_types",
        "isolation_level",
        "check_same_thread",
        "factory",
        "cached_statements",
        "uri",
    )
    given = {**dict(zip(names, args, strict=False)), **options}
    factory = given.pop("factory", None) or sqlite3.Connection
    with unguarded():
        return _recorded(factory, ConnectionMixin)(io, database, given)


def patch() -> Callable[[], None]:
    """Record connections that handlers open with `sqlite3.connect`."""

    def make(before: Any) -> Any:
        def connecting(database: Any, *args: Any, **options: Any) -> Any:
            io = recorder(*NAMES)
            return (
                before(database, *args, **options) if io is None else connect(io, database, *args, **options)
            )

        return connecting

    audit_hook.install(following=False)
    audit_hook.CLAIMED["sqlite3.connect"] = _refuse_direct
    return all_of([replaced(sqlite3, "connect", make), replaced(sqlite3.dbapi2, "connect", make)])


def _refuse_direct(args: tuple[Any, ...]) -> bool:
    """Refuse a connection that a handler opens past `sqlite3.connect`; say whether its plan records them.

    Only an audit event tells of every one. A private database is left to the handler.
    """
    io = CALLER.get()
    if not isinstance(io, ClientCalls) or io.clients.keys().isdisjoint(NAMES):
        return False
    database = args[0] if isinstance(args[0], str | bytes | os.PathLike) else ""
    if not is_private(os.fsdecode(database)):
        raise not_recorded("sqlite3.Connection(...)", "open it with sqlite3.connect(...)")
    return True


@functools.cache
def _recorded(kind: type[Any], mixin: type[Any]) -> type[Any]:
    return type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})


class ConnectionMixin:
    """The methods of a connection that are recorded."""

    is_recorded_by_machine = True

    def __init__(self, io: Any, database: Any, options: dict[str, Any]) -> None:
        super().__init__(":memory:", check_same_thread=False)  # type: ignore[call-arg]  # of sqlite3.Connection
        text = database.decode() if isinstance(database, bytes) else str(database)
        self._thread = threading.get_ident() if options.get("check_same_thread", True) else None
        self._isolation = options.get("isolation_level", "")
        self._autocommit = options.get("autocommit", -1)
        self._text: Any = str
        self.asking = False
        """True while a dialect of SQLAlchemy asks for what was recorded when the connection was opened."""
        self._made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.changed = 0
        self._live = SqliteLive(text, options, self._prepare)
        self.session = SqlSession(io, name_of(text), private=is_private(text))
        self.session.let_go = self._live.close
        self.asked = (self.make(self.session.connect()) or {}).get("asked", {})

    def _prepare(self, real: sqlite3.Connection) -> None:
        """Make the real connection like this one."""
        real.text_factory = self._text
        if not real.in_transaction and real.isolation_level != self._isolation:
            real.isolation_level = self._isolation
        while self._made:
            name, args, options = self._made.pop(0)
            getattr(real, name)(*args, **options)

    def make(self, calls: Any) -> Any:
        """Make calls of the session and return the response. Raises the exceptions of sqlite3."""
        self.check()
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
        if (
            isinstance(said, Mapping)
            and said.get("in_transaction") is False
            and self._autocommit is not False
        ):
            self.session.transaction = None

    def check(self) -> None:
        """Raise `ProgrammingError` if the connection is closed, or belongs to another thread."""
        if self.session.closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        if self._thread not in {None, threading.get_ident()}:
            raise sqlite3.ProgrammingError(
                "SQLite objects created in a thread can only be used in that same thread. The object was "
                f"created in thread id {self._thread} and this is thread id {threading.get_ident()}."
            )

    # -- the interface of sqlite3.Connection -----------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open."""
        return self.session.transaction is not None or self._autocommit is False

    @property
    def total_changes(self) -> int:
        """The number of rows changed so far."""
        return self.changed

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
        del value
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
        self.check()
        cursor = _recorded(factory, CursorMixin)(self)
        if self.row_factory is not None:  # type: ignore[attr-defined]  # of sqlite3.Connection
            cursor.row_factory = self.row_factory  # type: ignore[attr-defined]  # the same
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
        self.check()
        if self._autocommit is not True:
            self.make(self.session.end("commit"))

    def rollback(self) -> None:
        """Undo the open transaction, if there is one."""
        self.check()
        if self._autocommit is not True:
            self.make(self.session.end("rollback"))

    def close(self) -> None:
        """Close the connection, which undoes what is open."""
        if self.session.closed:
            return
        transaction = self.session.transaction
        if transaction is not None and transaction.calls and not self.session.scope.closed:
            self.make(self.session.end("rollback"))
        self.session.transaction = None
        self.session.abandon()
        super().close()  # type: ignore[misc]  # of sqlite3.Connection

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: object, raised: object, traceback: object) -> None:
        del raised, traceback
        if kind is None:
            try:
                self.commit()
            except BaseException:
                self.rollback()
                raise
        else:
            self.rollback()

    def interrupt(self) -> None:
        """Do nothing: a statement has ended when its call returns."""

    def _define(self, name: str, *args: Any, **options: Any) -> None:
        self.check()
        self._made.append((name, args, options))

    def create_function(self, *args: Any, **options: Any) -> None:
        """Define a function of SQL, which the real connection calls."""
        self._define("create_function", *args, **options)

    def create_aggregate(self, *args: Any, **options: Any) -> None:
        """Define an aggregate of SQL, which the real connection calls."""
        self._define("create_aggregate", *args, **options)

    def create_window_function(self, *args: Any, **options: Any) -> None:
        """Define a window function of SQL, which the real connection calls."""
        self._define("create_window_function", *args, **options)

    def create_collation(self, *args: Any, **options: Any) -> None:
        """Define a collation, which the real connection calls."""
        self._define("create_collation", *args, **options)

    def set_authorizer(self, *args: Any, **options: Any) -> None:
        """Set the authorizer of the real connection."""
        self._define("set_authorizer", *args, **options)

    def set_progress_handler(self, *args: Any, **options: Any) -> None:
        """Set the progress handler of the real connection."""
        self._define("set_progress_handler", *args, **options)

    def set_trace_callback(self, *args: Any, **options: Any) -> None:
        """Set the trace callback of the real connection."""
        self._define("set_trace_callback", *args, **options)

    def _refuse(self, *args: Any, **options: Any) -> Any:
        """Refuse what is no statement of SQL."""
        del args, options
        raise not_recorded(
            "backup, blobopen, iterdump, serialize, extensions and limits of a sqlite3 connection"
        )

    backup = blobopen = iterdump = serialize = deserialize = _refuse
    enable_load_extension = load_extension = setlimit = getlimit = setconfig = getconfig = _refuse


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
