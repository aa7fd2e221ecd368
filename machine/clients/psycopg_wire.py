"""Substitutes for a server that psycopg has when nothing is connected: the state of a connection, and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg.pq
import psycopg.sql
import psycopg.types.string
from psycopg import pq

from machine.clients.sql_session import SqlSession
from machine.clients.sql_values import restored_rows


class RecordedPGconn:
    """The state of a connection, from its recorded opening and answers; psycopg reads it and sends nothing."""

    pipeline_status = pq.PipelineStatus.OFF
    error_message = b""
    socket = -1
    backend_pid = 0
    needs_password = used_password = used_gssapi = False
    options = hostaddr = b""
    notice_handler: Any = None
    notify_handler: Any = None
    nonblocking = 1

    def __init__(self, session: SqlSession, known: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        self.session = session
        self.broken = False
        self.transaction_status = pq.TransactionStatus.IDLE
        self.server_version = int(known["server_version"])
        self._parameters: Mapping[str, str] = known["parameters"]
        self.db = str(given.get("dbname") or session.database).encode()
        self.user = str(given.get("user") or "").encode()
        self.host = str(given.get("host") or "").encode()
        self.port = str(given.get("port") or "").encode()
        self.password = b""
        self.info: list[Any] = []

    @property
    def _encoding(self) -> str:
        return "utf-8"

    @property
    def status(self) -> pq.ConnStatus:
        """`BAD` once the connection is closed or broken."""
        return pq.ConnStatus.BAD if self.session.closed or self.broken else pq.ConnStatus.OK

    def parameter_status(self, name: bytes) -> bytes | None:
        """Return a parameter of the server as it was when the connection was opened."""
        value = self._parameters.get(name.decode())
        return None if value is None else value.encode()

    def get_error_message(self, encoding: str = "") -> str:
        """Return no message."""
        del encoding
        return ""

    def finish(self) -> None:
        """Close the connection."""
        self.session.abandon()
        self.transaction_status = pq.TransactionStatus.UNKNOWN


class RecordedResult:
    """One result of a server, with values that are already Python's."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.status = pq.ExecStatus[said["status"]]
        self._columns: Sequence[Any] = said.get("columns", ())
        self.rows = restored_rows(said.get("rows", ()))
        self.ntuples = len(self.rows)
        self.nfields = len(self._columns)
        self.command_status = said["tag"].encode() if said.get("tag") else None
        self.command_tuples = said.get("count")

    def fname(self, at: int) -> bytes:
        """Return the name of a column."""
        return str(self._columns[at][0]).encode()

    def ftype(self, at: int) -> int:
        """Return the type of a column, by its number in the server."""
        return int(self._columns[at][1])

    def fsize(self, at: int) -> int:
        """Return the size of a column in bytes, negative when it varies."""
        return int(self._columns[at][2])

    def fmod(self, at: int) -> int:
        """Return the modifier of the type of a column."""
        return int(self._columns[at][3])

    def fformat(self, at: int) -> pq.Format:
        """Return the format of a column's values."""
        del at
        return pq.Format.TEXT

    def get_value(self, row: int, column: int) -> Any:
        """Refuse the value as the server wrote it, which is not recorded."""
        raise NotImplementedError(f"the bytes of row {row}, column {column} are not recorded; fetch the row")


class RowSource:
    """A substitute for psycopg's transformer: the values are there, nothing is converted."""

    def __init__(self) -> None:
        self._result: RecordedResult | None = None

    def set_pgresult(self, result: Any, *, set_loaders: bool = True, format: Any = None) -> None:  # noqa: A002 - its name
        """Take the rows of a result."""
        del set_loaders, format
        self._result = result

    def load_row(self, at: int, make: Any) -> Any:
        """Return one row."""
        assert self._result is not None
        return make(self._result.rows[at])

    def load_rows(self, begin: int, end: int, make: Any) -> list[Any]:
        """Return the rows from one to before another."""
        assert self._result is not None
        return [make(row) for row in self._result.rows[begin:end]]


class PlainEscaping:
    """Escaping without libpq, which wants a connection of its own."""

    def escape_identifier(self, data: bytes) -> bytes:
        """Return a name in quotes."""
        return b'"' + data.replace(b'"', b'""') + b'"'

    def escape_string(self, data: bytes) -> bytes:
        """Return what stands between the quotes of a text."""
        return bytes(data).replace(b"'", b"''")

    def escape_literal(self, data: bytes) -> bytes:
        """Return a text in quotes."""
        if b"\\" in bytes(data):
            return b" E'" + self.escape_string(data).replace(b"\\", b"\\\\") + b"'"
        return b"'" + self.escape_string(data) + b"'"

    def escape_bytea(self, data: bytes) -> bytes:
        """Return bytes as the server reads them between quotes."""
        return b"\\x" + bytes(data).hex().encode()


def escape_for_recorded() -> None:
    """Let psycopg's composition of SQL take a recorded connection; it stays as it was for any other."""
    for module in (psycopg.sql, psycopg.types.string, psycopg.pq):
        before = module.Escaping
        if getattr(before, "for_recorded", False):
            continue

        def escaping(conn: Any = None, before: Any = before) -> Any:
            return PlainEscaping() if isinstance(conn, RecordedPGconn) else before(conn)

        escaping.for_recorded = True  # type: ignore[attr-defined]  # a mark of this function
        module.Escaping = escaping
