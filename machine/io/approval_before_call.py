"""Approvals that the engine asks for before a call is made: the same wait live, in a replay, and when it goes on.

The wait is named after the call, without its attempt, so that the answer holds for later attempts as well.
"""

from __future__ import annotations

from typing import Any, Final

from machine import canonical
from machine.events import WaitBegun
from machine.ids import RESERVED_FACT_PREFIX
from machine.io.call_identity import Call, path_key
from machine.secrets.stored_call import Asked

APPROVAL: Final = "wait.approval"
_BEFORE: Final = "/before"


def approval_key(call: Call, state_id: str) -> str:
    """Return the key of the wait for the approval of a call."""
    number = call.key.rpartition("/")[2] if call.key.startswith(RESERVED_FACT_PREFIX) else "key"
    return path_key(state_id, 0, APPROVAL, call.digest, f"{number}{_BEFORE}")


def is_before_call(begun: WaitBegun) -> bool:
    """Say whether a wait is for the approval of a call."""
    return begun.namespace == APPROVAL and begun.key.endswith(_BEFORE)


def approval_of(call: Call, state_id: str, request: Any) -> Call:
    """Return the wait for the approval of a call."""
    data = canonical.encode(request)
    return recorded_approval(call, state_id, canonical.artifact_id(data), request, data)


def recorded_approval(call: Call, state_id: str, digest: str, request: Any = None, data: bytes = b"") -> Call:
    """Return such a wait with the digest of its recorded request."""
    key = approval_key(call, state_id)
    return Call(key, APPROVAL, request, digest, data, effect=False, raw=data, asked=Asked(data, data))
