"""What a transport is: the code that really goes outside for one namespace, and nothing else.

A transport never records, never looks a fact up and never decides whether it may be called; `io.live` does
that. It turns a canonical request into a canonical response, or raises `IoError`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

__all__ = ["Transport", "Transports"]


@runtime_checkable
class Transport(Protocol):
    """Goes outside for the namespaces it is registered under. Requests and responses are JSON values."""

    def is_effect(self, namespace: str, request: Any) -> bool:
        """Say whether performing this request may change the outside world. Pure."""
        ...

    one_effect_per_key: bool
    """True when the receiver would take two different effects with one idempotency key for the same."""

    def is_final(self, namespace: str, response: Any) -> bool:
        """Say whether a response stands, so that a later attempt may reuse it instead of calling again. Pure."""
        ...

    def is_certain_effect(self, namespace: str, request: Any) -> bool:
        """Say whether the request cannot but change the outside, so that a state must declare it. Pure."""
        ...

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:
        """Return the request as it is sent when a state's idempotency key goes with it. Pure."""
        ...

    async def perform(self, namespace: str, request: Any) -> Any:
        """Do it. Raises `IoError` for every failure of the outside; must be safe to cancel."""
        ...

    async def aclose(self) -> None:
        """Release what was opened; called once when the driver stops that had it made by a function."""
        ...


Transports: TypeAlias = Mapping[str, Transport | Callable[[], Transport | Awaitable[Transport]]]
"""Transports by namespace: each as it is, or as a function that makes one for each driver."""
