"""What most transports have in common: they read, need no key and hold nothing open.

A base for transports, not a contract: the contract is the protocol in `transport.py`. It must never perform
anything by itself.
"""

from __future__ import annotations

from typing import Any

from machine.errors import Code, IoOther

__all__ = ["AbsentTransport", "BaseTransport"]


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
        """Return True: a response is one."""
        return True

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:  # noqa: ARG002 - the same
        """Return the request unchanged: there is no receiver that could use the key."""
        return request

    async def aclose(self) -> None:
        """Do nothing: nothing is held open."""

    def _unknown(self, namespace: str) -> IoOther:
        return IoOther(
            f"{type(self).__name__} does not serve the namespace {namespace!r}",
            code=Code.IO_UNKNOWN_NAMESPACE,
            details={"namespace": namespace},
        )


class AbsentTransport(BaseTransport):
    """Stands, in a replay, for a transport that the run had and that is not given: it says nothing of requests."""

    __slots__ = ()

    async def perform(self, namespace: str, request: Any) -> Any:  # noqa: ARG002 - the protocol's signature
        """Refuse: a replay performs nothing."""
        raise self._unknown(namespace)
