"""Calls of blocking clients that a thread of a plain handler makes by itself, without a turn of the event loop.

All of it but the library's own part is done while the event loop lends its work (`LentWork`), so that the log, the
history and the secrets are used by one thread at any moment. What has to wait for anything is left to the loop: an
effect, an outcome that has to wait for its turn, and a call that ends when the loop is at work for another thread.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import anyio
import attrs

from machine.config import IoMode
from machine.errors import IoError, OtherIoError
from machine.events import FactError, FactOutcome, FactRecorded, FactValue
from machine.io.attempt_scope import Payloads
from machine.io.call_identity import Call
from machine.io.client_work import ClientWork, performing
from machine.io.lent_work import LentWork
from machine.io.outcome_turns import ThreadFlight
from machine.io.permission import Permissions
from machine.io.secret import naming, sendable
from machine.io.transport import Opened, Transport
from machine.io.transport_failures import failures_of
from machine.io.waiting_thread import at_once
from machine.io.waits import cancelled
from machine.watch.code_owner import running_step

T = TypeVar("T")


@attrs.define
class _Answered:
    """A call whose transport has answered it, or failed."""

    transport: Transport
    request: Any
    found: Any = None
    failure: IoError | None = None

    def let_go(self) -> None:
        """Stop receiving an answer that nobody will read."""
        if isinstance(self.found, Opened):
            at_once(self.found.source.aclose())


class ThreadCalls(Permissions):
    """The part of a live `io` for blocking clients in the threads of a plain handler."""

    gate: Callable[[], Awaitable[None]] | None = None
    """Returns once a call may be made: an attempt that goes on has a recording before."""

    @abstractmethod
    async def _found(self, transport: Transport, call: Call, request: Any) -> Any:
        """Return the response to a call, or an `Opened` if its answer comes in pieces; see `LiveIo`."""

    @abstractmethod
    def _outcome_of(
        self, transport: Transport, call: Call, payloads: Payloads, request: Any, found: Any
    ) -> tuple[FactValue, Mapping[str, str]]:
        """Return the outcome of a call that was performed, and the info of its event; see `LiveIo`."""

    @abstractmethod
    def _error(self, exc: IoError) -> FactError:
        """Return the outcome of a call that failed."""

    @abstractmethod
    async def _emit(
        self, call: Call, outcome: FactOutcome, payloads: Payloads, info: Mapping[str, str] | None = None
    ) -> FactRecorded:
        """Record the fact of a call."""

    @abstractmethod
    async def _emit_first(
        self, call: Call, outcome: FactOutcome, payloads: Payloads, info: Mapping[str, str]
    ) -> FactRecorded:
        """Record the outcome of a call, which is the head of a stream if one was opened."""

    def lends(self, *, concurrent: bool) -> LentWork | None:
        """Return the work that the event loop may lend to the threads of the handler, None if it has to do all."""
        log: Any = self._scope.log
        waits = concurrent or self.gate is not None or self._scope.run.controls is not None
        return None if waits or not log.in_any_thread else LentWork()

    def made_in_thread(
        self, work: ClientWork, identify: Callable[[], Call], result: Callable[[Call, FactRecorded], T]
    ) -> T:
        """Make a call as `ClientCalls` describes it, in this thread alone if nothing of it has to wait."""
        lent = self._scope.lent
        if lent is None or running_step() is not None or not lent.begin():
            return super().made_in_thread(work, identify, result)
        with performing(work):
            try:
                call = identify()
                transport = self._of_caller(call)
                before = None if transport is None else self._before(call)
                if isinstance(before, FactRecorded):
                    self._handing.flush(call)
                    return result(call, before)
                if isinstance(before, OtherIoError):
                    call = attrs.evolve(call, refusal=before)
                elif transport is not None:
                    flight = ThreadFlight(call, self._given_up)
                    self._handing.in_flight[call.key] = flight
                    answered = _Answered(transport, at_once(sendable(self._scope, call)))
                    named = naming(self._scope, call)
            finally:
                lent.end()
            if transport is None or call.refusal is not None:
                return self.in_thread(partial(self._made_on_loop, work, call, result))
            try:
                with failures_of(call), named:
                    answered.found = at_once(self._found(transport, call, answered.request))
            except IoError as exc:
                answered.failure = exc
        return self._ended_in_thread(lent, flight, answered, result)

    def _of_caller(self, call: Call) -> Transport | None:
        """Return the transport of a call that its thread may make by itself, None for any other call."""
        transport = self._scope.transport(call.namespace)
        may = not call.effect and call.refusal is None and vars(type(transport)).get("works_in_caller", False)
        return transport if may and self._scope.run.config.io_mode is not IoMode.REPLAY else None

    async def _made_on_loop(
        self, work: ClientWork, call: Call, result: Callable[[Call, FactRecorded], T]
    ) -> T:
        with performing(work):
            return result(call, await self._fact(call))

    def _ended_in_thread(
        self,
        lent: LentWork,
        flight: ThreadFlight,
        answered: _Answered,
        result: Callable[[Call, FactRecorded], T],
    ) -> T:
        """Record the outcome of a call, and return its result when it is its turn."""
        call, handing = flight.call, self._handing
        if lent.begin():
            try:
                fact = at_once(self._record_outcome(flight, answered))
                if len(handing.in_flight) == 1 and self._scope.barrier.alone_on(self._scope.run.native_loop):
                    del handing.in_flight[call.key]
                    handing.flush(call)
                    return result(call, fact)
            finally:
                lent.end()
        self._check_flight(flight, answered)  # of a run that has ended there may be no loop any more
        return self.in_thread(partial(self._ended_on_loop, flight, answered, result))

    async def _ended_on_loop(
        self, flight: ThreadFlight, answered: _Answered, result: Callable[[Call, FactRecorded], T]
    ) -> T:
        call, handing = flight.call, self._handing
        self._check_flight(flight, answered)
        try:
            with anyio.CancelScope() as flight.scope:
                seq = None
                try:
                    fact = flight.fact or await self._record_outcome(flight, answered)
                    seq = self._scope.log.history.head_seq
                    await handing.turn(call, seq)
                    return result(call, fact)
                finally:
                    await handing.durable(call, seq)
            raise self._scope.ended()
        finally:
            del handing.in_flight[call.key]
            flight.land()

    async def _record_outcome(self, flight: ThreadFlight, answered: _Answered) -> FactRecorded:
        """Record the outcome of a call. It never suspends."""
        self._check_flight(flight, answered)
        call = flight.call
        payloads = call.payloads()
        outcome: FactOutcome
        info: Mapping[str, str] = {}
        try:
            if answered.failure is not None:
                raise answered.failure
            outcome, info = self._outcome_of(
                answered.transport, call, payloads, answered.request, answered.found
            )
        except IoError as exc:
            outcome = self._error(exc)
        flight.fact = await self._emit_first(call, outcome, payloads, info)
        return flight.fact

    def _check_flight(self, flight: ThreadFlight, answered: _Answered) -> None:
        """Raise `StateError` (`attempt_closed`) if the attempt has ended meanwhile: its answer is lost."""
        if flight.given_up:
            answered.let_go()
            raise self._scope.ended()

    async def _given_up(self, flight: ThreadFlight) -> None:
        """Record that the handler has left a call behind, unless its attempt is interrupted."""
        call, handing = flight.call, self._handing
        del handing.in_flight[call.key]
        if flight.fact is None and not self._scope.cut:
            await self._emit(call, cancelled(call), call.payloads())
        await handing.durable(call)
