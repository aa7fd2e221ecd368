"""Connections of psycopg 3, blocking and asynchronous, recorded.

A recorded connection is one of psycopg's own classes (or the user's subclass of one) with a `PGconn` that sends
nothing. psycopg's own code decides what is to be sent; the generators in which it does so end here.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.clients.psycopg_errors import rebuilt
from machine.clients.psycopg_live import PsycopgLive, asked_key
from machine.clients.psycopg_wire import RecordedPGconn, RecordedResult, RowSource, escape_for_recorded
from machine.clients.recording import all_of, recorder, replaced
from machine.clients.sql_calls import run_async, run_blocking
from machine.clients.sql_errors import not_recorded, said_by
from machine.clients.sql_session import SqlSession
from machine.clients.sql_text import Kind, statement_of
from machine.clients.sql_values import stored_params
from machine.errors import IoError, StateError

_OWN: Final = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")
IDLE: Final = pq.TransactionStatus.IDLE
INTRANS: Final = pq.TransactionStatus.INTRANS
_HINT: Final = "use execute and fetch the rows, or call it in a step: io.step(function, ...)"

Steps = Generator[Any, Any, Any]


def connect(io: Any, conninfo: str = "", *, kind: Any = psycopg.Connection, **options: Any) -> Any:
    """Return a recorded connection of a handler's `io`; the arguments are those of `psycopg.connect`."""
    recorded, live, session, own = _prepared(io, kind, ConnectionMixin, CursorMixin, conninfo, options)
    known = _opened(lambda: run_blocking(session, session.connect(), live.do))
    return _made(recorded, live, session, known, own)


async def connect_async(io: Any, conninfo: str = "", *, kind: Any = psycopg.AsyncConnection, **options: Any) -> Any:
    """Return a recorded asynchronous connection; the arguments are those of `psycopg.AsyncConnection.connect`."""
    recorded, live, session, own = _prepared(io, kind, AsyncConnectionMixin, AsyncCursorMixin, conninfo, options)
    try:
        known = await run_async(session, session.connect(), live.do_async)
    except IoError as exc:
        session.abandon()
        raise _as_raised(exc) from exc
    return _made(recorded, live, session, known, own)


def patch() -> Callable[[], None]:
    """Record connections that handlers open with psycopg."""

    def blocking(before: Any) -> Any:
        def connecting(cls: Any, conninfo: str = "", **options: Any) -> Any:
            io = _io(cls)
            if io is None:
                return before.__func__(cls, conninfo, **options)
            return connect(io, conninfo, kind=cls, **options)

        return classmethod(functools.wraps(before)(connecting))

    def asynchronous(before: Any) -> Any:
        async def connecting(cls: Any, conninfo: str = "", **options: Any) -> Any:
            io = _io(cls)
            if io is None:
                return await before.__func__(cls, conninfo, **options)
            return await connect_async(io, conninfo, kind=cls, **options)

        return classmethod(functools.wraps(before)(connecting))

    def function(before: Any) -> Any:
        def connecting(conninfo: str = "", **options: Any) -> Any:
            if recorder("psycopg") is None and recorder("sqlalchemy") is None:
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
    return recorder("psycopg") or recorder("sqlalchemy")


def _prepared(io: Any, kind: Any, mixin: Any, cursors: Any, conninfo: str, options: Mapping[str, Any]) -> Any:
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
    return _class(kind, mixin), live, session, {**own, "params": params, "cursors": cursors}


def _recorded_cursors() -> None:
    """Let a cursor that is made of a recorded connection by its class be one that is recorded, too."""
    base = psycopg.Cursor.__mro__[1]
    if "__new__" in vars(base):
        return

    def make(cls: Any, connection: Any = None, *args: Any, **options: Any) -> Any:
        del args, options
        if isinstance(connection, _Connection) and not issubclass(cls, _Cursor):
            cls = _class(cls, connection._cursors)  # noqa: SLF001 - a class of this module
        return object.__new__(cls)

    base.__new__ = make  # type: ignore[method-assign, assignment] - which psycopg leaves to `object`


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


@functools.cache
def _class(kind: Any, mixin: Any) -> Any:
    return type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})


def _as_raised(exc: IoError) -> Exception:
    """Return what a handler gets for a recorded error: psycopg's own exception, or a refusal as it is."""
    said = said_by(exc)
    return exc if said is None else rebuilt(said)


class _Connection:
    """What a blocking and an asynchronous connection have in common."""

    is_recorded_by_machine = True
    pgconn: Any
    session: SqlSession
    _live: PsycopgLive
    _asked: Mapping[str, Any]
    _begin = ""

    def take(self, live: PsycopgLive, session: SqlSession, known: Mapping[str, Any], cursors: Any) -> None:
        """Take the session that makes the calls of this connection."""
        self._live, self.session, self._asked = live, session, known.get("asked", {})
        self._cursors = cursors
        self.asking = False
        """True while a dialect of SQLAlchemy asks for what was recorded when the connection was opened."""

    def cursor(self, name: str = "", **options: Any) -> Any:
        """Return a new cursor."""
        if name:
            raise not_recorded("a cursor of the server", _HINT)
        self._check_connection_ok()
        make = _class(self.cursor_factory, self._cursors)  # type: ignore[attr-defined] - of psycopg
        cursor = make(self, row_factory=options.get("row_factory") or self.row_factory)  # type: ignore[attr-defined]  # the same
        if options.get("binary"):
            cursor.format = pq.Format.BINARY
        return cursor

    def _check_connection_ok(self) -> None:
        if self.session.scope.closed:
            try:
                self.session.check_open()
            except StateError as exc:
                if self.session.belongs_here():
                    raise
                raise psycopg.OperationalError("the connection is closed") from exc
        if self.pgconn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError("the connection is closed")

    def _exec_command(self, command: Any, result_format: Any = None) -> Steps:
        del result_format
        self._check_connection_ok()
        if isinstance(command, psycopg.sql.Composable):
            command = command.as_string(None)
        text = command.decode() if isinstance(command, bytes) else str(command)
        yield from self.ask(text, {"sql": text}, autocommit=True)

    def ask(self, text: str, request: dict[str, Any], *, autocommit: bool) -> Steps:
        """Make the call of a statement and return its response; without `autocommit` a transaction begins first."""
        session, kind = self.session, statement_of(text)
        if kind.kind is Kind.REFUSED:
            raise not_recorded(f"{kind.word} ({kind.name or 'it lifts what a state may do'})", _HINT)
        if self.asking and (known := self._asked.get(asked_key(text, request.get("params") or None))) is not None:
            return known
        if kind.kind is Kind.BEGIN and not kind.several and session.transaction is None:
            session.begin()
            self._begin, self.pgconn.transaction_status = text, INTRANS
            return {"results": [{"status": "COMMAND_OK", "tag": "BEGIN"}], "rowcount": -1}
        if kind.kind in {Kind.COMMIT, Kind.ROLLBACK} and session.transaction is not None:
            return (yield from self._end(text, kind.kind))
        if not autocommit and session.transaction is None:
            session.begin()
            self._begin = self._get_tx_start_command().decode()  # type: ignore[attr-defined] - of psycopg
        opened = session.transaction
        if opened is not None and not opened.calls and self._begin:
            request = {"begin": self._begin, **request}
        response = yield session.statement(request, kind, begins=False, functions=True)
        self.pgconn.transaction_status = pq.TransactionStatus[response["status"]]
        return response

    def _end(self, text: str, kind: Kind) -> Steps:
        op = "commit" if kind is Kind.COMMIT else "rollback"
        own = text.upper() not in {"COMMIT", "ROLLBACK"}
        failed = self.pgconn.transaction_status == pq.TransactionStatus.INERROR
        if failed:
            op = "rollback"  # which is what the server makes of it
        response = yield self.session.end(op, sql=text if own or (failed and kind is Kind.COMMIT) else "")
        self.pgconn.transaction_status = IDLE
        return response or {"results": [{"status": "COMMAND_OK", "tag": op.upper()}], "rowcount": -1}

    def follow(self, exc: IoError) -> Exception:
        """Take over the state of the server after an error, and return what the handler gets."""
        said = said_by(exc)
        if said is None:
            return exc
        if said.get("broken"):
            self.pgconn.broken, self.session.transaction = True, None
            self.pgconn.transaction_status = pq.TransactionStatus.UNKNOWN
        elif "status" in said:
            self.pgconn.transaction_status = pq.TransactionStatus[said["status"]]
            if self.pgconn.transaction_status == IDLE:
                self.session.transaction = None
        return rebuilt(said)

    def _start_query(self) -> Steps:
        yield from ()

    def _deallocate(self, name: Any) -> Steps:
        del name
        yield from ()

    def _check_tpc(self) -> None:
        raise not_recorded("a transaction in two phases", _HINT)

    def _should_cancel(self) -> bool:
        return False

    def pipeline(self) -> Any:
        """Refuse a pipeline, whose answers come later than its calls."""
        raise not_recorded("a pipeline of psycopg", _HINT)

    def notifies(self, **options: Any) -> Any:
        """Refuse notifications, which nobody asks for."""
        del options
        raise not_recorded("notifications of psycopg", _HINT)

    def _finish(self) -> Any:
        """Return the call that ends an open transaction before the connection is closed, or None."""
        transaction = self.session.transaction
        if self.session.closed or transaction is None or not transaction.calls or self.session.scope.closed:
            return None
        return self.session.end("rollback")

    def _close(self) -> None:
        self.session.transaction = None
        self._closed = True
        self.session.abandon()


class ConnectionMixin(_Connection):
    """The methods of a blocking connection that are recorded."""

    def wait(self, gen: Steps, interval: float = 0.0, timeout: float | None = None) -> Any:
        """Make the calls that psycopg's generator asks for, and return what it returns."""
        del interval, timeout
        answer: Any = None
        failure: Exception | None = None
        while True:
            try:
                if failure is not None:
                    raised, failure = failure, None
                    calls = gen.throw(raised)
                else:
                    calls = gen.send(answer)
            except StopIteration as ended:
                return ended.value
            try:
                answer = run_blocking(self.session, calls, self._live.do)
            except IoError as exc:
                failure = self.follow(exc)
                failure.__cause__ = exc if failure is not exc else exc.__cause__

    def close(self) -> None:
        """Close the connection, which undoes what is open."""
        if (calls := self._finish()) is not None:
            run_blocking(self.session, calls, self._live.do)
        self._close()


class AsyncConnectionMixin(_Connection):
    """The methods of an asynchronous connection that are recorded."""

    async def wait(self, gen: Steps, interval: float = 0.0, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's own interface
        """Make the calls that psycopg's generator asks for, and return what it returns."""
        del interval, timeout
        answer: Any = None
        failure: Exception | None = None
        while True:
            try:
                if failure is not None:
                    raised, failure = failure, None
                    calls = gen.throw(raised)
                else:
                    calls = gen.send(answer)
            except StopIteration as ended:
                return ended.value
            try:
                answer = await run_async(self.session, calls, self._live.do_async)
            except IoError as exc:
                failure = self.follow(exc)
                failure.__cause__ = exc if failure is not exc else exc.__cause__

    async def close(self) -> None:
        """Close the connection, which undoes what is open."""
        if (calls := self._finish()) is not None:
            await run_async(self.session, calls, self._live.do_async)
        self._close()


class _Cursor:
    """What a blocking and an asynchronous cursor have in common."""

    _conn: Any

    def _start_query(self, query: Any = None) -> Steps:
        del query
        if self.closed:  # type: ignore[attr-defined] - of psycopg
            raise psycopg.InterfaceError("the cursor is closed")
        self._conn._check_connection_ok()  # noqa: SLF001 - a class of this module
        self._reset()  # type: ignore[attr-defined] - of psycopg
        self._tx = RowSource()
        yield from ()

    @classmethod
    def _loaders_changed(cls, *args: Any) -> None:
        """Do nothing: the rows that are there have been converted."""

    def _execute_gen(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Steps:
        del prepare
        yield from self._start_query(query)
        text = _text(query)
        request: dict[str, Any] = {"sql": text}
        if params is not None:
            request["params"] = stored_params(params, self._conn._live.kinds)  # noqa: SLF001 - the same
        if binary or (binary is None and self.format == pq.Format.BINARY):  # type: ignore[attr-defined] - of psycopg
            request["binary"] = True
        response = yield from self._conn.ask(text, request, autocommit=self._conn.autocommit)
        self._set_results([RecordedResult(each) for each in response["results"]])  # type: ignore[attr-defined] - the same
        self._last_query = query

    def _executemany_gen(self, query: Any, many: Iterable[Any], *, returning: bool) -> Steps:
        yield from self._start_query(query)
        text, kinds = _text(query), self._conn._live.kinds  # noqa: SLF001 - the same
        sets = [stored_params(params, kinds) for params in many]
        request = {"op": "executemany", "sql": text, "params": sets, "returning": returning}
        response = yield from self._conn.ask(text, request, autocommit=self._conn.autocommit)
        results = [RecordedResult(each) for each in response["results"]]
        if returning:
            self._set_results(results)  # type: ignore[attr-defined] - the same
        else:
            self._rowcount = response["rowcount"]
            self._statusmessage = results[-1].command_status
        self._last_query = query

    def copy(self, *args: Any, **options: Any) -> Any:
        """Refuse COPY."""
        del args, options
        raise not_recorded("COPY", _HINT)

    def _fetch_pipeline(self) -> Any:
        """Do nothing: there is no pipeline."""


class CursorMixin(_Cursor):
    """The methods of a blocking cursor that are recorded."""

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        """Execute a statement for each of several parameters."""
        with self._conn.lock:
            self._conn.wait(self._executemany_gen(query, params_seq, returning=returning))

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Yield the rows of a query, all of which are received first."""
        self.execute(query, params, binary=options.get("binary"))  # type: ignore[attr-defined] - of psycopg
        yield from self  # type: ignore[misc] - the same


class AsyncCursorMixin(_Cursor):
    """The methods of an asynchronous cursor that are recorded."""

    async def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        """Execute a statement for each of several parameters."""
        async with self._conn.lock:
            await self._conn.wait(self._executemany_gen(query, params_seq, returning=returning))

    async def stream(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Yield the rows of a query, all of which are received first."""
        await self.execute(query, params, binary=options.get("binary"))  # type: ignore[attr-defined] - of psycopg
        async for row in self:  # type: ignore[attr-defined] - the same
            yield row

    async def _fetch_pipeline(self) -> None:
        """Do nothing: there is no pipeline."""


def _text(query: Any) -> str:
    """Return the text of a query, whichever way it was written."""
    if isinstance(query, psycopg.sql.Composable):
        return query.as_string(None)
    if isinstance(query, bytes):
        return query.decode()
    if isinstance(query, str):
        return query
    raise not_recorded(f"a query that is a {type(query).__name__}", "give its text")
