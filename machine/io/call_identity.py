"""The identity of one call of `io`, which is the same live and in replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from machine.errors import OtherIoError
from machine.events import Artifact, ArtifactKind
from machine.ids import RESERVED_FACT_PREFIX, piece_key
from machine.io.attempt_scope import Payloads
from machine.io.transaction_answers import Place
from machine.secrets.stored_call import Asked
from machine.waits import WAIT_KINDS

VALUE_NAMESPACE: Final = "value"
"""Namespace of values that a handler obtained without `io`."""


@attrs.frozen
class Part:
    """The part of a stream that is asked for: its head (0), a piece, or with `closes` its end after `number` parts.

    `key` is that of the call as a whole.
    """

    key: str
    number: int = 0
    closes: bool = False


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
    keeps_all: bool = False
    """True when the success of any earlier attempt answers it, False when those since the last failed one do."""
    place: Place | None = None
    """The place of a call in a transaction of a database."""
    part: Part | None = None
    """The part to ask for, if the answer is a stream; None of a call that is answered as a whole."""

    said: Mapping[str, str] = attrs.field(factory=dict)
    """Info of its fact about why it was made."""
    own: bool = False
    """True when only its own attempt answers it, whatever earlier ones have recorded."""

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

    @property
    def continues(self) -> bool:
        """True when the call asks for more of a stream that was opened before."""
        return self.part is not None and (self.part.number > 0 or self.part.closes)

    @property
    def piece(self) -> int | None:
        """The number in the fact of this call, if that is a part of a stream."""
        return None if self.part is None or self.part.key == self.key else self.part.number

    def head(self) -> Call:
        """Return the call whose fact is the head of the stream that this one opens."""
        return attrs.evolve(self, key=piece_key(self.key, 0))

    def following(self, number: int, *, closes: bool = False) -> Call:
        """Return the call for a later part of the stream that this one opened."""
        asked = attrs.evolve(self.asked, mac=None, taught=())
        part = Part(self.key, number, closes)
        return attrs.evolve(self, key=piece_key(self.key, number), asked=asked, part=part, refusal=None)

    def end(self, mac: str | None) -> Call:
        """Return the call whose fact is the end of the stream of which this one asked for a part."""
        assert self.part is not None
        asked = attrs.evolve(self.asked, mac=mac)
        return attrs.evolve(self, key=self.part.key, part=None, asked=asked)

    def payloads(self) -> Payloads:
        """Return the artifact of the request, to which that of the response may be added."""
        payloads = Payloads()
        payloads.items[self.digest] = Artifact(self.digest, ArtifactKind.FACT_REQUEST, self.data)
        return payloads


@attrs.frozen
class IoResult:
    """The result of a call: the response (JSON), the key of its fact, the artifact of the response."""

    response: Any
    fact_key: str
    recorded_payload_id: str


def path_key(state_id: str, attempt: int, namespace: str, digest: str, occurrence: str) -> str:
    """Return the key of a call without an explicit one: its state and attempt, and its number among equal calls."""
    if namespace in WAIT_KINDS:  # without the attempt, so that a later one finds the answer
        return f"{RESERVED_FACT_PREFIX}{state_id}/{namespace.replace('.', '/')}/{digest}/{occurrence}"
    return f"{RESERVED_FACT_PREFIX}{state_id}/{attempt}/{namespace}/{digest}/{occurrence}"
