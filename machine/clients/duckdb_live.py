"""The real connection behind a recorded one of DuckDB: what it does, as JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import duckdb

from machine import canonical
from machine.clients import sql_effects
from machine.clients.sql_errors import failed
from machine.clients.sql_session import STILL_OPEN, Live, SqlSession
from machine.clients.sql_values import Kinds, restored_params, stored_rows
from machine.errors import Code, OtherIoError

CLASSES: Final[Mapping[str, type[Exception]]] = {
    name: kind
    for name, kind in vars(duckdb).items()
    if isinstance(kind, type) and issubclass(kind, duckdb.Error)
}
_AGAIN: Final = (duckdb.TransactionException, duckdb.IOException)


def is_private(database: str) -> bool:
    """Say whether a database is in memory, where no other process sees it."""
    return database in {"", ":default:"} or database.startswith(":memory:")


def name_of(database: str) -> str:
    """Return the name of a database in requests: that of its file, without the folder."""
    return database if is_private(database) else Path(database).name


class DuckdbLive:
    """The real connection, opened by `connect` with whether it must only read."""

    def __init__(self, connect: Callable[[bool], Any], session: SqlSession) -> None:
        self.kinds: Kinds = {}
        """The classes of the user's own among the parameters."""
        self._connect = connect
        self._session = session
        self._real: Any = None
        self._keyed = False
        self._in_transaction = False

    def do(self, step: Live) -> Any:
        """Do one thing with the real connection, and return it as JSON. Raises `OtherIoError`."""
        try:
            if step.what == "open":
                self._real = self._connect(step.request["read_only"])
                return {}
            if step.what == "ended":
                return {"in_transaction": False}
            if step.what == "undo":
                return self._end("rollback")
            return self._perform(step.request)
        except duckdb.Error as exc:
            raise self._failed(exc) from exc
        except (TypeError, ValueError, RuntimeError) as exc:
            raise failed(
                self._session.database, exc, {"class": type(exc).__name__, "args": [str(exc)]}
            ) from exc

    @property
    def real(self) -> Any:
        """The real connection, opened if it is not."""
        if self._real is None:
            self._real = self._connect(self._session.read_only)
        return self._real

    def close(self) -> None:
        """Close the real connection, if it is open."""
        if self._real is not None:
            self._real.close()
            self._real = None

    def _failed(self, exc: Exception) -> OtherIoError:
        if self._session.read_only and "read-only" in str(exc):
            return OtherIoError(
                f"a statement changes {self._session.database}, and the state has not declared that it does: {exc}",
                code=Code.SIDE_EFFECT_NOT_DECLARED,
                hint='declare side_effects="apply_side_effect" and an idempotency key',
            )
        said = {"class": type(exc).__name__, "args": [str(each) for each in exc.args]}
        error = failed(self._session.database, exc, said, retryable=isinstance(exc, _AGAIN))
        if self._in_transaction:
            error.info.details[STILL_OPEN] = True  # type: ignore[index]  # a dict that this module made
        return error

    def _perform(self, request: Mapping[str, Any]) -> Any:
        match request["op"]:
            case "effects_table":
                return self._make_table()
            case "note_effect":
                return self._note(request["key"], None)
            case "look_up":
                return self._look_up(request["key"])
            case "commit" | "rollback" as op:
                return self._end(op)
        if "key" in request and self._keyed:
            return self._with_key(request)
        return self._execute(request)

    def _end(self, op: str) -> dict[str, Any]:
        self._in_transaction = False
        getattr(self.real, op)()
        return {"in_transaction": False}

    def _execute(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request.get("begin"):
            self.real.begin()
            self._in_transaction = True
        if request["op"] == "executemany":
            self.real.executemany(
                request["sql"], [restored_params(each, self.kinds) for each in request["params"]]
            )
        elif "params" in request:
            self.real.execute(request["sql"], restored_params(request["params"], self.kinds))
        else:
            self.real.execute(request["sql"])
        columns = self.real.description
        if columns is None:
            return {"columns": None, "rows": []}
        described = [[name, str(kind)] for name, kind, *_ in columns]
        names = [name for name, _ in described]
        return {"columns": described, "rows": stored_rows(self.real.fetchall(), names)}

    # -- the table of effects ------------------------------------------------------------------------------------

    def _make_table(self) -> None:
        with contextlib.suppress(duckdb.Error):
            self.real.execute(sql_effects.CREATE)
            self._keyed = True

    def _note(self, key: str, response: Any) -> None:
        if self._keyed:
            written = None if response is None else canonical.encode(response).decode()
            self.real.execute(sql_effects.note("?"), [key, written])

    def _with_key(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make an effect of one statement in a transaction of its own, together with its key."""
        self.real.begin()
        try:
            response = self._execute(request)
            self._note(request["key"], response)
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self.real.rollback()
            raise
        self.real.commit()
        return response

    def _look_up(self, key: str) -> dict[str, Any]:
        if not self._keyed or not key:
            return {"known": False}
        self.real.execute(sql_effects.give_up("?"), [key])
        done, response = self.real.execute(sql_effects.find("?"), [key]).fetchone()
        return {
            "known": True,
            "done": bool(done),
            "response": {"in_transaction": False}
            if response is None
            else canonical.decode(response.encode()),
        }
