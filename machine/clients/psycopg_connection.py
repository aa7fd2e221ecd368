"""The recorded classes of psycopg: its own connections and cursors, whose generators end in a session's calls."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Final

import psycopg
from psycopg import pq

from machine.clients.psycopg_errors import rebuilt
from machine.clients.psycopg_live import PsycopgLive, asked_key
from machine.clients.psycopg_wire import RecordedResult, RowSource
from machine.clients.sql_calls import run_async, run_blocking
from machine.clients.sql_errors import not_recorded, said_by
from machine.clients.sql_session import SqlSession
from machine.clients.sql_text import Kind, statement_of
from machine.clients.sql_values import stored_params
from machine.errors import IoError, StateError

IDLE: Final = pq.TransactionStatus.IDLE
INTRANS: Final = pq.TransactionStatus.INTRANS
_HINT: Final = "use execute and fetch the rows, or call it in a step: io.step(function, ...)"

_WITH_OWN_QUERIES: Final = (
    psycopg.ClientCursor,
    psycopg.RawCursor,
    psycopg.AsyncClientCursor,
    psycopg.AsyncRawCursor,
)
"""The cursors that make of a statement and its parameters something else than a `psycopg.Cursor`."""

Steps = Generator[Any, Any, Any]


@functools.cache
def mixed(kind: Any, mixin: Any) -> Any:
    """Return a class of psycopg's, or of a user's that is derived from one, with the methods that are recorded."""
    return type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})


class RecordedConnection:
    """The base of a blocking and of an asynchronous connection."""

    is_recorded_by_machine = True
    pgconn: Any
    session: SqlSession
    row_factory: Any
    cursor_factory: Any
    _get_tx_start_command: Any
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
        if issubclass(self.cursor_factory, _WITH_OWN_QUERIES):
            raise not_recorded(f"a {self.cursor_factory.__name__}", _HINT)
        self._check_connection_ok()
        make = mixed(self.cursor_factory, self._cursors)
        cursor = make(self, row_factory=options.get("row_factory") or self.row_factory)
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
        if (
            self.asking
            and (known := self._asked.get(asked_key(text, request.get("params") or None))) is not None
        ):
            return known
        if kind.kind is Kind.BEGIN and not kind.several and session.transaction is None:
            session.begin()
            self._begin, self.pgconn.transaction_status = text, INTRANS
            return {"results": [{"status": "COMMAND_OK", "tag": "BEGIN"}], "rowcount": -1}
        if kind.kind in {Kind.COMMIT, Kind.ROLLBACK} and session.transaction is not None:
            return (yield from self._end(text, kind.kind))
        if not autocommit and session.transaction is None:
            session.begin()
            self._begin = self._get_tx_start_command().decode()
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


class ConnectionMixin(RecordedConnection):
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


class AsyncConnectionMixin(RecordedConnection):
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


class RecordedCursor:
    """The base of a blocking and of an asynchronous cursor."""

    _conn: Any
    closed: Any
    format: Any
    execute: Any
    fetchone: Any
    _reset: Any
    _set_results: Any

    def _start_query(self, query: Any = None) -> Steps:
        del query
        if self.closed:
            raise psycopg.InterfaceError("the cursor is closed")
        self._conn._check_connection_ok()  # noqa: SLF001 - a class of this module
        self._reset()
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
        if binary or (binary is None and self.format == pq.Format.BINARY):
            request["binary"] = True
        response = yield from self._conn.ask(text, request, autocommit=self._conn.autocommit)
        self._set_results([RecordedResult(each) for each in response["results"]])
        self._last_query = query

    def _executemany_gen(self, query: Any, many: Iterable[Any], *, returning: bool) -> Steps:
        yield from self._start_query(query)
        text, kinds = _text(query), self._conn._live.kinds  # noqa: SLF001 - the same
        sets = [stored_params(params, kinds) for params in many]
        request = {"op": "executemany", "sql": text, "params": sets, "returning": returning}
        response = yield from self._conn.ask(text, request, autocommit=self._conn.autocommit)
        results = [RecordedResult(each) for each in response["results"]]
        if returning:
            self._set_results(results)
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


class CursorMixin(RecordedCursor):
    """The methods of a blocking cursor that are recorded."""

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        """Execute a statement for each of several parameters."""
        with self._conn.lock:
            self._conn.wait(self._executemany_gen(query, params_seq, returning=returning))

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Yield the rows of a query, all of which are received first."""
        self.execute(query, params, binary=options.get("binary"))
        while (row := self.fetchone()) is not None:
            yield row


class AsyncCursorMixin(RecordedCursor):
    """The methods of an asynchronous cursor that are recorded."""

    async def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        """Execute a statement for each of several parameters."""
        async with self._conn.lock:
            await self._conn.wait(self._executemany_gen(query, params_seq, returning=returning))

    async def stream(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Yield the rows of a query, all of which are received first."""
        await self.execute(query, params, binary=options.get("binary"))
        while (row := await self.fetchone()) is not None:
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
