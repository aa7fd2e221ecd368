"""The contract of a transport, which performs the calls of one namespace, and a base class for one.

A transport never records, never looks a fact up and never decides whether it may be called; `live_io` does that. It
turns a canonical request into a canonical response, or raises `IoError`.

To add one, subclass `BaseTransport` and define `perform`, then register it under its namespace: in `_STANDARD` of
`engine/transports.py` for every plan, or with `Plan(..., transports={"name": ...})` for one.
docs/how-to/add-a-transport.md has an example and lists every file to touch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs

from machine.errors import Code, OtherIoError


@runtime_checkable
class Transport(Protocol):
    """The code that performs calls of its namespaces. Requests and responses are JSON values."""

    def is_effect(self, namespace: str, request: Any) -> bool:
        """Say whether performing this request may change the outside world. Pure."""
        ...

    one_effect_per_key: bool
    """True when the receiver would treat two different effects with one idempotency key as the same."""

    def is_final(self, namespace: str, response: Any) -> bool:
        """Say whether a response is final, so that a later attempt may reuse it instead of calling again. Pure."""
        ...

    def is_certain_effect(self, namespace: str, request: Any) -> bool:
        """Say whether the request always changes the outside world, so that a state must declare it. Pure."""
        ...

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:
        """Return the request as it is sent together with a state's idempotency key. Pure."""
        ...

    async def perform(self, namespace: str, request: Any) -> Any:
        """Perform the request. Raises `IoError` for every failure outside; must be safe to cancel."""
        ...

    async def aclose(self) -> None:
        """Release resources; called once, when the driver stops that made the transport by a function."""
        ...


class PieceSource(Protocol):
    """The rest of an answer that a transport has begun to receive."""

    async def next(self) -> bytes | None:
        """Return the next piece as soon as it is there, None at the end. Raises `IoError`.

        Nobody calls it while it runs.
        """
        ...

    async def aclose(self) -> None:
        """Stop receiving and release resources."""
        ...


@attrs.frozen
class Opened:
    """An answer of which only the head is there, as a JSON value without a body."""

    head: Any
    source: PieceSource


class Streaming(Protocol):
    """A transport that can hand out an answer in pieces. Any other answers a stream as a whole."""

    async def open_stream(self, namespace: str, request: Any) -> Any:
        """Perform the request, and return an `Opened`, or the whole answer as `perform` does if it is short."""
        ...


Transports: TypeAlias = Mapping[str, Transport | Callable[[], Transport | Awaitable[Transport]]]
"""Transports by namespace: each an object, or a function that makes one for each driver."""


class BaseTransport:
    """A transport without effects, without use for an idempotency key and with nothing to close."""

    __slots__ = ()
    one_effect_per_key = False

    def is_effect(self, namespace: str, request: Any) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False: performing this only reads."""
        return False

    def is_certain_effect(self, namespace: str, request: Any) -> bool:  # noqa: ARG002 - the same
        """Return False: nothing here need be declared."""
        return False

    def is_final(self, namespace: str, response: Any) -> bool:  # noqa: ARG002 - the same
        """Return True: every response is final."""
        return True

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:  # noqa: ARG002 - the same
        """Return the request unchanged: there is no receiver that could use the key."""
        return request

    async def aclose(self) -> None:
        """Do nothing: nothing is held open."""

    def _unknown(self, namespace: str) -> OtherIoError:
        return OtherIoError(
            f"{type(self).__name__} does not serve the namespace {namespace!r}",
            code=Code.IO_UNKNOWN_NAMESPACE,
            details={"namespace": namespace},
        )


class AbsentTransport(BaseTransport):
    """A substitute, in a replay, for a transport that is not given: it makes no statement about requests."""

    __slots__ = ()

    async def perform(self, namespace: str, request: Any) -> Any:  # noqa: ARG002 - the protocol's signature
        """Refuse the call, because a replay performs nothing."""
        raise self._unknown(namespace)
