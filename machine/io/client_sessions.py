"""The clients of other libraries that a handler's `io` makes, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from machine.io.blocking_io import in_calling_thread
from machine.io.client_calls import ClientCalls
from machine.recorded_clients import module_of

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from requests import Session
    from websockets.asyncio import client as websockets_client


Made = TypeVar("Made")


class ClientSessions(ClientCalls):
    """The part of an `io` that makes clients whose every call it records."""

    @in_calling_thread
    def connect(self, opener: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Open a connection to a database as `opener(*args, **options)` would, and record what is done with it.

        `opener` is the function of the library: `sqlite3.connect`, `psycopg.connect`, `duckdb.connect`, or, to be
        awaited, `psycopg.AsyncConnection.connect`. Raises the library's own exceptions, and `UsageError` for
        another function.
        """
        return import_module("machine.clients.dbapi_connection").connect(self, opener, args, options)

    def aiohttp_session(self, **options: Any) -> ClientSession:
        """Return an `aiohttp.ClientSession` of which every request is a recorded call of `http`.

        `options` are those of that class. Raises `UsageError` (`client_not_installed`) without aiohttp.
        """
        made: ClientSession = module_of("aiohttp").session(self, options)
        return made

    def boto3_client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client of a service, of which every request is a recorded call of `http`.

        `options` are those of `boto3.client`. Raises `UsageError` (`client_not_installed`) without boto3.
        """
        return module_of("boto3").client(self, service, options)

    def botocore(self, session: Any) -> Any:
        """Record the clients that a session of botocore or boto3 makes from now on, and return the session.

        Raises `UsageError` (`client_not_installed`) without botocore.
        """
        return module_of("boto3").record_session(self, session)

    def requests_session(self) -> Session:
        """Return a `requests.Session` of which every request is a recorded call of `http`.

        Raises `UsageError` (`client_not_installed`) without requests.
        """
        made: Session = module_of("requests").session(self)
        return made

    def redis(self, client: Made, *, reads: Iterable[str] = ()) -> Made:
        """Return a copy of a `redis.Redis` or `redis.asyncio.Redis` of which every command is a recorded call.

        A command that is not known to read is an effect; `reads` names others that read too, such as those of
        modules. Raises `UsageError` for a client that cannot be recorded, and (`client_not_installed`) without
        redis.
        """
        made: Made = module_of("redis").recorded(client, self, tuple(reads))
        return made

    def grpc_channel(self, channel: Made, *, reads: Iterable[str] = (), keyed: Iterable[str] = ()) -> Made:
        """Return a channel over one of `grpc` or `grpc.aio`, each of whose calls is recorded.

        A call is an effect unless `reads` has a pattern of its method, as in `reads=["/shop.Stock/Get*"]`. The
        server of the methods in `keyed` honours the idempotency key in the metadata `idempotency-key`. Raises
        `UsageError` for what is no channel, and (`client_not_installed`) without grpc.
        """
        made: Made = module_of("grpc").recorded(channel, self, reads, keyed)
        return made

    def websocket(self, url: str, *, reads: bool = False, **options: Any) -> websockets_client.connect:
        """Return a `websockets.asyncio.client.connect` whose connections are recorded message by message.

        With `reads=True` sending a message is no effect. `options` are those of `connect`. Raises `UsageError`
        (`client_not_installed`) without websockets.
        """
        made: websockets_client.connect = module_of("websockets").websocket(
            self, url, reads=reads, options=options
        )
        return made
