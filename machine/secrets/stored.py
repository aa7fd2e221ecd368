"""Requests, answers and errors as they are stored: without their secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from machine.errors import Code, ErrorInfo, IoOther
from machine.events import FactRecorded

__all__ = ["Answer", "Asked", "not_read", "said_error", "unopened"]


@attrs.frozen
class Asked:
    """A request as it is stored; `mac` is a keyed hash of it as it is sent, if it holds a secret.

    `refusal` is the error of a request that may not be sent, `taught` are the secrets that it is the first to hold.
    """

    data: bytes
    mac: str | None = None
    refusal: IoOther | None = None
    taught: Sequence[tuple[str, str, bool]] = ()


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


def unopened(fact: FactRecorded) -> IoOther:
    """Return the error that a live handler gets for a fact whose true values cannot be opened."""
    return IoOther(
        f"the answer of {fact.namespace} held a secret that cannot be opened any more",
        code=Code.SECRET_UNAVAILABLE,
        details={"key": fact.key},
        hint="start a new run, or fork this one before that call",
    )


def not_read() -> IoOther:
    """Return the error of a request that holds a secret which only a state before has read."""
    return IoOther(
        "the request holds a secret that this state has not read",
        code=Code.SECRET_NOT_READ,
        hint="read it here, with io.secret or the call that gave it: a run may be resumed in any state",
    )
