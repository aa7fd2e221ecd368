"""The transport of `step`: it calls the function of a step, live, and makes JSON of what comes of it.

A function cannot be part of a request. So `io` announces it, and the transport takes it from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import anyio
import attrs

from machine import canonical
from machine.errors import CanonicalError, Code, OtherIoError, StepError
from machine.io.step_errors import failure_of, original_of
from machine.io.step_function import KEY_PARAMETER, KEYED, BoundStep, Step
from machine.io.step_results import response_of
from machine.io.step_threads import StepThread, call_in_thread, leave, wait_for_threads
from machine.io.step_values import decode_result, encode
from machine.io.transport import BaseTransport
from machine.watch.code_owner import RunningStep, called_by

STEP: Final = "step"
_FIRST_PAUSE: Final = 0.1
_KEY: Final = "idempotency_key"
"""The field of a sent request with the key for the function."""


@attrs.frozen
class _Outcome:
    """The outcome of one call of a function.

    `late` is true when it took too long. Another process gives the `response`, or how it `failed` and whether the
    function is to be called `again` after that.
    """

    value: Any = None
    raised: BaseException | None = None
    late: bool = False
    response: dict[str, Any] | None = None
    failed: StepError | None = None
    again: bool = False


@attrs.define(eq=False)
class StepWork:
    """One call of a step. `place` is its run and state; `here` is true when it must not wait for the event loop."""

    bound: BoundStep
    place: tuple[str, str]
    here: bool = False
    info: dict[str, str] = attrs.field(factory=dict)
    """Values to record with the fact, outside the digest."""
    raised: BaseException | None = None
    """The exception that the function raised, in this process."""

    @property
    def step(self) -> Step:
        """The function and its options."""
        return self.bound.step

    async def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Call the function, as often as its options say, and return the response. Raises `StepError`."""
        step = self.step
        for number in range(1, step.tries + 1):
            if number > 1:
                self.info["tries"] = str(number)
            outcome = await self._once(request)
            if outcome.late:
                again = any(issubclass(TimeoutError, each) for each in step.retry_on)
            else:
                again = outcome.again or isinstance(outcome.raised, step.retry_on)
            if not again or number == step.tries:
                break
            await self._pause(_FIRST_PAUSE * 2 ** (number - 1))
        if outcome.late:
            raise StepError(
                f"{step.name} did not end within {step.timeout:g} seconds",
                code=Code.STEP_TIMEOUT,
                retryable=True,
                details={"exception": "TimeoutError"},
            )
        if outcome.failed is not None:
            raise outcome.failed
        if isinstance(outcome.raised, KeyboardInterrupt):
            raise outcome.raised
        if outcome.raised is not None:
            self.raised = outcome.raised
            raise failure_of(outcome.raised, step.function, step.raises)
        return outcome.response if outcome.response is not None else response_of(step, outcome.value)

    async def _once(self, request: Mapping[str, Any]) -> _Outcome:
        step = self.step
        extra = {KEY_PARAMETER: request[_KEY]} if _KEY in request else {}
        call = self.bound.ready(request, extra)
        with called_by(RunningStep(step.name)):
            if step.is_async:
                return await self._awaited(call)
            if step.on == "process":
                from machine.io.step_processes import call_in_process  # noqa: PLC0415 - only those who use it pay for it

                response, failed, again = await call_in_process(step, call, self.place, waits=not self.here)
                late = response is None and failed is None
                return _Outcome(late=late, response=response, failed=failed, again=again)
            if self.here:
                return self._direct(call)
            thread = await call_in_thread(step.name, call, self.place, step.timeout)
        return _Outcome(late=True) if thread is None else _Outcome(thread.value, thread.raised)

    async def _awaited(self, call: Callable[[], Any]) -> _Outcome:
        with anyio.move_on_after(self.step.timeout) as limit:
            try:
                return _Outcome(await call())
            except (KeyboardInterrupt, anyio.get_cancelled_exc_class()):
                raise
            except BaseException as exc:  # noqa: BLE001 - a function may raise anything
                return _Outcome(raised=exc)
        assert limit.cancelled_caught
        return _Outcome(late=True)

    def _direct(self, call: Callable[[], Any]) -> _Outcome:
        """Call the function on the event loop's own thread, which stands still meanwhile."""
        if self.step.timeout is not None:
            thread = StepThread(self.step.name, call)
            if not thread.ended.wait(self.step.timeout):
                leave(self.place, thread)
                return _Outcome(late=True)
            return _Outcome(thread.value, thread.raised)
        try:
            return _Outcome(call())
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - the same
            return _Outcome(raised=exc)

    async def _pause(self, seconds: float) -> None:
        if self.here:
            time.sleep(seconds)  # noqa: ASYNC251 - the caller has the thread anyway
            return
        await wait_for_threads(self.place)
        await anyio.sleep(seconds)

    def result(self, response: Mapping[str, Any]) -> Any:
        """Return the result for the handler. Raises `StepError` for the effect whose result was lost."""
        step = self.step
        if "lost" in response:
            raise StepError(
                f"the effect {step.name} happened, and its result is lost: it could not be stored, "
                f"{response['lost']}",
                code=Code.STEP_RESULT_LOST,
            )
        return decode_result(response, step.returns, step.annotated)

    def error(self, exc: StepError) -> Exception:
        """Return what the handler gets for a recorded failure, with the place where the function raised it."""
        original = original_of(exc, self.step.function, self.step.raises)
        if self.raised is not None and original is not None:
            return original.with_traceback(self.raised.__traceback__)
        return exc if original is None else original


_announced: Final[ContextVar[StepWork | None]] = ContextVar("machine_step", default=None)


@contextmanager
def announced(work: StepWork) -> Iterator[None]:
    """Give the transport the work of the call that is made in this context."""
    token = _announced.set(work)
    try:
        yield
    finally:
        _announced.reset(token)


def info_of_step() -> Mapping[str, str]:
    """Return what is recorded with the fact of the step of this context, outside the digest."""
    work = _announced.get()
    return work.info if work is not None else {}


def given_response(value: Any) -> Any:
    """Return the response of a step for a result that a person or a reconcile function gives."""
    if isinstance(value, Mapping) and len(value) == 1 and value.keys() <= {"value", "typed", "given"}:
        return dict(value)
    try:
        canonical.encode(value)
    except CanonicalError:
        return {"value": encode(value)}
    return {"given": value}


def has_no_key(request: Any) -> bool:
    """Say whether an effect is of a function that gets no idempotency key, neither the state's nor its own."""
    return bool(request.get("effect") is True and KEY_PARAMETER not in request["args"])


class StepTransport(BaseTransport):
    """The transport of `step`, which calls the function that `io.step` was given."""

    __slots__ = ()
    one_effect_per_key = True

    def is_effect(self, namespace: str, request: Any) -> bool:  # noqa: ARG002 - the protocol's signature
        """Say whether the step was declared as an effect."""
        return isinstance(request, Mapping) and bool(request.get("effect"))

    def is_certain_effect(self, namespace: str, request: Any) -> bool:
        """Say whether the step was declared as an effect."""
        return self.is_effect(namespace, request)

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:  # noqa: ARG002 - the same
        """Return the request with the key, if the function takes it."""
        return {**request, _KEY: key} if request.get("effect") == KEYED else request

    async def perform(self, namespace: str, request: Any) -> dict[str, Any]:
        """Call the function. Raises `StepError` for whatever it raised."""
        work = _announced.get()
        if namespace != STEP or work is None:
            raise OtherIoError(
                f"{namespace} needs a function, which no request can hold",
                code=Code.IO_INVALID_REQUEST,
                hint="call io.step(function, ...)",
            )
        return await work.perform(request)
