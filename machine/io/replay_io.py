"""Replay IO: look up a call, never perform it.

It delivers recorded outcomes in the recorded order. It never touches the outside world, never sleeps, and never
falls through to live IO.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NoReturn, Protocol

import anyio
import attrs

from machine import canonical
from machine.errors import CodecError, MachineError, OtherIoError
from machine.events import EffectIntended, FactRecorded, FactValue, WaitBegun
from machine.ids import piece_key
from machine.io import clock
from machine.io.approval_before_call import approval_key, recorded_approval
from machine.io.attempt_scope import AttemptScope, Log
from machine.io.call_identity import Call, IoResult, path_key
from machine.io.call_refusals import no_transport, second_effect, uncertain_effect, undeclared
from machine.io.earlier_answers import earlier_answer
from machine.io.permission import APPROVAL
from machine.io.policy_verdicts import question, rule_of
from machine.io.provider import IoProvider
from machine.io.request_identity import RequestRules
from machine.io.stream_end import is_complete, pieces_of
from machine.io.transport import AbsentTransport
from machine.kernel.known_after_apply import is_known_later
from machine.kernel.reuse import answers, comparable, reusable
from machine.secrets.placeholder import TEXT, source_of
from machine.secrets.restore import SecretNeeded
from machine.secrets.stored_call import Asked


class Recording(Log, Protocol):
    """A log that compares emitted events with the recorded ones, and delays an emission until its turn."""

    def fact(self, key: str) -> FactRecorded | None:
        """Return the fact the open attempt recorded under a key, or None."""
        ...

    def takes(self, fact: FactRecorded) -> bool:
        """Accept a recorded fact and return True if it is the next event and its call was not given up."""
        ...

    def intended(self, key: str) -> EffectIntended | None:
        """Return the intent of an effect that the open attempt recorded under a key, or None."""
        ...

    def reused(self, key: str) -> str | None:
        """Return the key of the earlier fact that answered a call, if the recording names it."""
        ...

    def not_given_up(self, fact: FactRecorded) -> NoReturn:
        """Raise a divergence: the handler waits for a call that it had cancelled in the recording."""
        ...

    def failed_as(self, exc: MachineError) -> MachineError | None:
        """Return an error as it was recorded, if the open attempt failed with it."""
        ...

    def secret_needed(self, fact: FactRecorded, source: str) -> NoReturn:
        """Raise an error: an answer needs the true value of a secret, which this replay does not have."""
        ...

    def begins(self, key: str) -> WaitBegun | None:
        """Return the beginning of a wait that the open attempt recorded under a key, or None."""
        ...

    def asks(self, key: str) -> str | None:
        """Return the key of the approval that a policy asked for before the call with a key, None without one."""
        ...

    @property
    def suspends(self) -> bool:
        """True where the recorded attempt was put away."""
        ...

    def nothing_comes(self) -> NoReturn:
        """Raise a divergence: the handler waits for external input, where it did something else."""
        ...

    def make_way(self, fact: FactRecorded) -> None:
        """Let recorded events through whose emitters wait, before a fact whose caller cannot wait for its turn."""
        ...

    def compare_sealed(self, fact: FactRecorded, mac: str) -> None:
        """Raise a divergence if the request of a fact differs, by its keyed hash."""
        ...

    @property
    def stall_seconds(self) -> float:
        """The seconds to wait for a handler before it counts as stuck."""
        ...

    def unrecorded(self, call: Call, unused: Collection[str]) -> NoReturn:
        """Raise a divergence: the handler made a call that was never recorded.

        `unused` are the keys of facts of earlier attempts that might have answered it with another request.
        """
        ...


class ReplayIo(IoProvider):
    """The `io` of a replay, which answers every call from the recording or raises the divergence."""

    performs = False

    def __init__(
        self, scope: AttemptScope, recording: Recording, like: Callable[[str, bytes, bytes], bytes]
    ) -> None:
        """Take `like`, which returns the recorded request for a request, given also in its form without secrets."""
        super().__init__(scope)
        self._recording = recording
        self._like = like

    @functools.cached_property
    def _reused(self) -> dict[tuple[str, str], int]:
        return {}

    @functools.cached_property
    def _answered(self) -> set[str]:
        return set()

    def _asked(self, namespace: str, request: Any, raw: bytes, rules: RequestRules) -> Asked:
        asked = super()._asked(namespace, request, raw, rules)
        data = self._like(namespace, raw if asked.compared is None else asked.compared, asked.data)
        if data is asked.data and asked.refusal is None:
            return asked
        # a refused call has an error as its fact; nothing leaves the process that would be refused now
        return attrs.evolve(asked, data=data, refusal=None)

    def _is_secret(self, key: str) -> bool:
        recorded = self._recording.fact(key) is not None or key in self._scope.log.history.facts
        return not recorded and super()._is_secret(key)

    def _reserved(self, namespace: str, request: Any) -> None:
        """Refuse nothing: a call that was refused has an error as its fact."""

    def _is_effect(self, namespace: str, request: Any, key: str) -> bool:
        del (
            namespace,
            request,
        )  # a call is an effect if it was recorded as one, whatever a transport says today
        return self._recording.intended(key) is not None

    def _check_declared(self, namespace: str, request: Any) -> None:
        """Let every call through: for one without an outcome, `_refuse` determines whether it was refused."""

    def _check_one_effect(self, call: Call) -> None:
        """Let every call through, for the same reason."""

    def _refuse(self, call: Call) -> None:
        """Refuse a call that the recorded run refused: such a call left no fact.

        Without its transport, the refusal is taken from the recording; with it, the rules are applied again.
        """
        transport = self._scope.transport(call.namespace)
        if transport is None or isinstance(transport, AbsentTransport):
            for refusal in (undeclared(self._scope, call.namespace), second_effect(self._scope)):
                if (recorded := self._recording.failed_as(refusal)) is not None:
                    raise recorded
        if transport is None:
            raise no_transport(call)
        super()._check_declared(call.namespace, call.request)
        if self._applies and transport.is_effect(call.namespace, call.request):
            super()._check_one_effect(call)

    def _intended_through(self, call: Call) -> str | None:
        intent = self._recording.intended(call.key)
        # an intent of the oldest format names no namespace
        return call.namespace if intent is None or intent.namespace is not None else None

    def _before(self, call: Call) -> FactRecorded | OtherIoError | None:
        found = super()._before(call)
        if isinstance(found, FactRecorded):
            self._answered.add(found.key)
        return found

    def _earlier(self, call: Call) -> FactRecorded | OtherIoError | None:
        place = call.namespace, call.digest
        ignored = self._scope.log.history.ignored.has((self._scope.state.id, *place)) or call.ignored
        plain = call.data == call.raw and not call.asked.stands_in and b"secret" not in call.data
        if plain and not ignored:
            return super()._earlier(call)
        if self._recording.fact(call.key) is not None:
            return None  # the recording did not find it among earlier ones, by a difference that only the key shows
        found, history = earlier_answer(self._scope, call, recorded=True), self._scope.log.history
        if (reused := self._recording.reused(call.key)) is not None:
            return history.facts.get(reused)
        scope = self._scope
        earlier = answers(history, scope.state.id, *place, keeps_all=call.keeps_all)
        macs = [history.sealed.macs.get(fact.key, "") for fact in earlier]
        if found is not None or any(comparable(call.mac or "", mac) for mac in macs if call.mac is not None):
            return found
        # without the key only the recording shows which of them were made again
        at = self._reused.get(place, 0)
        self._reused[place] = at + 1
        return earlier[at] if at < len(earlier) else None

    async def _fact(self, call: Call, value: bytes | None = None) -> FactRecorded:
        # nearly always nothing races and the fact is the next of the recording: then nobody need wait for anybody
        fact = self._recording.fact(call.key) if call.part is None else self._recorded(call)
        if (
            fact is not None
            and (fact.namespace, fact.request_digest) == (call.namespace, call.digest)
            and not (call.effect or call.refusal or call.mac or call.taught)
            and not self._handing.waits(call)
            and self._recording.takes(fact)
        ):
            return fact
        return await super()._fact(call, value)

    def _recorded(self, call: Call) -> FactRecorded | None:
        """Return the recorded fact of a call, or of the part of a stream that it asks for."""
        recording, part = self._recording, call.part
        if part is None:
            return recording.fact(call.key)
        piece = None if part.closes else recording.fact(piece_key(part.key, part.number))
        whole = recording.fact(part.key)
        if whole is None or (piece is not None and not whole.may_repeat):
            return piece
        if piece is None and call.continues and isinstance(whole.outcome, FactValue):
            answer = self._response(whole)
            if pieces_of(answer) is None or is_complete(answer) == part.closes:
                return None  # it ended otherwise
        return whole

    async def _cleared(self, call: Call) -> OtherIoError | None:
        """Ask for the approval that the recorded run asked for before a call, and refuse nothing.

        Of a call that was not approved, the refusal is the recorded outcome.
        """
        state_id = self._scope.state.id
        if (begun := self._recording.begins(approval_key(call, state_id))) is not None:
            wait = recorded_approval(call, state_id, begun.request_digest)
            await self.waiter._fact_of_wait(wait)  # noqa: SLF001 - a part of this object
        return None

    async def ask_again(self, call: Call) -> None:
        """Wait for the approval that a policy asked for before a call, as it was recorded, if it did."""
        if (key := self._recording.asks(call.key)) is None:
            return
        asked = question(rule_of(key), call.namespace, call.request)
        await self._fact_of_wait(self._identify(APPROVAL, asked, key))

    async def _obtain(self, call: Call, *, given: bool = False) -> FactRecorded:
        if call.key in self._handing.in_flight:
            with self._handing.waiting(call):
                await self.ask_again(call)
        fact = self._recorded(call)
        if fact is None and call.continues:
            self._recording.unrecorded(call, ())
        if fact is None and not given and not call.effect:
            self._refuse(call)
        if fact is None or fact.request_digest != call.digest or fact.namespace != call.namespace:
            scope = self._scope
            reach = reusable(scope.log.history, scope.state.id, keeps_all=scope.keeps_all)
            self._recording.unrecorded(call, {fact.key for fact in reach} - self._answered)
        if call.asked.hides and call.mac is not None and not self._scope.secrets.run.shown:
            self._recording.compare_sealed(fact, call.mac)
        if call.effect and not call.continues:
            await self._intend(call)
        if fact.given_up:
            await self._be_cancelled(fact)
        await self._recording.emit([fact])
        if call.taught:
            self._scope.secrets.taught(fact, call.taught)
        return fact

    def is_answered(self, call: Call) -> bool:
        """Say whether the recording has the answer to a wait."""
        return self._recording.fact(call.key) is not None

    async def begin_wait(self, call: Call) -> None:
        """Begin a wait as it was recorded."""
        if self._recording.begins(call.key) is None:
            self._recording.unrecorded(call, ())
        if not self._is_begun(call):
            await self._scope.log.emit([self._begun(call)])

    async def _answer(self, call: Call) -> FactRecorded:
        recording = self._recording
        await self.begin_wait(call)
        fact = recording.fact(call.key)
        if fact is None:
            await self._park(call)
        if fact.given_up:
            await self._be_cancelled(fact)
        await recording.emit([fact])
        await self._handing.turn(call, self._scope.log.history.head_seq)
        return fact

    def _may_be_put_away(self) -> bool:
        return self._recording.suspends

    def _nothing_comes(self) -> None:
        self._recording.nothing_comes()

    def _slept_in_place(self, request: Mapping[str, Any]) -> bool:
        scope, digest = self._scope, clock.sleep_digest(request)
        occurrence = scope.counts.occurrence(clock.SLEEP, digest, reconciling=scope.reads_only)
        scope.counts.uncount(clock.SLEEP, digest, reconciling=scope.reads_only)
        key = path_key(scope.state.id, scope.attempt, clock.SLEEP, digest, occurrence)
        return self._recording.fact(key) is not None or super()._slept_in_place(request)

    async def _be_cancelled(self, fact: FactRecorded) -> NoReturn:
        """Wait to be cancelled: the recorded handler abandoned this call, and only the handler can do so again."""
        try:
            with anyio.move_on_after(self._recording.stall_seconds):
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._recording.emit([fact])
            raise
        self._recording.not_given_up(fact)

    async def look_up_effect(
        self, intent: EffectIntended, look_up: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> None:
        """Take over what the recorded attempt found out about an effect on a database."""
        del look_up
        fact = self._recording.fact(intent.key)
        if fact is not None:
            await self._recording.emit([fact])
        elif (failed := self._recording.failed_as(uncertain_effect(self._scope, intent))) is not None:
            raise failed

    def _result(self, fact: FactRecorded) -> IoResult:
        try:
            return super()._result(fact)
        except SecretNeeded as exc:
            self._recording.secret_needed(fact, exc.source)

    def _read(self, fact: FactRecorded, decode: Callable[[Any], Any]) -> Any:
        response = self._result(fact).response
        if is_known_later(response):
            return response
        try:
            return decode(response)
        except CodecError:
            for found in TEXT.finditer(canonical.encode(response).decode()):
                self._recording.secret_needed(fact, source_of(found[0]) or "")
            raise

    def _make_way(self, call: Call) -> None:
        if (fact := self._recording.fact(call.key)) is not None:
            self._recording.make_way(fact)

    def _has_version(self, call: Call) -> bool:
        return self._recording.fact(call.key) is not None

    async def _record(self, call: Call, value: bytes) -> FactRecorded:
        del value  # the recorded one counts
        return await self._obtain(call, given=True)
