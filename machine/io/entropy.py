"""Randomness as recorded calls, and values derived from recorded bytes.

The derivations are pure: the same bytes give the same UUID and the same generator, on any machine and with any
PYTHONHASHSEED. Randomness for a handler must never be drawn anywhere else.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Mapping
from typing import Any, Final

from machine.io.request_fields import checked_count, field, refusal
from machine.io.transport import BaseTransport

MOST_BYTES: Final = 65536
"""The largest number of bytes that one call may request."""


def random_bytes_request(n: int) -> dict[str, Any]:
    """Return the request for `n` random bytes (`random.bytes`), 1 to 65536; the response is `{"hex": ...}`.

    Raises `OtherIoError(io_invalid_request)` for any other `n`.
    """
    return {"bytes": checked_count(n, "the number of bytes", least=1, most=MOST_BYTES)}


def bytes_from(response: Mapping[str, Any]) -> bytes:
    """Return the bytes of a `random.bytes` response."""
    return bytes.fromhex(response["hex"])


def uuid_from(data: bytes) -> uuid.UUID:
    """Return the UUID of version 4 (RFC 9562 section 5.4) made from 16 random bytes."""
    if len(data) != 16:  # noqa: PLR2004 - a UUID has 128 bits
        raise refusal(f"a UUID is made of 16 bytes, not {len(data)}")
    return uuid.UUID(bytes=data, version=4)


def random_from(data: bytes) -> random.Random:
    """Return a generator seeded with random bytes; 32 are plenty.

    The seed is the integer value of the bytes: integers seed the Mersenne Twister the same way in every version of
    Python, and no hash is involved. Python promises the stream of `random()` across versions; `shuffle`, `sample`
    and their like may use it differently in another version.
    """
    return random.Random(int.from_bytes(data, "big"))  # noqa: S311 - reproducible on purpose; not for secrets


class EntropyTransport(BaseTransport):
    """The transport of `random.bytes`, from the operating system's generator."""

    __slots__ = ()

    async def perform(self, namespace: str, request: Any) -> dict[str, str]:
        """Return `{"hex": ...}` with the requested number of fresh bytes."""
        if namespace != "random.bytes":
            raise self._unknown(namespace)
        wanted = checked_count(field(request, "bytes", int), "the number of bytes", least=1, most=MOST_BYTES)
        return {"hex": os.urandom(wanted).hex()}
