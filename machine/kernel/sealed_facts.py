"""The facts of a run whose stored answers have placeholders, as far as the info of their events tells."""

from __future__ import annotations

from typing import Final

import attrs

from machine import canonical
from machine.errors import CodecError
from machine.events import Entry

__all__ = ["REQUEST_MAC", "REUSED", "SECRET_PAYLOAD", "SealedFacts", "reused"]

SECRET_PAYLOAD: Final = "secret_payload_id"  # noqa: S105 - the name of a member
"""Where the info of a fact names the artifact of the true values that its payload has placeholders for."""

REQUEST_MAC: Final = "request_mac"
"""Where the info of a fact has the keyed hash of its request as it was sent, if that held a secret."""

REUSED: Final = "reused"
"""Where the info of an attempt's end has the earlier facts that answered its calls, by the calls' keys, where
only the secrets of their requests told which."""


def reused(entry: Entry) -> dict[str, str]:
    """Return what the end of an attempt says of the facts that it reused, nothing where it says nonsense."""
    text = entry.info.get(REUSED)
    try:
        said = canonical.decode(text.encode()) if isinstance(text, str) else {}
    except (CodecError, UnicodeEncodeError):
        return {}
    found = said if isinstance(said, dict) else {}
    return {key: other for key, other in found.items() if isinstance(other, str)}


@attrs.define
class SealedFacts:
    """What is sealed beside the facts of a run, by the keys of the facts."""

    payloads: dict[str, str] = attrs.field(factory=dict)
    """The artifacts of true values."""
    macs: dict[str, str] = attrs.field(factory=dict)
    """The keyed hashes of requests that held a secret."""
    lost: set[str] = attrs.field(factory=set)
    """Those that a later driver could not open: they answer no call any more."""

    def note(self, entry: Entry, key: str, *, final: bool) -> None:
        """Take in what the entry of a fact says; only a final outcome takes the place of one that is lost."""
        if final:
            self.lost.discard(key)
        for name, known in ((SECRET_PAYLOAD, self.payloads), (REQUEST_MAC, self.macs)):
            if isinstance(text := entry.info.get(name), str):
                known[key] = text
            elif known:
                known.pop(key, None)

    def lose(self) -> None:
        """Note that none of them can be opened."""
        self.lost |= self.payloads.keys()
