"""The stored forms of a call, as values, and the errors of calls whose secrets are missing.

`secrets/redact.py` replaces the secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from machine.errors import Code, ErrorInfo, OtherIoError
from machine.events import FactRecorded


@attrs.frozen
class Asked:
    """A request as it is stored and as it is sent; `mac` is a keyed hash of the latter, if it holds a secret.

    `refusal` is the error of a request that may not be sent. `stands_in` is true if it has a stand-in,
    `hides` if more than its secrets is not stored. `taught` are the secrets that the attempt learns from it.
    `compared` is what is left of the request, as it was made, where a part of it is not compared; `data` and `mac`
    are of the rest then too, `whole` is the whole as it is stored, and `ignored` says what is left out.
    """

    data: bytes
    sent: bytes
    mac: str | None = None
    refusal: OtherIoError | None = None
    stands_in: bool = False
    hides: bool = False
    taught: Sequence[tuple[str, str, bool]] = ()
    compared: bytes | None = None
    whole: bytes | None = None
    ignored: Mapping[str, str] | None = None


@attrs.frozen
class Answer:
    """An answer as it is stored: canonical bytes, additions to the `info` of its event, and the sealed true values.

    `gone` (format 1) is true if it held a secret that is stored nowhere: only this process knows it.
    """

    data: bytes
    info: Mapping[str, str] = attrs.field(factory=dict)
    seal: bytes | None = None
    gone: bool = False


def said_error(info: ErrorInfo, text: Callable[[str], str], said: Callable[[Any], Any]) -> ErrorInfo:
    """Return an error without secrets: `text` removes them from its message, `said` from its details."""
    message = text(info.message)
    details = None if info.details is None else said(dict(info.details))
    if message == info.message and details == info.details:
        return info
    return attrs.evolve(info, message=message, details=details)


def unopened(fact: FactRecorded) -> OtherIoError:
    """Return the error that a live handler gets for a fact whose true values cannot be opened."""
    return OtherIoError(
        f"the answer of {fact.namespace} held a secret that cannot be opened any more",
        code=Code.SECRET_UNAVAILABLE,
        details={"key": fact.key},
        hint="start a new run, or fork this one before that call",
    )


def placeholder_sent() -> OtherIoError:
    """Return the error of a request that holds the text of a placeholder."""
    return OtherIoError(
        "the request holds the placeholder of a secret and not its value",
        code=Code.SECRET_UNAVAILABLE,
        hint="read it with io.secret, or ask for it again, in the state that uses it",
    )


def variable_asked(namespace: str, request: Any) -> str | None:
    """Return the name of the environment variable that a request reads, None for any other request."""
    name = request.get("name") if namespace == "env" and isinstance(request, dict) else None
    return name if isinstance(name, str) else None


def not_read() -> OtherIoError:
    """Return the error of a request that holds a secret which only a state before has read."""
    return OtherIoError(
        "the request holds a secret that this state has not read",
        code=Code.SECRET_NOT_READ,
        hint="read it here, with io.secret or the call that gave it: a run may be resumed in any state",
    )
