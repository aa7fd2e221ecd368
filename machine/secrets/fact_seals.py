"""Seals of facts: JSON values encrypted so that each opens only with the fact it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from machine import canonical
from machine.errors import SealError, SecretKeyError
from machine.events import FactRecorded, FactValue
from machine.secrets import sealing

ASKED: Final = "request"
"""The name used in place of a payload id when a seal belongs to the request."""

_FORMAT: Final = "2"
_TENANT: Final = ""


class Keys(Protocol):
    """The data keys of a store's runs; `failure` is the error of one that could not be made, or not be checked."""

    failure: SecretKeyError | None

    def data_key(self, run_id: str, *, create: bool) -> sealing.DataKey | None:
        """Return the data key of a run, None when there is none or it cannot be opened.

        With `create` one is made. Raises `SecretKeyError` when that cannot be.
        """
        ...

    def check(self) -> None:
        """Raise `SecretKeyError` when nothing could be sealed."""
        ...


class Seals(Protocol):
    """The seals of a run's facts, by the keys of the facts: a log has them."""

    def seal(self, key: str) -> bytes | None:
        """Return the ciphertext of a fact's seal: None when it has none, empty when its artifact is missing."""
        ...


def payload_id(fact: FactRecorded) -> str:
    """Return the artifact of a fact's answer, empty where it has none."""
    return fact.outcome.payload_id if isinstance(fact.outcome, FactValue) else ""


def seal_beside(
    data_key: sealing.DataKey, fact: FactRecorded, payload: str, value: Mapping[str, Any]
) -> bytes:
    """Return a value as ciphertext that opens only with a fact of this payload, in a fork of the run too."""
    return sealing.seal(data_key, canonical.encode(value), _place(fact, payload))


def open_beside(data_key: sealing.DataKey, fact: FactRecorded, payload: str, seal: bytes) -> Any:
    """Return the value that was sealed for a fact, None when it does not open."""
    try:
        return canonical.decode(sealing.open_seal(data_key, seal, _place(fact, payload)))
    except SealError:
        return None


def hashed(data_key: sealing.DataKey, request: bytes) -> str:
    """Return the id of the data key, followed by the keyed hash of a request as it is sent."""
    return f"{data_key.id}:{sealing.mac(data_key, request)}"


def _place(fact: FactRecorded, payload: str) -> tuple[str, ...]:
    return _FORMAT, _TENANT, fact.namespace, fact.request_digest, payload
