"""Live IO: perform a call, then record it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from machine import canonical
from machine.config import IoMode
from machine.errors import (
    IoError,
    MissingFactError,
    MissingFactKeyError,
    OtherIoError,
)
from machine.events import ArtifactKind, EffectIntended, FactError, FactOutcome, FactRecorded, FactValue
from machine.exception_to_error_info import describe
from machine.ids import RESERVED_FACT_PREFIX
from machine.io import clock
from machine.io.attempt_scope import Payloads
from machine.io.call_identity import Call
from machine.io.call_refusals import no_transport, too_large, uncertain_effect
from machine.io.clock import SLEEP
from machine.io.effect_resolution import Happened, NotDone, add_answer, resolution
from machine.io.lent_work import LentWork
from machine.io.live_streams import LiveStreams
from machine.io.policy_verdicts import judging_hops
from machine.io.publishing import offset_of
from machine.io.request_fields import field
from machine.io.secret import checked, naming, sendable
from machine.io.spending import SPEND, spent_by, spent_in_answer
from machine.io.step_transport import STEP, info_of_step
from machine.io.thread_calls import ThreadCalls
from machine.io.transport import Opened, Transport
from machine.io.transport_failures import failures_of
from machine.io.volatile_answer_headers import without_volatile
from machine.io.waits import cancelled, due_of
from machine.kernel.context import MAX_VALUE_BYTES
from machine.kernel.facts_with_ignored_parts import IGNORED
from machine.kernel.open_waits import DUE
from machine.kernel.published import PUBLISH, STREAM
from machine.kernel.sealed_facts import REQUEST_MAC, REQUEST_SECRETS
from machine.kernel.transactions import SQL
from machine.model_prices import NO_SPENDING
from machine.secrets.secret_value import SECRET
from machine.waits import WAIT_KINDS
from machine.watch.unprofiled import unprofiled
from machine.watch.watch import engine_at_work


class LiveIo(ThreadCalls):
    """The live `io`: performs calls through the transports, and records every outcome, errors included."""

    @functools.cached_property
    def _received(self) -> LiveStreams:
        return LiveStreams(self._scope)

    def lends(self, *, concurrent: bool) -> LentWork | None:
        """Return the work that the event loop may lend: none in a subclass, which looks for answers elsewhere."""
        return super().lends(concurrent=concurrent) if type(self) is LiveIo else None

    async def _obtain(self, call: Call) -> FactRecorded:
        if self.gate is not None:
            await self.gate()
        if call.continues:
            return await self._obtain_part(call)
        transport = self._scope.transport(call.namespace)
        if transport is None or call.namespace in WAIT_KINDS:
            raise no_transport(call)
        if self._scope.run.config.io_mode is IoMode.REPLAY:
            return await self._emit(call, self._shut(call), call.payloads())
        controls = self._scope.run.controls
        if controls is not None:
            permitted = await self._permitted(call, controls)
            if isinstance(permitted, FactError):
                return await self._emit(call, permitted, call.payloads())
            call = permitted
        if call.effect:
            await self._refuse_late()
            if (keys := self._scope.secrets.run.keys) is not None:
                keys.check()  # a request that could not be sealed afterwards is not sent
            await self._intend(call)
        payloads = call.payloads()
        try:
            outcome, info = await self._perform(transport, call, payloads)
        except anyio.get_cancelled_exc_class():
            if controls is not None:
                controls.outcome(call, self._scope, None)
            if not self._scope.cut:
                await self._emit(call, cancelled(call), payloads)
            raise
        if controls is not None:
            info = {**info, **controls.outcome(call, self._scope, outcome)}
        return await self._emit_first(call, outcome, payloads, info)

    async def _emit_first(
        self, call: Call, outcome: FactOutcome, payloads: Payloads, info: Mapping[str, str]
    ) -> FactRecorded:
        """Record the outcome of a call, which is the head of a stream if one was opened."""
        if call.part is not None and isinstance(outcome, FactError):
            await self._let_go(call.part.key)  # of an answer whose head cannot be stored
        return await self._emit(self._received.first(call), outcome, payloads, info)

    async def _obtain_part(self, call: Call) -> FactRecorded:
        """Record the next piece of a stream, or its end; it is in the log when this returns."""
        await self._received.bounded()
        end, payloads = call.end(self._received.mac(call)), Payloads()
        info: Mapping[str, str] = {}
        outcome: FactOutcome
        try:
            answer = await self._received.next(call, self._draft)
            if answer is None:
                ending = self._received.ending(call, self._draft(end))
                outcome, info = (
                    FactValue(add_answer(payloads, ending.answer), ending.again),
                    {**ending.answer.info, **self._received.spent(call)},
                )
                call = end
            else:
                outcome, info = FactValue(add_answer(payloads, answer), again=True), answer.info
        except anyio.get_cancelled_exc_class():
            await self._let_go(end.key)
            if not self._scope.cut:
                await self._emit(call, cancelled(call), payloads)
            raise
        except IoError as exc:
            call, outcome = end, self._error(exc)
        if call is end:
            await self._let_go(end.key)
        return await self._emit(call, outcome, payloads, info)

    async def _let_go(self, key: str) -> None:
        await self._received.close(key)

    async def look_up_effect(
        self, intent: EffectIntended, look_up: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> None:
        """Record what became of an effect on a database; see `ClientCalls`."""
        scope = self._scope
        request = scope.secrets.asked_before(intent.request_digest, scope.log.load(intent.request_digest))
        transport: Any = scope.transport(SQL)
        with engine_at_work():
            said = await transport.look_up(SQL, request, look_up)
        if intent.key not in scope.log.history.uncertain:
            return  # another connection has found it out meanwhile
        if not said["known"]:
            raise uncertain_effect(scope, intent)
        answer = Happened(said["response"]) if said["done"] else NotDone()
        fact, payloads, info = resolution(intent, request, answer, scope.attempt, scope.secrets)
        await scope.log.emit([fact], payloads, info)

    async def end(self) -> None:
        """Cancel the calls that a handler left in flight, close its streams, and stop receiving any."""
        await super().end()
        await self._received.close_all()

    def _error(self, exc: IoError) -> FactError:
        run = self._scope.secrets.run
        return FactError(exc.kind, run.error(describe(exc, hint=False, redact=run.text)))

    async def _refused_to_repeat(self, call: Call, refusal: OtherIoError) -> FactRecorded:
        return await self._settled(call, FactError(refusal.kind, describe(refusal, hint=False)))

    async def _settled(
        self, call: Call, outcome: FactOutcome, info: Mapping[str, str] | None = None, *, head: bool = False
    ) -> FactRecorded:
        """Record a call that never left the process, an effect with its intent, so that none is uncertain.

        With `head` it is the opening of a stream, whose end then settles it.
        """
        fact = self._fact_of(call.head() if head else call, outcome)
        intents = [self._intent_of(call)] if call.effect else []
        payloads = call.payloads()
        await self._scope.log.emit([*intents, fact], payloads, self._info(call, fact, payloads, info))
        return fact

    def _info(
        self, call: Call, fact: FactRecorded, payloads: Payloads, info: Mapping[str, str] | None
    ) -> Mapping[str, str] | None:
        """Return the info of a fact; the secrets first seen in its request are sealed among its artifacts."""
        if call.namespace == STEP:
            info = {**(info or {}), **info_of_step()}
        if call.said and fact.piece in {None, 0}:
            info = {**(info or {}), **call.said}
        seal = self._scope.secrets.taught(fact, call.taught) if call.taught else None
        if seal is not None:
            info = {**(info or {}), REQUEST_SECRETS: payloads.add(ArtifactKind.SECRET_PAYLOAD, seal)}
        if call.mac is not None:
            info = {**(info or {}), REQUEST_MAC: call.mac}
        if call.ignored and not fact.piece and IGNORED not in (info or {}):
            info = {**(info or {}), **call.ignored}
        return info if call.place is None else self._placed(call, info or {})

    async def _record(self, call: Call, value: bytes) -> FactRecorded:
        if self.gate is not None:
            await self.gate()
        payloads = call.payloads()
        if call.namespace == PUBLISH:
            outcome = offset_of(call, self._scope, payloads)
            return await self._emit(call, outcome, payloads, {STREAM: call.request[STREAM]})
        if call.namespace == SPEND:
            return await self._spent(call, payloads)
        try:
            answer = unprofiled(self._scope.secrets.given, self._draft(call), value)
        except IoError as refusal:
            return await self._settled(call, FactError(refusal.kind, describe(refusal, hint=False)))
        outcome = FactValue(add_answer(payloads, answer))
        return await self._emit(call, outcome, payloads, answer.info)

    async def _spent(self, call: Call, payloads: Payloads) -> FactRecorded:
        controls = self._scope.run.controls
        try:
            outcome, info = spent_by(call, NO_SPENDING if controls is None else controls.spending, payloads)
        except OtherIoError as refusal:
            return await self._settled(call, FactError(refusal.kind, describe(refusal, hint=False)))
        return await self._emit(call, outcome, payloads, info)

    def _draft(self, call: Call) -> FactRecorded:
        """Return the fact of a call whose outcome is not known yet."""
        return self._fact_of(call, FactValue(""))

    async def _perform(
        self, transport: Transport, call: Call, payloads: Payloads
    ) -> tuple[FactValue | FactError, Mapping[str, str]]:
        """Perform a call; return the outcome and the info of its event."""
        scope = self._scope
        try:
            with failures_of(call):
                # the recorded request is sent, even if the handler has changed its object since
                request = await sendable(scope, call)
                if call.effect and scope.idempotency_key is not None:
                    request = transport.with_idempotency_key(call.namespace, request, scope.idempotency_key)
                if call.namespace == SLEEP:
                    found = await self._slept(transport, call, request)
                else:
                    with naming(scope, call), judging_hops(self._hop_check(call)):
                        found = await self._found(transport, call, request)
            return self._outcome_of(transport, call, payloads, request, found)
        except IoError as exc:
            return self._error(exc), {}

    async def _found(self, transport: Transport, call: Call, request: Any) -> Any:
        """Return the response to a call, or an `Opened` if its answer comes in pieces."""
        if call.part is None:
            return await transport.perform(call.namespace, request)
        return await self._received.performed(transport, call, request)

    def _outcome_of(
        self, transport: Transport, call: Call, payloads: Payloads, request: Any, found: Any
    ) -> tuple[FactValue, Mapping[str, str]]:
        """Return the outcome of a call, given what its transport returned, and the info of its event.

        Raises `IoError` for what cannot be recorded.
        """
        scope = self._scope
        with failures_of(call):
            response = self._received.begun(call, found) if isinstance(found, Opened) else found
            if call.namespace == clock.NOW:
                response = max(response, scope.log.floor_ms)
            if call.namespace == "http" and scope.run.requests.steady:
                response = without_volatile(response)
            given, sure = response, None
            if call.namespace == SECRET:
                sure = request["name"]
                given = {"value": checked(scope, sure, response)}
            draft = self._draft(self._received.first(call))
            answer = unprofiled(scope.secrets.answer, draft, request, given, sure=sure)
        if len(answer.data) > MAX_VALUE_BYTES:
            raise too_large(f"the response of {call.namespace}", answer.data)
        # a secret that only this process knows is lost with it: a resumed run has to read it again
        lasts = transport.is_final(call.namespace, response) and (call.effect or not answer.gone)
        again = None if lasts else True
        if self._received.began(call, answer, again=again):
            again = True  # only its end answers the call
        elif (controls := scope.run.controls) is not None and controls.spending.interfaces:
            return FactValue(add_answer(payloads, answer), again), {
                **answer.info,
                **spent_in_answer(call, response, controls.spending),
            }
        return FactValue(add_answer(payloads, answer), again), answer.info

    def _hop_check(self, call: Call) -> Callable[[str], None] | None:
        controls = self._scope.run.controls
        if controls is None or call.namespace != "http":
            return None
        return functools.partial(controls.check_hop, call, self._scope)

    async def _refuse_late(self) -> None:
        """Refuse to begin an effect once the attempt's time is over, when a held event loop has delayed its end."""
        limit = self._scope.limit
        if limit is not None and anyio.current_time() >= limit.deadline:
            limit.cancel()
            await checkpoint_if_cancelled()

    async def _slept(self, transport: Transport, call: Call, request: Any) -> Any:
        """Sleep, or sleep for the rest of the time if an interrupted attempt has begun to."""
        scope = self._scope
        if scope.run.timers is None:
            return await transport.perform(call.namespace, request)
        # without the attempt, because each has another number
        named = not call.key.startswith(RESERVED_FACT_PREFIX)
        name = f"{call.digest}/{call.key if named else '@' + call.key.rpartition('/')[2]}"
        first = scope.log.history.states[scope.state.id].failed.fresh_from
        seconds = field(request, "seconds", int, float)
        left = scope.run.timers.left(scope.state.id, name, seconds, attempt=scope.attempt, first=first)
        with anyio.move_on_after(left if left < seconds else None):
            return await transport.perform(call.namespace, request)
        return None

    def _shut(self, call: Call) -> FactError:
        """Return the outcome of a call in a run that must not reach the outside world."""
        exc: IoError
        retryable = self._scope.run.config.replay_missing_fact_retryable
        details = {"request": call.digest}
        if call.key.startswith(RESERVED_FACT_PREFIX):
            text = f"a call of {call.namespace} has no fact key, so the run cannot have its fact"
            exc = MissingFactKeyError(text, retryable=retryable, details=details, hint="give fact_key=...")
        else:
            text = f'the run has no fact {call.key!r}, and io_mode="replay" shuts the outside'
            exc = MissingFactError(text, retryable=retryable, details=details)
        return FactError(exc.kind, describe(exc, hint=False))

    async def _emit(
        self,
        call: Call,
        outcome: FactValue | FactError,
        payloads: Payloads,
        info: Mapping[str, str] | None = None,
    ) -> FactRecorded:
        fact = self._fact_of(call, outcome)
        await self._scope.log.emit([fact], payloads, self._info(call, fact, payloads, info))
        return fact

    async def _answer(self, call: Call) -> FactRecorded:  # noqa: RET503 - the last call never returns
        log = self._scope.log
        if not self._is_begun(call):
            now_ms = log.now_ms()
            due_ms = due_of(call.request, now_ms)
            info = (
                self._child_info(call, now_ms)
                | dict(call.said)
                | ({} if due_ms is None else {DUE: str(due_ms)})
            )
            await log.emit([self._begun(call)], call.payloads(), info)
            if due_ms is not None and due_ms <= now_ms and "until_ms" in call.request:
                payloads = Payloads()  # a time that has passed is nothing to wait for
                data = canonical.encode({"at_ms": now_ms})
                return await self._emit(
                    call, FactValue(payloads.add(ArtifactKind.FACT_PAYLOAD, data)), payloads
                )
        if (fact := await self._driven(call, self._emit)) is not None:
            return fact
        await self._park(call)
