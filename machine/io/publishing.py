"""Publishing: values that a handler appends to streams of its run, which anybody can read while it goes on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

import attrs

from machine import canonical
from machine.events import ArtifactKind, FactRecorded, FactValue
from machine.ids import StreamName
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.io.call_identity import Call, IoResult
from machine.kernel.published import PUBLISH, STREAM
from machine.watch.watch import engine_at_work

OFFSET: Final = "offset"
"""Field of the fact's value with the number of the value in its stream."""

VALUE: Final = "value"
"""Field of the fact's request with the published value."""


class Publishing(ABC):
    """The part of `io` that publishes."""

    _scope: AttemptScope

    @abstractmethod
    def _identify(
        self, namespace: str, request: Any, fact_key: str | None, *, keeps: bool | None = None
    ) -> Call:
        """Return the identified call."""

    @abstractmethod
    async def _fact(self, call: Call, value: bytes | None = None) -> FactRecorded:
        """Return the one fact of a call for all of its callers."""

    @abstractmethod
    def _result(self, fact: FactRecorded) -> IoResult:
        """Return the recorded outcome of a fact, or raise its error."""

    async def publish(self, stream: str, value: Any) -> int:
        """Append a value (JSON) to a stream of this run, and return its offset there, which counts from 1.

        `machine.read_stream` and `machine stream` read it, also while the run goes on. A later attempt that
        publishes the same value again gets the offset of the first time, and a replay publishes nothing. Secrets in
        the value are replaced by placeholders.
        """
        name = str(StreamName(stream))
        with engine_at_work():
            self._scope.check_open("published to", name)
            secrets = self._scope.secrets
            secrets.refuse_in_key("the name of a stream", name)
            said = secrets.said(canonical.decode(canonical.encode(value)))
            call = self._identify(PUBLISH, {STREAM: name, VALUE: said}, None, keeps=True)
            # a placeholder may stand in it, since the value is not sent anywhere
            fact = await self._fact(attrs.evolve(call, refusal=None), b"")
            offset: int = self._result(fact).response[OFFSET]
            return offset


def offset_of(call: Call, scope: AttemptScope, payloads: Payloads) -> FactValue:
    """Return the outcome of a call that publishes: the next offset of its stream."""
    offset = scope.log.history.published.next_offset(call.request[STREAM])
    return FactValue(payloads.add(ArtifactKind.FACT_PAYLOAD, canonical.encode({OFFSET: offset})))
