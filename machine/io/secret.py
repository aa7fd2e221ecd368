"""Reading secrets as recorded calls: the request has the name, the recorded answer a placeholder.

The transport here is the only code that reads a value. Only `live_io` may call it, since that replaces the value
before anything is recorded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from machine import canonical
from machine.errors import Code, OtherIoError
from machine.events import FactValue
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.io.redirect_secrets import Sensitive, parts, sensitive
from machine.io.request_fields import checked_text, field, refusal
from machine.io.transport import BaseTransport
from machine.secrets.format_1.placeholder import MARK, Placeholder, placeholder_text
from machine.secrets.format_1.run_secrets import Format1RunSecrets
from machine.secrets.secret_value import SECRET, Secret

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def secret_request(name: str) -> dict[str, Any]:
    """Return the request for one secret (`secret`); its response is recorded as a placeholder.

    Raises `OtherIoError(io_invalid_request)` for a name with other characters than letters, digits, `_`, `.` and
    `-`.
    """
    name = checked_text(name, "the name of a secret", empty=False)
    if not _NAME.fullmatch(name):
        raise refusal("the name of a secret has letters, digits, _, . and - only, 128 at most")
    return {"name": name}


class SecretTransport(BaseTransport):
    """The transport of `secret`, from this process's environment.

    A transport of your own, registered under `secret`, may use another source: `{"value": text}`, null when there
    is none.
    """

    __slots__ = ()

    async def perform(self, namespace: str, request: Any) -> dict[str, str | None]:
        """Return `{"value": ...}`, null when the variable is not set."""
        if namespace != SECRET:
            raise self._unknown(namespace)
        return {"value": os.environ.get(secret_request(field(request, "name", str))["name"])}


def secret_of(name: str, response: Any) -> str:
    """Return the value of `io.secret` for the response of its call; in format 1 the text of a placeholder."""
    if MARK in response:
        return Placeholder(placeholder_text(response[MARK], response["mac"]))
    return Secret.of(name, response["value"])


def checked(scope: AttemptScope, name: str, response: Any) -> str:
    """Return the value of a secret from the answer of a transport.

    Raises `OtherIoError`: `secret_not_set` when the secret does not exist, `io_transport_failed` when it is no
    text.
    """
    value = response.get("value") if isinstance(response, dict) else None
    if not value:
        text = f"the transport of secrets has no {name}"
        if isinstance(scope.transport(SECRET), SecretTransport):
            text = f"environment variable {name} is not set"
        raise OtherIoError(text, code=Code.SECRET_NOT_SET, details={"name": name})
    try:
        value.encode("utf-8")
    except (AttributeError, UnicodeEncodeError):
        raise OtherIoError(
            f"the value of the secret {name} is not UTF-8 text",
            code=Code.IO_TRANSPORT_FAILED,
            details={"name": name},
        ) from None
    return str(value)


async def sendable(scope: AttemptScope, call: Call) -> Any:
    """Return the sent form of a request.

    In format 1 placeholders are replaced by their values; those that an earlier process has read are read again.
    Raises `OtherIoError` (`secret_unavailable`) for a placeholder whose value was lost with its process.
    """
    known = scope.secrets
    if not isinstance(known, Format1RunSecrets):
        return canonical.decode(call.asked.sent)
    stored = call.asked.whole or call.data
    for name, mac in known.unknown(stored):
        if not await _read_again(scope, known, name, mac):
            raise OtherIoError(
                f"the value of the secret {name!r} is not known to this process",
                code=Code.SECRET_UNAVAILABLE,
                details={"name": name},
                hint="ask for it again in the state that uses it, or start a new run",
            )
    return known.restored(stored)


async def _read_again(scope: AttemptScope, known: Format1RunSecrets, name: str, mac: str) -> bool:
    """Read a secret of an earlier process of this run again; return False if none has that placeholder."""
    transport = scope.transport(SECRET)
    for fact in scope.log.history.facts.values() if transport is not None else ():
        if fact.namespace != SECRET or not isinstance(fact.outcome, FactValue):
            continue
        # only a name that this run has read: a foreign placeholder must not make us read the environment
        payload_id = fact.outcome.payload_id
        if canonical.decode_stored(payload_id, scope.log.load(payload_id)) == {MARK: name, "mac": mac}:
            assert transport is not None
            request = secret_request(name)
            known.read(name, checked(scope, name, await transport.perform(SECRET, request)), mac)
            return True
    return False


_NOTHING: Final = nullcontext()


def naming(scope: AttemptScope, call: Call) -> AbstractContextManager[None]:
    """Tell the transport, while it performs a call, which parts of the request hold a secret."""
    stand_ins = scope.secrets.run.stand_ins.values()
    whole = call.asked.whole
    if call.namespace != "http" or (whole is None and call.data == call.raw and not stand_ins):
        return _NOTHING
    return naming_parts(parts(canonical.decode(whole or call.data), stand_ins))


@contextmanager
def naming_parts(secret_parts: Sensitive) -> Iterator[None]:
    """Tell the transport, while it performs a call, that these parts of the request hold a secret."""
    token = sensitive.set(secret_parts)
    try:
        yield
    finally:
        sensitive.reset(token)
