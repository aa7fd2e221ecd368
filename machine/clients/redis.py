"""Recorded clients of Redis: `redis.Redis` and `redis.asyncio.Redis`, unmodified.

The seam is the connection: what a client sends on it is a call, and the replies are those of the recorded response.
All else is redis-py's own code, live and in a replay: pipelines, retries, scripts, iterators, response callbacks.
"""

from __future__ import annotations

import copy
import importlib
import uuid
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, TypeVar

import redis
import redis.asyncio

from machine.clients.recording import all_of, recorder, replaced
from machine.clients.redis_async import async_methods
from machine.clients.redis_blocking import blocking_methods
from machine.clients.redis_connection import NAMESPACE, Seam
from machine.errors import UsageError

T = TypeVar("T")

_BUILDERS: Final = {"redis": blocking_methods, "redis.asyncio": async_methods}


def recorded(client: T, io: Any, reads: Collection[str] = ()) -> T:
    """Return a copy of a client of redis-py, blocking or asynchronous, whose commands are calls of `io`.

    It has a pool of connections of its own. `reads` names further commands that change nothing, as those of scripts
    and modules. Raises `UsageError` for a client that cannot be recorded.
    """
    given: Any = client
    module = "redis.asyncio" if isinstance(given, redis.asyncio.Redis) else "redis"
    if module == "redis" and not isinstance(given, redis.Redis):
        raise UsageError(
            f"io.redis() records a redis.Redis or a redis.asyncio.Redis, not a {type(given).__name__}",
            hint='record others with Plan(clients=["redis"])',
        )
    if getattr(given, "connection", None) is not None or getattr(given, "single_connection_client", False):
        raise UsageError(
            "io.redis() cannot record a client with a single connection, which may be in use already",
            hint="make the client without single_connection_client",
        )
    if getattr(given.connection_pool, "cache", None) is not None:
        raise _cached()
    pool = copy.copy(given.connection_pool)
    plain = pool.connection_class
    seam = Seam(lambda: io, redis.exceptions, reads)
    pool.connection_class = type(plain.__name__, (plain,), _BUILDERS[module](plain, seam))
    if not io.performs and pool.connection_kwargs.get("retry") is not None:
        retry = copy.deepcopy(pool.connection_kwargs["retry"])
        retry._backoff = redis.backoff.NoBackoff()  # noqa: SLF001 - it has no setter
        pool.connection_kwargs = {**pool.connection_kwargs, "retry": retry}
    pool.reset()
    made: Any = copy.copy(given)
    made.connection_pool = pool
    return made


def patch() -> Callable[[], None]:
    """Record every client of redis-py in the handlers whose plan records it; return a function that undoes this."""
    seam = Seam(lambda: recorder(NAMESPACE), redis.exceptions)
    return all_of(_changes(seam))


def _changes(seam: Seam) -> Iterator[Callable[[], None]]:
    for library, build in _BUILDERS.items():
        connection = importlib.import_module(f"{library}.connection").AbstractConnection
        sentinel = importlib.import_module(f"{library}.sentinel").SentinelManagedConnection
        for name, method in build(connection, seam).items():
            yield replaced(connection, name, _always(method))
        yield replaced(sentinel, "connect", _always(build(sentinel, seam)["connect"]))
        lock = importlib.import_module(f"{library}.lock")
        yield replaced(lock, "uuid", _always(_RecordedTokens(seam)))
    blocking, asynchronous = (importlib.import_module(f"{library}.retry") for library in _BUILDERS)
    yield replaced(blocking, "sleep", lambda plain: _sleep(plain, seam))
    yield replaced(asynchronous, "sleep", lambda plain: _async_sleep(plain, seam))
    cached = getattr(importlib.import_module("redis.connection"), "CacheProxyConnection", None)
    for name in (
        ("connect", "send_command", "send_packed_command") if cached is not None else ()
    ):  # from release 5.1
        yield replaced(cached, name, lambda plain: _refusing(plain, seam))


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


class _RecordedTokens:
    """The module `uuid` as the locks of redis-py see it: the token of a lock is recorded."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam

    def uuid1(self) -> uuid.UUID:
        """Return a new token, in a replay the recorded one."""
        io = self._seam.io_of()
        if io is None:
            return uuid.uuid1()
        response = io.client_call_blocking(
            NAMESPACE, {"draw": "uuid1"}, lambda _: {"drawn": str(uuid.uuid1())}
        )
        return uuid.UUID(response["drawn"])


def _sleep(plain: Callable[[float], None], seam: Seam) -> Callable[[float], None]:
    """Return the function by which retries wait: not at all in a replay, where waiting changes nothing."""

    def sleep(seconds: float) -> None:
        io = seam.io_of()
        if io is None or io.performs:
            plain(seconds)

    return sleep


def _async_sleep(plain: Callable[[float], Any], seam: Seam) -> Callable[[float], Any]:
    async def sleep(seconds: float) -> None:
        io = seam.io_of()
        if io is None or io.performs:
            await plain(seconds)

    return sleep


def _refusing(plain: Callable[..., Any], seam: Seam) -> Callable[..., Any]:
    def send(self: Any, *args: Any, **options: Any) -> Any:
        if seam.io_of() is not None:
            raise _cached()
        return plain(self, *args, **options)

    return send


def _cached() -> UsageError:
    return UsageError(
        "a client of Redis with a cache of its own cannot be recorded: what is in its cache is no part of a run",
        hint="make the client without cache_config",
    )
