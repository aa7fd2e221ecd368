"""The transports of a run by namespace: the standard ones, overridden by the user's own."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio

from machine.config import RunConfig
from machine.errors import Code, RunError, UsageError
from machine.io.attempt_scope import is_namespace
from machine.io.client_work import CLIENT_NAMESPACES, ClientTransport
from machine.io.clock import ClockTransport
from machine.io.entropy import EntropyTransport
from machine.io.env import EnvTransport
from machine.io.exec import ExecTransport
from machine.io.files import FileTransport
from machine.io.http import HttpTransport
from machine.io.secret import SecretTransport
from machine.io.step_transport import StepTransport
from machine.io.transport import AbsentTransport, BaseTransport, Transport, Transports

_CLOSING_SECONDS: Final = 10.0
"""Seconds that a transport may take to close."""

_STANDARD: Final[Mapping[str, Callable[[RunConfig], Transport]]] = {
    "http": lambda _: HttpTransport(),
    "exec": lambda config: ExecTransport(config.exec_allow),
    "file": lambda _: FileTransport(),
    "clock": lambda _: ClockTransport(),
    "random": lambda _: EntropyTransport(),
    "env": lambda _: EnvTransport(),
    "secret": lambda _: SecretTransport(),
    "step": lambda _: StepTransport(),
    **{namespace: lambda _: ClientTransport() for namespace in CLIENT_NAMESPACES},
}
STANDARD_NAMESPACES: Final = frozenset(_STANDARD)


def checked(own: Transports) -> Transports:
    """Return the user's own transports. Raises `UsageError` for an invalid name or value."""
    for namespace, transport in own.items():
        if not is_namespace(namespace):
            raise UsageError(f"transports: {namespace!r} is not a namespace, lowercase names joined by dots")
        if isinstance(transport, type):
            raise UsageError(
                f"transports[{namespace!r}] is the class {transport.__name__}; "
                "give an instance of it, or a function that makes one"
            )
        if not isinstance(transport, Transport) and not callable(transport):
            raise _no_transport(namespace, transport)
    return own


def serves(prefixes: Container[str], namespace: str) -> bool:
    """Say whether a transport under one of these prefixes answers for a namespace."""
    parts = namespace.split(".")
    return any(".".join(parts[:count]) in prefixes for count in range(1, len(parts) + 1))


@asynccontextmanager
async def opened(
    config: RunConfig, own: Transports, *, shut: bool = False
) -> AsyncIterator[Mapping[str, Transport]]:
    """Yield the transports by namespace prefix, and close at the end those that were made here.

    With `shut` none is made: no call will be performed.
    A transport object that the user gave stays open: it belongs to the user. Raises `RunError`
    (`io_transport_failed`) when a function that makes a transport fails.
    """
    if shut:
        yield unopened(config, own, ())
        return
    async with AsyncExitStack() as stack:
        by_namespace = {name: make(config) for name, make in _STANDARD.items()}
        for transport in by_namespace.values():
            closing: Any = type(transport).aclose
            if closing is not BaseTransport.aclose:  # which does nothing: most of them hold nothing open
                stack.push_async_callback(transport.aclose)
        for namespace, given in own.items():
            if isinstance(given, Transport):
                by_namespace[namespace] = given
            else:
                by_namespace[namespace] = made = await _made(namespace, given)
                stack.push_async_callback(_closed, namespace, made)
        yield by_namespace


def unopened(config: RunConfig, own: Transports, recorded: Iterable[str]) -> Mapping[str, Transport]:
    """Return the transports of a replay, which performs no call and calls no function that makes a transport.

    `recorded` are the namespaces for which the run had transports of its own.
    """
    standard = {name: make(config) for name, make in _STANDARD.items()}
    given = {name: transport for name, transport in own.items() if isinstance(transport, Transport)}
    return {**dict.fromkeys((*recorded, *own), AbsentTransport()), **standard, **given}


async def _made(namespace: str, function: Callable[[], Any]) -> Transport:
    try:
        made = function()
        if inspect.isawaitable(made):
            made = await made
    except Exception as exc:
        raise RunError(
            f"transports[{namespace!r}] could not be made: {type(exc).__qualname__}: {exc}",
            code=Code.IO_TRANSPORT_FAILED,
            details={"namespace": namespace},
        ) from exc
    if isinstance(made, type) or not isinstance(made, Transport):
        raise _no_transport(namespace, made)
    return made


async def _closed(namespace: str, transport: Transport) -> None:
    """Close a transport. A failure is reported and changes nothing, as the run is already stored."""
    try:
        with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
            await transport.aclose()
    except Exception as exc:  # noqa: BLE001 - a transport of the user's may raise anything
        text = f"transports[{namespace!r}] could not be closed: {type(exc).__qualname__}: {exc}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _no_transport(namespace: str, value: object) -> UsageError:
    return UsageError(
        f"transports[{namespace!r}] = {value!r} is not a transport",
        hint="subclass machine.io.transport.BaseTransport and define perform",
    )
