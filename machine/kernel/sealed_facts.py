"""The facts of a run that have sealed secrets, folded from the `info` of their events."""

from __future__ import annotations

from typing import Final

import attrs

from machine import canonical
from machine.errors import CodecError
from machine.events import Entry

SECRET_PAYLOAD: Final = "secret_payload_id"  # noqa: S105 - the name of a member
"""Key of `info` on a fact: the artifact with the true values of the placeholders in its payload."""

REQUEST_MAC: Final = "request_mac"
"""Key of `info` on a fact: the keyed hash of its request as it was sent, if the request held a secret."""

REQUEST_SECRETS: Final = "request_secrets_id"
"""Key of `info` on a fact: the artifact with the secrets that first appeared in this attempt with its request."""

REUSED: Final = "reused"
"""Key of `info` on the end of an attempt: the earlier facts that the attempt reused, by the keys of the calls.

Only those are listed for which the secrets in the request decided the choice: without the key of the store, a
replay cannot tell them apart.
"""


def reused(entry: Entry) -> dict[str, str]:
    """Return the reused facts that the end of an attempt names; none when malformed, as no digest covers them."""
    text = entry.info.get(REUSED)
    if not isinstance(text, str):
        return {}
    try:
        said = canonical.decode(text.encode())
    except (CodecError, UnicodeEncodeError):
        return {}
    found = said if isinstance(said, dict) else {}
    return {key: other for key, other in found.items() if isinstance(other, str)}


@attrs.define
class SealedFacts:
    """The seals and keyed hashes of a run's facts, by the keys of the facts."""

    payloads: dict[str, str] = attrs.field(factory=dict)
    """The artifacts of true values."""
    requests: dict[str, str] = attrs.field(factory=dict)
    """The artifacts with secrets learned from requests. No call is answered with them, so none of them is ever
    lost."""
    macs: dict[str, str] = attrs.field(factory=dict)
    """The keyed hashes of requests that held a secret."""
    lost: set[str] = attrs.field(factory=set)
    """Facts that a later driver could not open and that therefore answer no call."""

    def note(self, entry: Entry, key: str, *, final: bool) -> None:
        """Fold the entry of a fact; a lost fact stays lost until a final outcome replaces it."""
        if final:
            self.lost.discard(key)
        for name, known in (
            (SECRET_PAYLOAD, self.payloads),
            (REQUEST_SECRETS, self.requests),
            (REQUEST_MAC, self.macs),
        ):
            if isinstance(text := entry.info.get(name), str):
                known[key] = text
            elif known:
                known.pop(key, None)

    def seals_of(self, key: str) -> list[tuple[str, bool]]:
        """Return the seals of a fact, each with whether it belongs to the request."""
        found = ((self.requests.get(key), True), (self.payloads.get(key), False))
        return [(seal_id, asked) for seal_id, asked in found if seal_id is not None]

    def lose(self) -> None:
        """Mark all sealed facts as lost."""
        self.lost |= self.payloads.keys()
