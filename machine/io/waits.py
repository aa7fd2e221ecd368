"""The waits of a handler's `io`: for a person's approval, for a signal of another system, for a time.

A wait whose answer is not in the log yet is recorded, and its attempt is put away: it holds no thread and no memory
until the answer is there.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NoReturn
from weakref import WeakSet

import anyio
import attrs

from machine.errors import Code, OtherIoError, StateError, WaitTimeoutError
from machine.events import FactError, FactOutcome, FactRecorded, WaitBegun
from machine.io import clock
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.io.earlier_answers import named_answer
from machine.io.outcome_turns import Flight, HandOut
from machine.io.parked_tasks import Parking
from machine.io.request_fields import checked_seconds, checked_text, refusal
from machine.kernel.known_after_apply import is_known_later
from machine.watch.code_owner import running_step
from machine.watch.watch import engine_at_work

SUSPEND_AFTER: Final = 60.0
"""The longest sleep, in seconds, that is slept in place. A longer one puts the attempt away."""

LONGEST_LIMIT: Final = 100 * 365 * 86400.0
"""The longest time limit of a wait, in seconds."""

_LATEST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""

_LONGEST_NAME: Final = 256


@attrs.frozen
class Approval:
    """The answer to `io.approval`: what was decided, who decided it, a comment, and a value that was given."""

    approved: bool
    by: str | None = None
    comment: str | None = None
    value: Any = None


def approval_request(prompt: str, data: Any, timeout: float | None) -> dict[str, Any]:
    """Return the question to a person. Raises `OtherIoError` (`io_invalid_request`)."""
    request = {"prompt": checked_text(prompt, "the prompt", empty=False)}
    return {**request, **({} if data is None else {"data": data}), **limit_fields(timeout)}


def signal_request(name: str, correlation: str | None, timeout: float | None) -> dict[str, Any]:
    """Return what a wait for a signal asks for. Raises `OtherIoError` (`io_invalid_request`)."""
    request = {"name": _name(name, "the name of a signal")}
    if correlation is not None:
        request["correlation"] = _name(correlation, "the correlation of a signal")
    return {**request, **limit_fields(timeout)}


def until_request(when: datetime | float) -> dict[str, Any]:
    """Return what a wait until a time asks for. Raises `OtherIoError` (`io_invalid_request`)."""
    if isinstance(when, datetime):
        if when.utcoffset() is None:
            raise refusal(f"the time {when.isoformat()} has no time zone", when=when.isoformat())
        when = when.timestamp() * 1000
    if not isinstance(when, int | float) or isinstance(when, bool):
        raise refusal(f"a time is a datetime or milliseconds since the epoch, not {type(when).__name__}")
    if not 0 <= when <= _LATEST_MS:  # not NaN either
        raise refusal(f"a time is from 1970 to the end of the year 9999, not {when}")
    return {"until_ms": math.ceil(when)}


def _name(value: str, what: str) -> str:
    text = checked_text(value, what, empty=False)
    if len(text) > _LONGEST_NAME or not text.isprintable():
        raise refusal(f"{what} has 1 to {_LONGEST_NAME} printable characters")
    return text


def limit_fields(timeout: float | None) -> dict[str, int]:
    """Return the part of a request that says how long its answer may take."""
    if timeout is None:
        return {}
    return {"timeout_ms": math.ceil(checked_seconds(timeout, "timeout", most=LONGEST_LIMIT) * 1000)}


def due_of(request: Mapping[str, Any], now_ms: int) -> int | None:
    """Return the end of a wait's time limit that begins now, None for one without."""
    until: int | None = request.get("until_ms")
    length = request.get("ms", request.get("timeout_ms"))
    return until if length is None else now_ms + int(length)


class WaitCalls(ABC):
    """The part of an `io` that waits for external input."""

    _scope: AttemptScope

    @functools.cached_property
    def waiter(self) -> WaitCalls:
        """The `io` whose waits are those of the handler: this one, or the whole that it is a part of."""
        return self

    @property
    @abstractmethod
    def _handing(self) -> HandOut:
        """The calls of the attempt in flight."""

    @property
    @abstractmethod
    def _open_streams(self) -> Mapping[str, Any]:
        """The streams that the handler has opened and not ended."""

    @functools.cached_property
    def open_sessions(self) -> WeakSet[Any]:
        """The connections that the handler has opened and not closed, where each message is a call."""
        return WeakSet()

    @abstractmethod
    def _identify(self, namespace: str, request: Any, fact_key: str | None) -> Call:
        """Return the call of a request; see `IoProvider`."""

    @abstractmethod
    def _result(self, fact: FactRecorded) -> Any:
        """Return the result of a call; see `IoProvider`."""

    @abstractmethod
    def _fact_of(self, call: Call, outcome: FactOutcome) -> FactRecorded:
        """Return the fact of a call with an outcome."""

    @abstractmethod
    async def call(self, namespace: str, request: Any) -> Any:
        """Make a call; see `IoProvider`."""

    @abstractmethod
    async def _answer(self, call: Call) -> FactRecorded:
        """Return the answer to a wait that was begun, or raise `PutAway` until there is one."""

    def _may_be_put_away(self) -> bool:
        """Say whether the attempt may be put away by now: a replay does so where the recording does."""
        return True

    def _nothing_comes(self) -> None:
        """Raise a divergence: a handler waits which may not be put away, as its recording goes on otherwise."""
        raise AssertionError("a live attempt may be put away at any time")

    def _slept_in_place(self, request: Mapping[str, Any]) -> bool:
        """Say whether a long sleep is one that a recording has as a call."""
        history = self._scope.log.history
        digest = clock.sleep_digest(request)
        return (self._scope.state.id, clock.SLEEP, digest) in history.successes

    @functools.cached_property
    def _parking(self) -> Parking:
        return Parking(self._scope, self._handing, self._may_be_put_away, self._nothing_comes)

    async def approval(
        self,
        prompt: str,
        *,
        data: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109 - recorded: the time that a person has
        key: str | None = None,
    ) -> Approval:
        """Ask a person to approve, and return the decision; the run waits for it as long as it takes.

        `prompt` and `data` (JSON) are what the person is shown. `timeout` is in seconds: without a decision by then
        this raises `WaitTimeoutError`. `key` names the wait for who answers it; a run has one answer
        under it.
        """
        request = approval_request(prompt, data, timeout)
        answer = await self._waited("wait.approval", request, key)
        return Approval(answer["approved"], answer.get("by"), answer.get("comment"), answer.get("value"))

    async def wait_signal(
        self,
        name: str,
        *,
        correlation: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - recorded: the time that another system has
        key: str | None = None,
    ) -> Any:
        """Wait for a signal of another system and return its value (JSON).

        With `correlation` it is the one for that key, sent to any run. `timeout` and `key` are as in `approval`.
        """
        answer = await self._waited("wait.signal", signal_request(name, correlation, timeout), key)
        return answer["value"]

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds; above a minute the attempt is put away. In replay this returns at once."""
        request = clock.sleep_request(seconds)
        if request["seconds"] <= SUSPEND_AFTER or self._slept_in_place(request):
            await self.call(clock.SLEEP, request)
        else:
            await self._waited("wait.timer", {"ms": math.ceil(request["seconds"] * 1000)}, None)

    async def sleep_until(self, when: datetime | float) -> None:
        """Wait until a time: a `datetime` with a time zone, or milliseconds since the epoch.

        A time that has passed is over at once. In replay this returns at once.
        """
        await self._waited("wait.timer", until_request(when), None)

    async def _waited(self, namespace: str, request: dict[str, Any], key: str | None) -> Any:
        """Return the payload of the answer to a wait. Raises `WaitTimeoutError` when its time limit came first."""
        with engine_at_work():
            self._check_place()
            fact = await self._fact_of_wait(self._identify(namespace, request, key))
            answer: Any = self._result(fact).response
        if is_known_later(answer):
            return answer
        if answer.get("timed_out"):
            raise WaitTimeoutError(
                f"nobody answered {namespace.removeprefix('wait.')} {fact.key!r} in time",
                details={"key": fact.key},
            )
        return answer

    def _check_place(self) -> None:
        """Raise `StateError` (`wait_not_here`) where a handler cannot be put away."""
        scope = self._scope
        if (step := running_step()) is not None:
            place = f"the step {step}"
        elif scope.reads_only:
            place = f"the reconcile function of {scope.state.id}"
        elif names := scope.databases.in_transaction():
            place = f"{scope.state.id} in a transaction of {', '.join(names)}"
        elif self._open_streams:
            place = f"{scope.state.id} with an open stream"
        elif self.open_sessions:
            place = f"{scope.state.id} with an open connection of websockets"
        else:
            return
        raise StateError(
            f"{place} waits for external input",
            code=Code.WAIT_NOT_HERE,
            hint="end the transaction, stream, connection or step first: what waits is put away and begins again",
        )

    async def _fact_of_wait(self, call: Call) -> FactRecorded:
        handing = self._handing
        while (racing := handing.waits_in_hand.get(call.key)) is not None:
            await racing.wait()
        self._scope.check_open("called", call.namespace)
        if (before := self._known_answer(call)) is not None:
            handing.flush(call)
            return before
        if self._scope.run.controls is not None:
            await self._scope.run.controls.admit(here=False)
        handing.waits_in_hand[call.key] = flight = Flight(call)
        try:
            with flight.scope:
                return await self._answer(call)
            raise self._scope.ended()
        finally:
            del handing.waits_in_hand[call.key]
            flight.land()

    def _known_answer(self, call: Call) -> FactRecorded | None:
        """Return the answer that the log has to a wait, of an earlier attempt or under its own key."""
        found = named_answer(self._scope, call)
        return found if isinstance(found, FactRecorded) else None

    def _begun(self, call: Call) -> WaitBegun:
        scope = self._scope
        return WaitBegun(call.key, call.namespace, call.digest, scope.state.id, scope.attempt)

    def _is_begun(self, call: Call) -> bool:
        """Say whether this attempt has begun a wait already. Raises `StateError` for one of another state."""
        found = self._scope.log.history.open_waits.by_key.get(call.key)
        if found is None:
            return False
        begun = found.begun
        if begun.state_id != self._scope.state.id:
            raise StateError(
                f"{begun.state_id} waits under the key {call.key!r} already",
                code=Code.FACT_KEY_CONFLICT,
                details={"key": call.key},
                hint="give each wait a key of its own",
            )
        return begun.attempt == self._scope.attempt

    async def _park(self, call: Call) -> NoReturn:
        """Wait until the attempt is put away; a handler that gives the wait up before is recorded."""
        scope = self._scope
        try:
            await self._parking.park()
        except anyio.get_cancelled_exc_class():
            if not (scope.cut or scope.put_away):
                await self._give_up(call)
            raise

    async def _give_up(self, call: Call) -> None:
        """Record that the handler gives a wait up."""
        with anyio.CancelScope(shield=True):
            log = self._scope.log
            await log.emit([self._fact_of(call, cancelled(call))])
            await self._handing.durable(call, log.history.head_seq)


def cancelled(call: Call) -> FactError:
    """Return the outcome of a call that its handler cancelled."""
    exc = OtherIoError(f"the handler cancelled its call of {call.namespace}", code=Code.CALL_CANCELLED)
    return FactError(exc.kind, exc.info)
