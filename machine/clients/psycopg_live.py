"""The real connection behind a recorded one of psycopg: what it does, as JSON.

Each thing is written once, as a generator which yields what a blocking connection has done by then and what an
asynchronous one still awaits.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Generator, Mapping
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.rows import tuple_row
from psycopg.types import TypeInfo

from machine import canonical
from machine.clients import sql_effects
from machine.clients.psycopg_errors import recorded
from machine.clients.sql_session import Live, SqlSession
from machine.clients.sql_values import Kinds, restored_params, stored_rows

_PARAMETERS: Final = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
)
ASKED_BY_DIALECTS: Final = (
    "select pg_catalog.version()",
    "select current_schema()",
    "show standard_conforming_strings",
    "show transaction isolation level",
)
"""The queries that the dialect of SQLAlchemy makes on a new connection."""
_DIALECT: Final = "sqlalchemy.dialects.postgresql.psycopg"

Doing = Generator[Any, Any, Any]


def asked_key(sql: str, params: Any = None) -> str:
    """Return the name under which the answer to a statement is recorded with a connection."""
    return sql if params is None else f"{sql} {canonical.encode(params).decode()}"


class PsycopgLive:
    """The real connection, opened by `kind.connect` with what the handler gave."""

    def __init__(self, kind: Any, conninfo: str, options: Mapping[str, Any], session: SqlSession) -> None:
        self.kinds: Kinds = {}
        """The classes of the user's own among the parameters."""
        self.adapters: Any = None
        self._kind = kind
        self._conninfo = conninfo
        self._options = options
        self._session = session
        self._real: Any = None
        self._keyed = False

    def do(self, step: Live) -> Any:
        """Do one thing with a blocking connection. Raises `OtherIoError`."""
        doing, done = self._doing(step), None
        while True:
            try:
                done = doing.send(done)
            except StopIteration as ended:
                return ended.value
            except (psycopg.Error, TypeError, ValueError, LookupError, OverflowError) as exc:
                raise self._failed(exc) from exc

    async def do_async(self, step: Live) -> Any:
        """Do one thing with an asynchronous connection. Raises `OtherIoError`."""
        doing, done = self._doing(step), None
        failure: BaseException | None = None
        while True:
            try:
                if failure is not None:
                    raised, failure = failure, None
                    made = doing.throw(raised)
                else:
                    made = doing.send(done)
            except StopIteration as ended:
                return ended.value
            except (psycopg.Error, TypeError, ValueError, LookupError, OverflowError) as exc:
                raise self._failed(exc) from exc
            try:
                done = await made if inspect.isawaitable(made) else made
            except BaseException as exc:  # noqa: BLE001 - raised again in the generator
                failure = exc

    def close(self) -> None:
        """Close the real connection at once."""
        if self._real is not None:
            self._real._closed = True  # noqa: SLF001 - so that it does not warn when it is deleted
            self._real.pgconn.finish()
            self._real = None

    @property
    def lost(self) -> bool:
        """True when the server has closed the real connection."""
        return self._real is not None and self._real.pgconn.status == pq.ConnStatus.BAD

    def _failed(self, exc: Exception) -> Exception:
        status, lost = pq.TransactionStatus.IDLE, self.lost
        if self._real is not None and not lost:
            status = self._real.pgconn.transaction_status
        if lost:
            self.close()
            self._session.opened = False
        return recorded(
            exc,
            self._session.database,
            status=pq.TransactionStatus(status).name,
            read_only=self._session.read_only,
            broken=lost,
        )

    def _doing(self, step: Live) -> Doing:
        if step.what == "open":
            return (yield from self._open(read_only=step.request["read_only"], kept=step.request["kept"]))
        if step.what == "ended":
            return {
                "results": [{"status": "COMMAND_OK", "tag": step.request["op"].upper()}],
                "status": "IDLE",
            }
        if step.what == "undo":
            return (yield from self._plain("ROLLBACK"))
        return (yield from self._perform(step.request))

    def _perform(self, request: Mapping[str, Any]) -> Doing:
        match request["op"]:
            case "effects_table":
                return (yield from self._make_table())
            case "note_effect":
                return (yield from self._note(request["key"], None))
            case "look_up":
                return (yield from self._look_up(request["key"]))
            case "commit" | "rollback" as op:
                return (yield from self._execute({"sql": request.get("sql", op.upper())}))
        if "key" in request and self._keyed:
            return (yield from self._with_key(request))
        return (yield from self._execute(request))

    def _open(self, *, read_only: bool, kept: bool) -> Doing:
        self._real = yield self._kind.connect(self._conninfo, **{**self._options, "autocommit": True})
        if self.adapters is not None:
            self._real._adapters = self.adapters  # noqa: SLF001 - what is registered on one holds for the other
        if read_only:
            yield from self._plain("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        if not kept:
            return None
        pgconn = self._real.pgconn
        values = {name: pgconn.parameter_status(name.encode()) for name in _PARAMETERS}
        known = {
            "parameters": {name: value.decode() for name, value in values.items() if value is not None},
            "server_version": pgconn.server_version,
        }
        if _DIALECT in sys.modules:
            known["asked"] = asked = {}
            for query in ASKED_BY_DIALECTS:
                asked[asked_key(query)] = yield from self._execute({"sql": query})
            composed: Any = TypeInfo._get_info_query(self._real)  # noqa: SLF001 - what its `fetch` asks
            query, params = composed.as_string(None), {"name": "hstore"}
            asked[asked_key(query, params)] = yield from self._execute({"sql": query, "params": params})
        return known

    def _plain(self, sql: str, params: Any = None) -> Doing:
        cursor = self._real.cursor(row_factory=tuple_row)
        yield cursor.execute(sql, params)
        return cursor

    def _execute(self, request: Mapping[str, Any]) -> Doing:
        if request.get("begin"):
            yield from self._plain(request["begin"])
        cursor = self._real.cursor(row_factory=tuple_row)
        if request.get("binary"):
            cursor.format = pq.Format.BINARY
        if request.get("op") == "executemany":
            many = [restored_params(each, self.kinds) for each in request["params"]]
            yield cursor.executemany(request["sql"], many, returning=request["returning"])
        else:
            yield cursor.execute(request["sql"], restored_params(request.get("params"), self.kinds))
        results = []
        while True:
            results.append((yield from self._result(cursor)))
            if not cursor.nextset():
                break
        status = pq.TransactionStatus(self._real.pgconn.transaction_status).name
        return {"results": results, "status": status, "rowcount": cursor.rowcount}

    def _result(self, cursor: Any) -> Doing:
        result = cursor.pgresult
        if result is None:  # of executemany without parameters, or without rows
            return {"status": "COMMAND_OK", "tag": cursor.statusmessage}
        said: dict[str, Any] = {"status": pq.ExecStatus(result.status).name, "tag": cursor.statusmessage}
        if result.command_tuples is not None:
            said["count"] = result.command_tuples
        if result.status == pq.ExecStatus.TUPLES_OK:
            fields = range(result.nfields)
            names = [(result.fname(at) or b"").decode() for at in fields]
            said["columns"] = [
                [names[at], result.ftype(at), result.fsize(at), result.fmod(at)] for at in fields
            ]
            said["rows"] = stored_rows((yield cursor.fetchall()), names)
        return said

    # -- the table of effects ------------------------------------------------------------------------------------

    def _make_table(self) -> Doing:
        try:
            there = yield from self._plain("SELECT to_regclass(%s) IS NOT NULL", (sql_effects.TABLE,))
            if not (yield there.fetchone())[0]:
                yield from self._plain(sql_effects.CREATE)
        except (psycopg.errors.DuplicateTable, psycopg.errors.UniqueViolation):
            pass  # another connection has made it meanwhile
        except psycopg.DatabaseError:
            return
        self._keyed = True

    def _note(self, key: str, response: Any) -> Doing:
        if self._keyed:
            written = None if response is None else canonical.encode(response).decode()
            yield from self._plain(sql_effects.note("%s"), (key, written))

    def _with_key(self, request: Mapping[str, Any]) -> Doing:
        """Make an effect of one statement in a transaction of its own, together with its key."""
        yield from self._plain("BEGIN")
        try:
            response = {**(yield from self._execute(request)), "status": "IDLE"}
            yield from self._note(request["key"], response)
        except BaseException:
            if not self.lost:
                yield from self._plain("ROLLBACK")
            raise
        yield from self._plain("COMMIT")
        return response

    def _look_up(self, key: str) -> Doing:
        if not self._keyed or not key:
            return {"known": False}
        yield from self._plain(sql_effects.give_up("%s"), (key,))
        found = yield from self._plain(sql_effects.find("%s"), (key,))
        done, response = yield found.fetchone()
        commit = {"results": [{"status": "COMMAND_OK", "tag": "COMMIT"}], "status": "IDLE", "rowcount": -1}
        return {
            "known": True,
            "done": bool(done),
            "response": commit if response is None else canonical.decode(response.encode()),
        }
