"""Requests, answers and errors as they are stored: without their secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from machine.errors import ErrorInfo, IoOther

__all__ = ["Answer", "Asked", "said_error"]


@attrs.frozen
class Asked:
    """A request as it is stored and as it is sent; `mac` is a keyed hash of the latter, if it holds a secret.

    `refusal` is the error of a request that may not be sent. `stands_in` is true of one with a stand-in.
    """

    data: bytes
    sent: bytes
    mac: str | None = None
    refusal: IoOther | None = None
    stands_in: bool = False


@attrs.frozen
class Answer:
    """An answer as it is stored: canonical bytes, additions to the `info` of its event, and the sealed true values.

    `gone` (format 1) means that it held a secret which is stored nowhere: only this process knows it.
    """

    data: bytes
    info: Mapping[str, str] = attrs.field(factory=dict)
    seal: bytes | None = None
    gone: bool = False


def said_error(info: ErrorInfo, text: Callable[[str], str], said: Callable[[Any], Any]) -> ErrorInfo:
    """Return an error without secrets; `text` removes them from a text, `said` from a JSON value."""
    message = text(info.message)
    details = None if info.details is None else said(dict(info.details))
    if message == info.message and details == info.details:
        return info
    return attrs.evolve(info, message=message, details=details)
