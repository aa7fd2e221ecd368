"""The clients of other libraries that a handler's `io` makes, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from machine.io.blocking_io import in_calling_thread
from machine.io.client_calls import ClientCalls
from machine.recorded_clients import module_of

if TYPE_CHECKING:
    from requests import Session


class ClientSessions(ClientCalls):
    """The part of an `io` that makes clients whose every call it records."""

    @in_calling_thread
    def connect(self, opener: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Open a connection to a database, as `opener(*args, **options)` would, and record what is done with it.

        `opener` is the function of the library: `sqlite3.connect`, `psycopg.connect`, `duckdb.connect`, or, to be
        awaited, `psycopg.AsyncConnection.connect`. Raises the library's own exceptions, and `UsageError` for
        another function.
        """
        from machine.clients.dbapi_connection import connect  # noqa: PLC0415 - only those who use it pay for it

        return connect(self, opener, args, options)

    def requests_session(self) -> Session:
        """Return a `requests.Session` of which every request is a recorded call of `http`.

        Raises `UsageError` (`client_not_installed`) without requests.
        """
        made: Session = module_of("requests").session(self)
        return made
