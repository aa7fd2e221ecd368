"""Secrets as calls that are recorded: by their names. Their values stay in the vault of the process.

The transport here is the only place where a value is read. It must never answer anybody but `io.live`, which has
the vault take the value in before anything is recorded.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

from machine import canonical
from machine.errors import Code, IoOther
from machine.events import FactValue
from machine.io.base_transport import BaseTransport
from machine.io.scope import AttemptScope
from machine.io.wire import checked_text, field, refusal
from machine.secrets.handles.handle import MARK
from machine.secrets.handles.vault import SECRET

__all__ = ["SecretTransport", "secret_request", "sendable", "taken_in"]

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def secret_request(name: str) -> dict[str, Any]:
    """Return the request for one secret (`secret`); its response is recorded as a handle.

    Raises `IoOther(io_invalid_request)` for a name that is not of letters, digits, `_`, `.` and `-`.
    """
    name = checked_text(name, "the name of a secret", empty=False)
    if not _NAME.fullmatch(name):
        raise refusal("the name of a secret has letters, digits, _, . and - only, 128 at most")
    return {"name": name}


class SecretTransport(BaseTransport):
    """Serves `secret` from this process's environment.

    One of your own, registered under `secret`, answers from elsewhere: `{"value": text}`, null when there is none.
    """

    __slots__ = ()

    async def perform(self, namespace: str, request: Any) -> dict[str, str | None]:
        """Return `{"value": ...}`, null when the variable is not set."""
        if namespace != SECRET:
            raise self._unknown(namespace)
        return {"value": os.environ.get(secret_request(field(request, "name", str))["name"])}


def taken_in(scope: AttemptScope, request: Any, response: Any, mac: str | None = None) -> bytes:
    """Give what was read to the vault and return the canonical bytes of its handle.

    Raises `IoOther`: `secret_not_set` when there is no such secret, `io_transport_failed` when it is no text.
    """
    name = request["name"]
    value = response.get("value") if isinstance(response, dict) else None
    if not value:
        raise IoOther(
            f"the secret {name} is not set",
            code=Code.SECRET_NOT_SET,
            details={"name": name},
            hint=f"set the environment variable {name} and resume, or start again",
        )
    try:
        value.encode("utf-8")
    except (AttributeError, UnicodeEncodeError):
        raise IoOther(
            f"the value of the secret {name} is not UTF-8 text",
            code=Code.IO_TRANSPORT_FAILED,
            details={"name": name},
        ) from None
    return scope.vault.read(name, value, mac).encode()


async def sendable(scope: AttemptScope, data: bytes) -> Any:
    """Return a request with the values of its secrets, those read by an earlier process read again.

    Raises `IoOther` (`secret_unavailable`) for a handle whose value is gone with the process that knew it.
    """
    for name, mac in scope.vault.unknown(data):
        if not await _read_again(scope, name, mac):
            raise IoOther(
                f"the value of the secret {name!r} is not known to this process",
                code=Code.SECRET_UNAVAILABLE,
                details={"name": name},
                hint="ask for it again in the state that uses it, or start a new run",
            )
    return scope.vault.restored(data)


async def _read_again(scope: AttemptScope, name: str, mac: str) -> bool:
    """Read a secret that an earlier process of this run read, and say whether there was one of that handle."""
    transport = scope.transport(SECRET)
    for fact in scope.log.history.facts.values() if transport is not None else ():
        if fact.namespace != SECRET or not isinstance(fact.outcome, FactValue):
            continue
        # a name that comes from anywhere else must not make us read the environment
        payload_id = fact.outcome.payload_id
        if canonical.decode_stored(payload_id, scope.log.load(payload_id)) == {MARK: name, "mac": mac}:
            assert transport is not None
            request = secret_request(name)
            taken_in(scope, request, await transport.perform(SECRET, request), mac)
            return True
    return False
