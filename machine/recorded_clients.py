"""The libraries whose clients a plan can record, and the choice that a plan makes of them.

Nothing here imports a library: `module_of` does, once a run of a plan that chose it is driven.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
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

OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "grpc": ("reads", "keyed"),
    "redis": ("reads",),
    "websockets": ("reads",),
}
"""The options of `machine.clients.record`, each a list of texts, for the libraries that have any."""

BUILT_ON: Final[Mapping[str, str]] = {
    "anthropic": "httpx",
    "docker": "requests",
    "github": "requests",
    "mistralai": "httpx",
    "openai": "httpx",
    "pygithub": "requests",
}
"""Libraries that make their calls with one that can be recorded."""

OTHERS: Final = frozenset({"asyncpg", "http", "mysql", "psycopg2", "pymysql", "urllib"})
"""Libraries that cannot be recorded although their names are near to those that can."""

IN_A_STEP: Final = (
    "name the library that it is built on, such as httpx, or call it in a step: io.step(function, ...)"
)


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
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise UsageError(f"clients must be a list, not {given!r}", hint='write clients=["requests"]')
    found: dict[str, Mapping[str, Any]] = {}
    for item in given:
        several = item if isinstance(item, list | tuple) else [item]
        for one in several:
            client = RecordedClient(one) if isinstance(one, str) else one
            if not isinstance(client, RecordedClient):
                near = str(getattr(client, "__name__", "")).partition(".")[0]
                raise UsageError(
                    f"clients must name libraries, and {client!r} is no name",
                    hint=f'write clients=["{near if near in MODULES else "requests"}"]',
                )
            found[_known(client.name)] = _valid(client)
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


def _valid(client: RecordedClient) -> Mapping[str, Any]:
    """Return the options of a client. Raises `UsageError` for one that its library has not, or that is no list."""
    known = OPTIONS.get(client.name, ())
    for name, value in client.options.items():
        called = f'record("{client.name}")'
        if name not in known:
            hint = did_you_mean(name, known) or f"it has {' and '.join(known) or 'none'}"
            raise UsageError(f"{called} has no option {name!r}", hint=hint)
        if isinstance(value, str):
            hint = f"write {name}=[{value!r}]"
            raise UsageError(f"{called}: {name} must be a list, not the text {value!r}", hint=hint)
        if not isinstance(value, Collection) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{called}: {name} must be a list of texts, not {value!r}")
    return client.options


def _known(name: str) -> str:
    if name not in MODULES:
        lower = name.lower()
        if lower in BUILT_ON:
            hint = f"it makes its calls with {BUILT_ON[lower]}: write clients=[{BUILT_ON[lower]!r}]"
        else:
            near = None if lower in OTHERS else did_you_mean(lower, MODULES)
            hint = near or IN_A_STEP
        raise UsageError(
            f"the clients of {name!r} cannot be recorded; those of {', '.join(sorted(MODULES))} can",
            hint=hint,
        )
    return name
