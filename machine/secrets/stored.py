"""Requests and answers as they are stored."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from machine.errors import IoOther

__all__ = ["Answer", "Asked"]


@attrs.frozen
class Asked:
    """A request as it is stored, and the keyed hash of it as it is sent, where it holds a secret.

    `refusal` is the error of one that may not be sent.
    """

    data: bytes
    mac: str | None = None
    refusal: IoOther | None = None


@attrs.frozen
class Answer:
    """An answer as it is stored: canonical bytes, what its event's info says of it, and the artifact of its seal.

    `gone` says that it held a secret which only this process knows now.
    """

    data: bytes
    info: Mapping[str, str] = attrs.field(factory=dict)
    seal: bytes | None = None
    gone: bool = False
