"""The facts of a run whose stored answers have placeholders, as far as the info of their events tells."""

from __future__ import annotations

from typing import Final

import attrs

from machine.events import Entry

__all__ = ["REQUEST_MAC", "SECRET_PAYLOAD", "SealedFacts"]

SECRET_PAYLOAD: Final = "secret_payload_id"  # noqa: S105 - the name of a member
"""Where the info of a fact names the artifact of the true values that its payload has placeholders for."""

REQUEST_MAC: Final = "request_mac"
"""Where the info of a fact has the keyed hash of its request as it was sent, if that held a secret."""


@attrs.define
class SealedFacts:
    """What is sealed beside the facts of a run, by the keys of the facts."""

    payloads: dict[str, str] = attrs.field(factory=dict)
    """The artifacts of true values."""
    macs: dict[str, str] = attrs.field(factory=dict)
    """The keyed hashes of requests that held a secret."""
    lost: set[str] = attrs.field(factory=set)
    """Those that a later driver could not open: they answer no call any more."""

    def note(self, entry: Entry, key: str) -> None:
        """Take in what the entry of a fact says."""
        self.lost.discard(key)
        for name, known in ((SECRET_PAYLOAD, self.payloads), (REQUEST_MAC, self.macs)):
            if isinstance(text := entry.info.get(name), str):
                known[key] = text
            elif known:
                known.pop(key, None)

    def lose(self) -> None:
        """Note that none of them can be opened."""
        self.lost |= self.payloads.keys()
