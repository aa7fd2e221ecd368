"""The real connection behind a recorded one of sqlite3: what it does, as JSON."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from machine import canonical
from machine.clients import sql_effects
from machine.clients.sql_errors import failed
from machine.clients.sql_session import STILL_OPEN, Live
from machine.clients.sql_values import restored_params, stored_rows
from machine.errors import Code, OtherIoError

CLASSES: Final[Mapping[str, type[sqlite3.Error]]] = {
    kind.__name__: kind
    for kind in (
        sqlite3.Error,
        sqlite3.DatabaseError,
        sqlite3.DataError,
        sqlite3.IntegrityError,
        sqlite3.InterfaceError,
        sqlite3.InternalError,
        sqlite3.NotSupportedError,
        sqlite3.OperationalError,
        sqlite3.ProgrammingError,
    )
}
ASKED_BY_DIALECTS: Final = ("PRAGMA main.read_uncommitted", "PRAGMA read_uncommitted")
"""The queries that the dialect of SQLAlchemy makes on a new connection."""
_DIALECT: Final = "sqlalchemy.dialects.sqlite.pysqlite"
_BUSY: Final = {5, 6}  # SQLITE_BUSY, SQLITE_LOCKED


def is_private(database: str) -> bool:
    """Say whether a database is in memory or in a temporary file that no other process sees."""
    name, _, query = database.partition("?")
    return name in {"", ":memory:", "file::memory:", "file:"} or "mode=memory" in query


def name_of(database: str) -> str:
    """Return the name of a database in requests: that of its file, without the folder."""
    path = database.removeprefix("file:").partition("?")[0] if database.startswith("file:") else database
    return path if is_private(database) else Path(urllib.parse.unquote(path)).name


class SqliteLive:
    """The real connection. `connect` opens one; `prepare` makes it like the one the handler has."""

    def __init__(
        self, database: str, options: Mapping[str, Any], prepare: Callable[[sqlite3.Connection], None]
    ) -> None:
        self.database = database
        self.name = name_of(database)
        self._options = options
        self._prepare = prepare
        self._real: sqlite3.Connection | None = None
        self._keyed = False

    def do(self, step: Live) -> Any:
        """Do one thing with the real connection, and return it as JSON. Raises `OtherIoError`."""
        try:
            if step.what == "open":
                return self._open(read_only=step.request["read_only"], kept=step.request["kept"])
            if step.what == "ended":
                return {"in_transaction": False}
            if step.what == "undo":
                return self.real.rollback()
            return self._perform(step.request)
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc
        except (
            sqlite3.Warning,
            OverflowError,
            TypeError,
            ValueError,
        ) as exc:  # of arguments, as the library does
            raise failed(self.name, exc, {"class": type(exc).__name__, "args": [str(exc)]}) from exc

    def close(self) -> None:
        """Close the real connection, if it is open."""
        if self._real is not None:
            self._real.close()
            self._real = None

    @property
    def real(self) -> sqlite3.Connection:
        """The real connection, which is open."""
        assert self._real is not None
        return self._real

    def _open(self, *, read_only: bool, kept: bool) -> dict[str, Any]:
        given = {**self._options, "check_same_thread": False}
        database = self.database
        if read_only:  # a file that is not there is not made
            if not database.startswith("file:") or not given.get("uri"):
                database = "file:" + urllib.parse.quote(database) + "?mode=rw"
                given["uri"] = True
            elif "mode=" not in database:
                database += ("&" if "?" in database else "?") + "mode=rw"
        self._real = sqlite3.connect(database, **given)
        self._prepare(self._real)
        if read_only:
            self._real.execute("PRAGMA query_only = ON")
        if kept and _DIALECT in sys.modules:
            asked = {query: self._execute({"op": "execute", "sql": query}) for query in ASKED_BY_DIALECTS}
            return {"in_transaction": False, "asked": asked}
        return {"in_transaction": False}

    def _failed(self, exc: sqlite3.Error) -> OtherIoError:
        code, name = getattr(exc, "sqlite_errorcode", None), getattr(exc, "sqlite_errorname", None)
        open_now = self._real is not None and self._real.in_transaction
        if code is not None and code & 0xFF == sqlite3.SQLITE_READONLY and "query_only" in self._read_only():
            return OtherIoError(
                f"a statement changes {self.name}, and the state has not declared that it does",
                code=Code.SIDE_EFFECT_NOT_DECLARED,
                hint='declare side_effects="apply_side_effect" and an idempotency key',
            )
        said = {
            "class": next((kind.__name__ for kind in type(exc).__mro__ if kind.__name__ in CLASSES), "Error"),
            "args": [str(each) for each in exc.args],
            "sqlite_errorcode": code,
            "sqlite_errorname": name,
            "in_transaction": open_now,
        }
        error = failed(self.name, exc, said, retryable=code is not None and code & 0xFF in _BUSY)
        if open_now:
            error.info.details[STILL_OPEN] = True  # type: ignore[index]  # a dict that this module made
        return error

    def _read_only(self) -> str:
        with contextlib.suppress(sqlite3.Error):
            if self.real.execute("PRAGMA query_only").fetchone() == (1,):
                return "query_only"
        return ""

    def _perform(self, request: Mapping[str, Any]) -> Any:
        match request["op"]:
            case "effects_table":
                return self._make_table()
            case "note_effect":
                return self._note(request["key"], None)
            case "look_up":
                return self._look_up(request["key"])
            case "commit" | "rollback" as op:
                if "sql" in request:
                    self.real.execute(request["sql"])
                elif op == "commit":
                    self.real.commit()
                else:
                    self.real.rollback()
                return {"in_transaction": self.real.in_transaction}
            case "script":
                self.real.executescript(request["sql"])
                return {"in_transaction": self.real.in_transaction}
            case _:
                self._prepare(self.real)
                if "key" in request and self._keyed:
                    return self._with_key(request)
                return self._execute(request)

    def _execute(self, request: Mapping[str, Any]) -> dict[str, Any]:
        cursor = self.real.cursor()
        try:
            if request["op"] == "executemany":
                cursor.executemany(request["sql"], [restored_params(each) for each in request["params"]])
            else:
                params = restored_params(request.get("params"))
                cursor.execute(request["sql"], params if params is not None else ())
            response: dict[str, Any] = {"columns": None, "rows": []}
            if cursor.description is not None:
                names = [column[0] for column in cursor.description]
                response = {"columns": names, "rows": stored_rows(cursor.fetchall(), names)}
            return {
                **response,
                "rowcount": cursor.rowcount,
                "lastrowid": cursor.lastrowid,
                "in_transaction": self.real.in_transaction,
            }
        finally:
            cursor.close()

    # -- the table of effects ------------------------------------------------------------------------------------

    def _make_table(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
            if self.real.execute(query, (sql_effects.TABLE,)).fetchone() is None:
                self.real.execute(sql_effects.CREATE + " WITHOUT ROWID")
                self._commit()
            self._keyed = True

    def _begin(self) -> None:
        if not self.real.in_transaction:
            self.real.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        if getattr(self.real, "autocommit", None) is False:
            self.real.commit()
        elif self.real.in_transaction:
            self.real.execute("COMMIT")

    def _note(self, key: str, response: Any) -> None:
        if self._keyed:
            written = None if response is None else canonical.encode(response).decode()
            self.real.execute(sql_effects.note("?"), (key, written))

    def _with_key(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make an effect of one statement in a transaction of its own, together with its key."""
        self._begin()
        try:
            response = {**self._execute(request), "in_transaction": False}
            self._note(request["key"], response)
        except BaseException:
            if self.real.in_transaction:
                self.real.execute("ROLLBACK")
            raise
        self._commit()
        return response

    def _look_up(self, key: str) -> dict[str, Any]:
        if not self._keyed or not key:
            return {"known": False}
        self._begin()
        self.real.execute(sql_effects.give_up("?"), (key,))
        done, response = self.real.execute(sql_effects.find("?"), (key,)).fetchone()
        self._commit()
        return {
            "known": True,
            "done": bool(done),
            "response": {"in_transaction": False}
            if response is None
            else canonical.decode(response.encode()),
        }
