"""Preview IO: finds the request that a skipped state would send, without sending it.

Safe standard reads are performed, because the request of an effect may depend on them. The first other call ends
the preview. Nothing here may reach a store: a preview keeps its data in memory and discards it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from machine import canonical
from machine.events import ArtifactKind, Event, FactRecorded, FactValue
from machine.io.attempt_scope import Payloads, stored_seal
from machine.io.call_identity import Call
from machine.io.call_refusals import no_transport
from machine.io.clock import SLEEP
from machine.io.files import OPEN
from machine.io.live_io import LiveIo
from machine.io.policy_verdicts import host_of, judge
from machine.io.step_transport import STEP
from machine.kernel.history import History
from machine.kernel.outputs import Output
from machine.kernel.published import Published
from machine.policy import ALLOW
from machine.secrets.secret_value import SECRET
from machine.waits import WAITED_FOR

_READS: Final = frozenset({"http", "file.read", OPEN, "clock.now", "random.bytes", "env", SECRET})
_TIMER: Final = "wait.timer"

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 section 9.2.1


class PreviewEnd(BaseException):
    """The end of a preview. It is no `Exception`, so that a broad `except` does not swallow it.

    `effect` is the call that would have been the first effect; without one, `reason` says which call could not be
    made.
    """

    def __init__(self, effect: Call | None, reason: str = "") -> None:
        super().__init__(reason)
        self.effect = effect
        self.reason = reason


class PreviewLog:
    """A substitute for a log: it knows the history of the run, and holds new facts in memory."""

    def __init__(self, history: History, load: Callable[[str], bytes]) -> None:
        self.history = copy.copy(history)
        self.history.facts = dict(history.facts)
        self.history.published = Published(dict(history.published.counts))
        self.floor_ms = 0
        self.ended: PreviewEnd | None = None
        self._load = load
        self._payloads = Payloads()

    async def emit(
        self, events: Sequence[Event], payloads: Payloads | None = None, info: Mapping[str, str] | None = None
    ) -> None:
        """Store the facts, so that the same key gets the same answer; other events are ignored."""
        self._payloads.items.update(payloads.items if payloads is not None else {})
        for event in events:
            if isinstance(event, FactRecorded):
                self.history.facts[event.key] = event
                self.history.published.note(event, info or {})

    async def durable(self, seq: int | None = None) -> None:
        """Return at once: nothing here outlives the preview."""

    def flush(self) -> None:
        """Do nothing: nothing here outlives the preview."""

    def abort(self) -> BaseException | None:
        """Return the exception that ended the preview, or None: a handler may suppress it and continue."""
        return self.ended

    def load(self, artifact_id: str) -> bytes:
        """Return an artifact of the preview or of the run."""
        held = self._payloads.items.get(artifact_id)
        return held.data if held is not None else self._load(artifact_id)

    def put(self, kind: str, data: bytes) -> str:
        """Return the id of an artifact, which a preview does not store."""
        del kind
        return canonical.artifact_id(data)

    def output(self, name: str) -> Output | None:
        """Return the output that has a name in the run, or None."""
        return self.history.outputs.by_name.get(name)

    def now_ms(self) -> int:
        """Return 0: a preview waits for no time."""
        return 0

    def seal(self, key: str) -> bytes | None:
        """Return the seal of a fact of the run: None without one, empty when it is missing."""
        artifact_id = self.history.sealed.payloads.get(key)
        return None if artifact_id is None else stored_seal(self._load, artifact_id)

    def end(self, effect: Call | None, reason: str = "") -> NoReturn:
        """End the preview. The first end counts, even if the handler suppresses it."""
        self.ended = self.ended or PreviewEnd(effect, reason)
        raise self.ended


class PreviewIo(LiveIo):
    """The `io` of a preview, which performs safe reads and ends the preview at the first other call."""

    async def _answer(self, call: Call) -> FactRecorded:
        log = self._scope.log
        assert isinstance(log, PreviewLog)
        if call.namespace != _TIMER:
            log.end(None, f"it waits for {WAITED_FOR[call.namespace]}")
        payloads = call.payloads()  # the rest does not depend on having waited
        over = FactValue(payloads.add(ArtifactKind.FACT_PAYLOAD, canonical.encode({"at_ms": 0})))
        return await self._emit(call, over, payloads)

    async def _obtain(self, call: Call) -> FactRecorded:
        if call.continues:
            return await self._obtain_part(call)
        scope = self._scope
        log = scope.log
        assert isinstance(log, PreviewLog)
        transport = scope.transport(call.namespace)
        if transport is None:
            raise no_transport(call)
        tags, host = tuple(map(str, scope.state.meta.tags)), host_of(call.namespace, call.request)
        effect = self._applies and transport.is_effect(call.namespace, call.request)
        verdict = judge((scope.run.config.policy,), call.namespace, host, tags, effect=effect)
        if verdict.verdict != ALLOW:
            log.end(
                None, f"the policy rule {verdict.rule} says {verdict.verdict} of a call of {call.namespace}"
            )
        if call.namespace == "exec" or transport.is_effect(call.namespace, call.request):
            log.end(call)
        payloads = call.payloads()
        if call.namespace == SLEEP:  # the rest does not depend on having waited
            nothing = FactValue(payloads.add(ArtifactKind.FACT_PAYLOAD, canonical.encode(None)))
            return await self._emit(call, nothing, payloads)
        if not _is_safe(call):
            asked = call.request["function"] if call.namespace == STEP else call.namespace
            log.end(None, f"it asks {asked}, which only a standard read is known to do without effect")
        outcome, info = await self._perform(transport, call, payloads)
        return await self._emit_first(call, outcome, payloads, info)


def _is_safe(call: Call) -> bool:
    request: Any = call.request
    return call.namespace in _READS and (
        call.namespace != "http" or str(request.get("method")).upper() in _SAFE_METHODS
    )
