"""The `io` of a handler: the only door to the outside world.

Everything here is the same live and in replay: the identity of a call (path, not position), the calls that a state
may make, and the earlier facts that it reuses. `live_io` performs calls; `replay_io` looks up a recording.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from machine import canonical
from machine.config import IoMode
from machine.errors import Code, IoError, OtherIoError
from machine.events import EffectIntended, FactError, FactRecorded, FactValue
from machine.ids import RESERVED_FACT_PREFIX, FactKey
from machine.ignore import Ignore
from machine.io.attempt_scope import AttemptScope, is_namespace
from machine.io.call_identity import VALUE_NAMESPACE, Call, IoResult, Part, path_key
from machine.io.call_refusals import reserved, second_effect, secret_key, too_large, undeclared
from machine.io.client_sessions import ClientSessions
from machine.io.earlier_answers import earlier_answer, named_answer
from machine.io.lent_work import LentWork
from machine.io.outcome_turns import Flight
from machine.io.polling import Polling
from machine.io.publishing import Publishing
from machine.io.redirected_effects import follows_redirect
from machine.io.request_identity import RequestRules
from machine.io.spending import SpendCalls
from machine.io.standard_calls import StandardCalls
from machine.io.stream_calls import StreamCalls
from machine.io.versions import Versions
from machine.kernel.context import MAX_VALUE_BYTES
from machine.kernel.known_after_apply import is_known_later, marked_by, substitute
from machine.secrets.stored_call import Asked, unopened
from machine.state import SideEffects
from machine.waits import WAIT_KINDS
from machine.watch.unprofiled import unprofiled
from machine.watch.watch import engine_at_work

if TYPE_CHECKING:
    from machine.io.httpx_transport import HttpxTransport, Options


class IoProvider(StandardCalls, StreamCalls, Polling, ClientSessions, Publishing, SpendCalls, Versions):
    """A handler's access to the outside world. Every method is awaited (in a plain-function handler: just called).

    Every call is recorded as a fact, errors included; calls of one attempt may be awaited concurrently.
    """

    def __init__(self, scope: AttemptScope) -> None:
        self._scope = scope
        self._keyed: str | None = None

    def lends(self, *, concurrent: bool) -> LentWork | None:  # noqa: ARG002 - for those that lend
        """Return the work that the event loop may lend to the threads of the handler, None if it lends none."""
        return None

    @abstractmethod
    async def _obtain(self, call: Call) -> FactRecorded:
        """Return the fact of a call that has none yet; it is in the log when this returns."""

    @abstractmethod
    async def _record(self, call: Call, value: bytes) -> FactRecorded:
        """Return the fact of a value the handler itself gives; it is in the log when this returns."""

    def _intended_through(self, call: Call) -> str | None:
        """Return the namespace to record in the intent of a call."""
        return call.namespace

    def _asked(self, namespace: str, request: Any, raw: bytes, rules: RequestRules) -> Asked:
        """Return the recorded form of a request, which is also compared and matched, given its canonical bytes."""
        if namespace in WAIT_KINDS:  # a question that nobody reads back
            data = canonical.encode(self._scope.secrets.said(request))
            return Asked(data, data)
        asked = unprofiled(self._scope.secrets.asked, namespace, raw)
        if namespace != "http":
            return asked
        return unprofiled(rules.asked, request, raw, asked, self._scope.secrets)

    def _reserved(self, namespace: str, request: Any) -> OtherIoError | None:
        """Return the refusal of a call that asks for the key of the store, None for any other call."""
        return reserved(self._scope, namespace, request)

    def _is_effect(self, namespace: str, request: Any, key: str) -> bool:
        """Say whether a call of a state that applies side effects may change the outside world."""
        del key
        transport = self._scope.transport(namespace)
        return transport is not None and transport.is_effect(namespace, request)

    async def call(
        self, namespace: str, request: Any, fact_key: str | None = None, *, ignore: Ignore | None = None
    ) -> IoResult:
        """Make a call through the transport registered for `namespace` and return its recorded outcome.

        `request` is any JSON value. `fact_key` names the fact: single-assignment for the run, so a later call with
        the same key and request returns the same value without another request. `ignore` says which parts of an
        `http` request are not compared. Raises the recorded `IoError` when the call failed.
        """
        rules = self._scope.run.requests.of_call(namespace, ignore)
        with engine_at_work():
            call = self._identify(namespace, request, fact_key, rules=rules)
            result: IoResult = self._whole(await self._fact(call))
            return result

    async def record_value(self, key: str, value: Any) -> Any:
        """Record `value` (JSON) as the fact `key`, and return the value recorded first under that key.

        It is for a value that the handler obtained without `io`: in replay it is the recorded one.
        """
        data = canonical.encode(value)
        with engine_at_work():
            call = self._identify(VALUE_NAMESPACE, {"key": key}, key)
            return self._result(await self._fact(call, data)).response

    def get_recorded_fact(self, key: str) -> Any:
        """Return the response recorded so far under an explicit fact key, or None.

        A call that has not returned yet has none.
        """
        fact = self._scope.log.history.facts.get(str(FactKey(key)))
        if fact is None or fact.key in self._handing.in_flight or not isinstance(fact.outcome, FactValue):
            return None
        with engine_at_work():
            return self._whole(fact).response

    def httpx_transport(self, **options: Unpack[Options]) -> HttpxTransport:
        """Return a transport for an httpx client: every request of any library on it becomes a call of `http`.

        See `Options` for further settings.
        """
        from machine.io.httpx_transport import transport_of  # noqa: PLC0415 - only those who use it pay for it

        return transport_of(self.open_client_stream, self.sensitive, self._scope.run.requests, options)

    def _identify(
        self,
        namespace: str,
        request: Any,
        fact_key: str | None,
        *,
        keeps: bool | None = None,
        rules: RequestRules | None = None,
        opens: bool = False,
    ) -> Call:
        scope = self._scope
        scope.check_open("called", namespace)
        if not is_namespace(namespace):
            raise OtherIoError(f"{namespace!r} is not a namespace", code=Code.IO_INVALID_REQUEST)
        if scope.state.meta.side_effects is SideEffects.PURE:
            raise OtherIoError(
                f"state {scope.state.id} is declared pure and calls {namespace}",
                code=Code.SIDE_EFFECT_NOT_DECLARED,
                hint='declare side_effects="read_only_io"',
            )
        self._check_declared(namespace, request)
        raw = canonical.encode(request)
        asked = self._asked(namespace, request, raw, rules or scope.run.requests)
        data, refused = asked.data, asked.refusal or self._reserved(namespace, request)
        if data is not raw:
            request = canonical.decode(data)
        if len(data) > MAX_VALUE_BYTES:
            raise too_large(f"the request to {namespace}", data)
        digest = canonical.artifact_id(data)
        key, refusal = None, refused
        if fact_key is not None:
            key = str(FactKey(fact_key))
            if self._is_secret(key):  # and the fact of its refusal has no key of the caller's
                key, refusal = None, refusal or secret_key()
        if key is None:
            occurrence = scope.counts.occurrence(namespace, digest, reconciling=scope.reads_only)
            key = path_key(scope.state.id, scope.attempt, namespace, digest, occurrence)
        # in a run in replay mode nothing leaves the process, so nothing is intended
        may = self._applies and scope.run.config.io_mode is not IoMode.REPLAY
        effect = may and refusal is None and self._is_effect(namespace, request, key)
        keeps, made = scope.keeps_all if keeps is None else keeps, asked.compared or raw
        part = Part(key) if opens else None
        call = Call(key, namespace, request, digest, data, effect, made, asked, refusal, keeps, None, part)
        if effect:
            self._check_one_effect(call)
        return call

    def _is_secret(self, key: str) -> bool:
        """Say whether a fact key must not be stored because it holds a secret."""
        return self._scope.secrets.in_key(key)

    @property
    def _applies(self) -> bool:
        scope = self._scope
        return scope.state.meta.side_effects is SideEffects.APPLY_SIDE_EFFECT and not scope.reads_only

    def _check_declared(self, namespace: str, request: Any) -> None:
        """Refuse a call that certainly changes the outside world, if the state has not declared that it does."""
        transport = self._scope.transport(namespace)
        if transport is not None and not self._applies and transport.is_certain_effect(namespace, request):
            raise undeclared(self._scope, namespace)

    def _check_one_effect(self, call: Call) -> None:
        """Refuse a second, different effect that would be sent with the state's idempotency key."""
        scope, key = self._scope, self._scope.idempotency_key
        transport = scope.transport(call.namespace)
        if key is None or transport is None or not transport.one_effect_per_key:
            return
        if transport.with_idempotency_key(call.namespace, call.request, key) == call.request:
            return
        # the first effect sent with the key counts, whichever attempt sent it
        sent = scope.log.history.sent.get((scope.state.id, call.namespace, key))
        self._keyed = self._keyed or sent or call.digest
        if self._keyed != call.digest and not follows_redirect(scope, call, self._keyed):
            raise second_effect(scope)
        self._keyed = call.digest

    async def _fact(self, call: Call, value: bytes | None = None) -> FactRecorded:
        """Return the one fact of a call for all of its callers."""
        handing = self._handing
        while (racing := handing.in_flight.get(call.key) or handing.waits_in_hand.get(call.key)) is not None:
            await racing.wait()
        self._scope.check_open("called", call.namespace)
        refusal, before = call.refusal, None
        if not call.continues and (refusal is None or not call.key.startswith(RESERVED_FACT_PREFIX)):
            before = self._before(call)
        if isinstance(before, OtherIoError):
            before, refusal = None, before
        if before is not None:
            handing.flush(call)
            return before
        if refusal is None and value is None and not call.continues and self._applies:
            refusal = await self._cleared(call)
            if call.key in handing.in_flight:  # an equal call was cleared meanwhile
                return await self._fact(call, value)
        if self._scope.run.controls is not None and not call.continues:
            await self._scope.run.controls.admit(here=False)
        handing.in_flight[call.key] = flight = Flight(call)
        try:
            with flight.scope:
                seq = None
                try:
                    if refusal is not None:
                        fact = await self._refused_to_repeat(call, refusal)
                    else:
                        fact = await (self._obtain(call) if value is None else self._record(call, value))
                    seq = self._scope.log.history.head_seq
                    if value is None:
                        await handing.turn(call, seq)
                    return fact
                finally:  # also when it was cancelled, even while its outcome waited for its turn
                    await handing.durable(call, seq)
            raise self._scope.ended()
        finally:
            del handing.in_flight[call.key]
            flight.land()

    async def _cleared(self, call: Call) -> OtherIoError | None:
        """Return once a call may be made that nothing has answered, or return why it must not be made.

        It is asked only in a state that may apply effects.
        """
        del call
        return None

    async def _refused_to_repeat(self, call: Call, refusal: OtherIoError) -> FactRecorded:
        """Return the fact of an effect that must not be made again; it is in the log when this returns."""
        del refusal
        return await self._obtain(call)

    def _before(self, call: Call) -> FactRecorded | OtherIoError | None:
        """Return the fact that already answers a call: the same explicit key, or a fact of an earlier attempt.

        It is an error when the call is an effect that was made, or may have been, and must not be made again.
        """
        scope = self._scope
        if not call.key.startswith(RESERVED_FACT_PREFIX):
            return named_answer(scope, call)
        if scope.reads_only or call.own:  # the question is not about the world before the crash
            return None
        return self._earlier(call)

    def _earlier(self, call: Call) -> FactRecorded | OtherIoError | None:
        """Return an earlier attempt's answer, or an error for an effect that must not be repeated."""
        return earlier_answer(self._scope, call)

    def _result(self, fact: FactRecorded) -> IoResult:
        match fact.outcome:
            case FactError(kind, info):
                raise IoError.from_fact(kind, info)
            case FactValue(payload_id):
                # of the recorded bytes, so that a live value equals its replayed value
                log = self._scope.log
                if fact.key in log.history.sealed.lost:
                    raise unopened(fact)
                value = unprofiled(self._scope.secrets.value, fact, log.load(payload_id), log)
                if self._scope.run.config.io_mode is IoMode.DRY_RUN and (writer := marked_by(value)):
                    value = substitute(writer, self._scope.context)
                return IoResult(value, fact.key, payload_id)

    def _read(self, fact: FactRecorded, decode: Callable[[Any], Any]) -> Any:
        response = self._result(fact).response
        return response if is_known_later(response) else decode(response)

    def _make_way(self, call: Call) -> None:
        """Do nothing: a live call is recorded when it is made."""

    def _fact_of(self, call: Call, outcome: FactValue | FactError) -> FactRecorded:
        scope = self._scope
        own = scope.state.id, scope.attempt, call.piece
        return FactRecorded(call.key, call.namespace, call.digest, outcome, *own)

    def _intent_of(self, call: Call) -> EffectIntended:
        scope = self._scope
        return EffectIntended(
            call.key,
            call.digest,
            self._intended_key(call),
            scope.state.id,
            scope.attempt,
            self._intended_through(call),
        )

    def _placed(self, call: Call, info: Mapping[str, str]) -> Mapping[str, str]:
        """Return the info of a fact or an intent, with the place of its call in a transaction."""
        return {**info, **self._scope.databases.info(self._scope, call.place)} if call.place else info

    async def _intend(self, call: Call) -> None:
        """Record the intent of an effect, durably before the effect may leave the process."""
        await self._scope.log.emit([self._intent_of(call)], call.payloads(), self._placed(call, call.ignored))
        await self._scope.log.durable()
