"""The libraries whose clients a plan can record, and the choice that a plan makes of them.

Nothing here imports a library: `module_of` does, once a run of a plan that chose it is driven.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any, Final, TypeAlias

import attrs

from machine.did_you_mean import did_you_mean
from machine.errors import Code, UsageError

MODULES: Final[Mapping[str, str]] = {
    "aiohttp": "machine.clients.aiohttp",
    "boto3": "machine.clients.boto3",
    "botocore": "machine.clients.botocore",
    "duckdb": "machine.clients.duckdb",
    "grpc": "machine.clients.grpc",
    "httpx": "machine.clients.httpx",
    "psycopg": "machine.clients.psycopg",
    "redis": "machine.clients.redis",
    "requests": "machine.clients.requests",
    "sqlalchemy": "machine.clients.sqlalchemy",
    "sqlite3": "machine.clients.sqlite3",
    "urllib3": "machine.clients.urllib3",
    "websockets": "machine.clients.websockets",
}
"""The module that records the clients of each library."""


@attrs.frozen
class RecordedClient:
    """One library whose clients a plan records; `options` are those of its module."""

    name: str
    options: Mapping[str, Any] = attrs.field(factory=dict)


Clients: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The options of each library whose clients are recorded, by its name."""

Chosen: TypeAlias = str | RecordedClient | Iterable[RecordedClient]
"""One item of `Plan(clients=[...])`: the name of a library, or what `machine.clients.record` returned."""


def clients_of(given: Iterable[Chosen]) -> Clients:
    """Return the libraries that a plan records. Raises `UsageError` for what is not a known library."""
    if isinstance(given, str):
        raise UsageError(f"clients must be a list, not the text {given!r}", hint=f"write clients=[{given!r}]")
    found: dict[str, Mapping[str, Any]] = {}
    for item in given:
        several = item if isinstance(item, list | tuple) else [item]
        for one in several:
            client = RecordedClient(one) if isinstance(one, str) else one
            if not isinstance(client, RecordedClient):
                raise UsageError(f"clients must name libraries, and {client!r} is no name")
            found[_known(client.name)] = client.options
    return MappingProxyType(found)


def module_of(name: str) -> ModuleType:
    """Return the module that records the clients of a library. Raises `UsageError` if that is not installed."""
    try:
        return import_module(MODULES[_known(name)])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "machine":
            raise
        raise UsageError(
            f"the clients of {name} are to be recorded, and {error.name} is not installed",
            code=Code.CLIENT_NOT_INSTALLED,
            hint=f"install it: pip install 'replay-machine[{name}]'",
        ) from error


def _known(name: str) -> str:
    if name not in MODULES:
        raise UsageError(
            f"the clients of {name!r} cannot be recorded; those of {', '.join(sorted(MODULES))} can",
            hint=did_you_mean(name, MODULES) or "call it in a step: io.step(function, ...)",
        )
    return name
