"""Which transport answers for which namespace: the standard ones, and a caller's own over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from machine.config import RunConfig
from machine.errors import UsageError
from machine.io.clock import ClockTransport
from machine.io.entropy import EntropyTransport
from machine.io.env import EnvTransport
from machine.io.exec import ExecTransport
from machine.io.files import FileTransport
from machine.io.http import HttpTransport
from machine.io.scope import is_namespace
from machine.io.secret import SecretTransport
from machine.io.transport import Transport

__all__ = ["opened"]


@asynccontextmanager
async def opened(
    config: RunConfig, own: Mapping[str, Transport] | None
) -> AsyncIterator[Mapping[str, Transport]]:
    """Yield the transports by namespace prefix, and close the standard ones at the end.

    A caller's own transports stay open: they belong to the caller.
    """
    for namespace, transport in (own or {}).items():
        if not is_namespace(namespace):
            raise UsageError(f"transports: {namespace!r} is not a namespace, lowercase names joined by dots")
        if isinstance(transport, type):
            raise UsageError(
                f"transports[{namespace!r}] is the class {transport.__name__}; give an instance of it"
            )
        if not isinstance(transport, Transport):
            raise UsageError(
                f"transports[{namespace!r}] = {transport!r} is not a transport",
                hint="subclass machine.io.base_transport.BaseTransport and define perform",
            )
    standard: dict[str, Transport] = {
        "http": HttpTransport(),
        "exec": ExecTransport(config.exec_allow),
        "file": FileTransport(),
        "clock": ClockTransport(),
        "random": EntropyTransport(),
        "env": EnvTransport(),
        "secret": SecretTransport(),
    }
    try:
        yield {**standard, **(own or {})}
    finally:
        for transport in standard.values():
            await transport.aclose()
