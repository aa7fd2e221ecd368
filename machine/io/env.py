"""Environment variables as recorded calls.

The environment must never be read anywhere else for a handler. A value becomes part of the recording: secrets do
not belong in it, and variables that open secrets are refused before this is called (`call_refusals.reserved`).
"""

from __future__ import annotations

import os
from typing import Any

from machine.errors import Code, OtherIoError
from machine.io.request_fields import checked_text, field, refusal
from machine.io.transport import BaseTransport


def env_request(name: str) -> dict[str, Any]:
    """Return the request for one environment variable (`env`); the response is `{"value": string or null}`.

    Raises `OtherIoError(io_invalid_request)` for a name no variable can have (POSIX.1-2017 section 8.1).
    """
    name = checked_text(name, "the name of an environment variable", empty=False)
    if "=" in name:
        raise refusal(f"the name of an environment variable holds an equals sign: {name!r}")
    return {"name": name}


class EnvTransport(BaseTransport):
    """The transport of `env`, from this process's environment."""

    __slots__ = ()

    async def perform(self, namespace: str, request: Any) -> dict[str, str | None]:
        """Return `{"value": ...}`, null when the variable is not set.

        Raises `OtherIoError(io_transport_failed)` when the value is not UTF-8, which JSON cannot hold.
        """
        if namespace != "env":
            raise self._unknown(namespace)
        name: str = env_request(field(request, "name", str))["name"]
        value = os.environ.get(name)
        if value is not None:
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:  # surrogateescape: bytes that did not decode
                raise OtherIoError(
                    f"the value of the environment variable {name} is not UTF-8",
                    code=Code.IO_TRANSPORT_FAILED,
                    details={"name": name},
                ) from None
        return {"value": value}
