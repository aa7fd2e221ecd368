"""The identity of one call of `io`, which is the same live and in replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from machine.errors import OtherIoError
from machine.events import Artifact, ArtifactKind
from machine.ids import RESERVED_FACT_PREFIX
from machine.io.attempt_scope import Payloads
from machine.secrets.call_values import Asked


@attrs.frozen
class Call:
    """One identified call: everything its fact will contain except the outcome."""

    key: str
    namespace: str
    request: Any
    digest: str
    data: bytes
    effect: bool
    raw: bytes
    """The request as the handler made it, without what is not compared."""
    asked: Asked
    """The request in its stored and its sent form."""
    refusal: OtherIoError | None = None
    """The error of a call that must not be made."""

    @property
    def ignored(self) -> Mapping[str, str]:
        """The info of a call with parts that are not compared, empty for any other."""
        return self.asked.ignored or {}

    @property
    def mac(self) -> str | None:
        """The keyed hash of the sent request, if it holds a secret."""
        return self.asked.mac

    @property
    def taught(self) -> Sequence[tuple[str, str, bool]]:
        """The secrets that appear in this request for the first time in its attempt."""
        return self.asked.taught

    def payloads(self) -> Payloads:
        """Return the artifact of the request, to which that of the response may be added."""
        payloads = Payloads()
        payloads.items[self.digest] = Artifact(self.digest, ArtifactKind.FACT_REQUEST, self.data)
        return payloads


def path_key(state_id: str, attempt: int, namespace: str, digest: str, occurrence: str) -> str:
    """Return the key of a call without an explicit one: its state and attempt, and its number among equal calls."""
    return f"{RESERVED_FACT_PREFIX}{state_id}/{attempt}/{namespace}/{digest}/{occurrence}"
