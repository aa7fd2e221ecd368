"""The IO of a fork: calls that its shared past answers are looked up, all others are performed.

Each answer becomes a fact of the fork itself, so that replaying or resuming it does not need the other run. An
effect in the shared past is never sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from machine import canonical
from machine.errors import Code, OtherIoError
from machine.events import ArtifactKind, FactOutcome, FactRecorded, FactValue
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.io.call_identity import Call
from machine.io.call_refusals import ambiguous, differs_in_ignored, lost_answer
from machine.io.live_io import LiveIo
from machine.io.stream_end import end_of
from machine.kernel.published import PUBLISH
from machine.kernel.sealed_facts import SECRET_PAYLOAD
from machine.kernel.transactions import Unit


class Past(Protocol):
    """The shared past of a fork, as far as `io` needs it."""

    def answer(
        self, call: Call, state_id: str, *, keeps_all: bool, alike: int
    ) -> tuple[int, FactRecorded] | None:
        """Return the fact that answers a call, and its seq in the shared past; None when there is none.

        `alike` counts the earlier calls of its attempt with the same secrets.
        """
        ...

    def wait_answer(self, call: Call) -> tuple[int, FactRecorded] | None:
        """Return the answer to a wait for external input, and its seq in the shared past; None without one."""
        ...

    @property
    def shut(self) -> bool:
        """True if nothing goes outside, so that the calls of a transaction may be answered one by one."""
        ...

    def transactions(self, state_id: str) -> Iterable[Unit]:
        """Return the transactions of a state on databases, in order."""
        ...

    def seq_of(self, fact: FactRecorded) -> int:
        """Return the seq of a fact of such a transaction."""
        ...

    def ambiguous(self, call: Call, state_id: str) -> bool:
        """Say whether a recorded effect differs from a call only in its secrets."""
        ...

    def differs_in_ignored(self, call: Call, state_id: str) -> bool:
        """Say whether calls of one attempt with the request of a call differed only in what is not compared."""
        ...

    def ignored(self, seq: int) -> Mapping[str, str]:
        """Return the info of the fact at a seq about what was not compared."""
        ...

    def sealed(self, seq: int) -> tuple[str, bytes] | None:
        """Return the seal of the fact at a seq, and its artifact's id; None when it has no seal."""
        ...

    def parts(self, seq: int, end: FactRecorded) -> list[tuple[int, FactRecorded]]:
        """Return the head and the pieces of the stream that a fact ended, each with its seq."""
        ...

    def was_effect(self, key: str) -> bool:
        """Say whether an effect was intended under a key."""
        ...

    def sent(self, state_id: str, namespace: str, idempotency_key: str) -> str | None:
        """Return the digest of the first request that a state sent under an idempotency key, None without one."""
        ...

    def took(self, seq: int, own_seq: int) -> None:
        """Record that the fact at a seq of the shared past answered a call, as the fork's own fact."""
        ...


class SharedIo(LiveIo):
    """The `io` of a fork, which answers a call from the shared past if a fact exists, and else performs it."""

    def __init__(self, scope: AttemptScope, past: Past) -> None:
        super().__init__(scope)
        self._past = past
        self._streams: dict[str, tuple[list[tuple[int, FactRecorded]], str | None]] = {}
        """The parts of the shared past to be read, with the keyed hash of the request, by the keys of the calls."""

    def _is_effect(self, namespace: str, request: Any, key: str) -> bool:
        if self._scope.transport(namespace) is None:
            return self._past.was_effect(key)
        return super()._is_effect(namespace, request, key)

    async def _obtain(self, call: Call) -> FactRecorded:
        if call.continues:
            return await self._shared_part(call) or await super()._obtain(call)
        return await self._shared(call) or await self._refused(call) or await super()._obtain(call)

    async def _record(self, call: Call, value: bytes) -> FactRecorded:
        if call.namespace == PUBLISH:  # its streams are its own, with offsets of their own
            return await super()._record(call, value)
        return await self._shared(call) or await super()._record(call, value)

    async def _answer(self, call: Call) -> FactRecorded:
        found = None if self._is_begun(call) else self._past.wait_answer(call)
        if found is None:
            return await super()._answer(call)
        seq, shared = found
        fact = await self._answered_at_once(call, shared.outcome)
        self._past.took(seq, self._scope.log.history.head_seq)
        await self._handing.turn(call, self._scope.log.history.head_seq)
        return fact

    async def _answered_at_once(self, call: Call, outcome: FactOutcome) -> FactRecorded:
        """Record a wait and its answer."""
        await self._scope.log.emit([self._begun(call)], call.payloads(), call.said)
        return await self._emit(call, outcome, Payloads())

    async def _shared(self, call: Call) -> FactRecorded | None:
        if call.place is not None and not self._past.shut:
            return await self._shared_in_transaction(call)
        alike = 0
        if call.mac is not None:
            alike = self._scope.counts.sent_before(call.namespace, call.digest, call.mac)
        found = self._past.answer(call, self._scope.state.id, keeps_all=call.keeps_all, alike=alike)
        if found is None:
            if call.effect and self._past.ambiguous(call, self._scope.state.id):
                return await self._refused_to_repeat(call, ambiguous(call))
            if call.effect and self._past.differs_in_ignored(call, self._scope.state.id):
                return await self._refused_to_repeat(call, differs_in_ignored(call))
            return None
        parts = [*self._past.parts(*found), found]
        is_stream = len(parts) > 1
        if (is_stream and call.part is None) or not all(self._opens(*each) for each in parts):
            return await self._refused_to_repeat(call, lost_answer(call)) if call.effect else None
        (seq, shared), *left = parts
        if is_stream:
            self._streams[call.key] = left, call.mac
        fact = await self._settled(call, shared.outcome, self._sealed_info(seq), head=is_stream)
        self._past.took(seq, self._scope.log.history.head_seq)
        return fact

    async def _shared_in_transaction(self, call: Call) -> FactRecorded | None:
        """Return the answer of a transaction of the shared past, which is taken as a whole or not at all."""
        assert call.place is not None
        scope = self._scope
        shared = scope.databases.shared.answer(
            self._past.transactions(scope.state.id), call.place, call.digest
        )
        if shared is None:
            return None
        seq = self._past.seq_of(shared)
        if not self._opens(seq, shared):
            return await self._refused_to_repeat(call, lost_answer(call)) if call.effect else None
        fact = await self._settled(call, shared.outcome, self._sealed_info(seq))
        self._past.took(seq, scope.log.history.head_seq)
        return fact

    async def _shared_part(self, call: Call) -> FactRecorded | None:
        """Return the next part of a stream of the shared past; None to read or close one of the fork's own."""
        assert call.part is not None
        if call.part.key not in self._streams:
            return None
        left, mac = self._streams[call.part.key]
        end = call.end(mac)
        if call.part.closes:
            payloads = Payloads()
            data = canonical.encode(end_of(call.part.number, complete=False))
            return await self._emit(end, FactValue(payloads.add(ArtifactKind.FACT_PAYLOAD, data)), payloads)
        seq, shared = left.pop(0)
        own = call if shared.piece is not None else end
        fact = await self._emit(own, shared.outcome, Payloads(), self._sealed_info(seq))
        self._past.took(seq, self._scope.log.history.head_seq)
        return fact

    def _opens(self, seq: int, shared: FactRecorded) -> bool:
        sealed = self._past.sealed(seq)
        return sealed is None or self._scope.secrets.run.opens(sealed[1], shared) is not None

    def _sealed_info(self, seq: int) -> dict[str, str]:
        sealed = self._past.sealed(seq)
        return {**self._past.ignored(seq), **({} if sealed is None else {SECRET_PAYLOAD: sealed[0]})}

    async def _refused(self, call: Call) -> FactRecorded | None:
        """Refuse another effect under an idempotency key that the shared past has used for a different one.

        The receiver would take the two for the same, and the fork would receive an answer to a request it never
        made.
        """
        scope, key = self._scope, self._scope.idempotency_key
        transport = scope.transport(call.namespace)
        if not call.effect or key is None or transport is None or not transport.one_effect_per_key:
            return None
        sent = self._past.sent(scope.state.id, call.namespace, key)
        if sent in {None, call.digest}:
            return None
        if transport.with_idempotency_key(call.namespace, call.request, key) == call.request:
            return None
        exc = OtherIoError(
            f"the run that this one was forked from sent another effect of {scope.state.id} with its "
            f"idempotency key {key!r}",
            code=Code.IDEMPOTENCY_KEY_REUSED,
        )
        return await self._refused_to_repeat(call, exc)
