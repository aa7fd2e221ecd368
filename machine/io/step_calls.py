"""The steps of a handler's `io`: functions that run live, and whose results are facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import FunctionType
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

from machine.errors import Code, OtherIoError, StateError, StepError
from machine.events import FactRecorded
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.io.client_work import CLIENT_NAMESPACES
from machine.io.outcome_turns import HandOut
from machine.io.step_function import KEYED, Classes, Step
from machine.io.step_transport import STEP, StepWork, announced
from machine.io.waiting_thread import at_once
from machine.watch.threads_and_programs import follow_callers
from machine.watch.watch import engine_at_work

T = TypeVar("T")


class StepOptions(TypedDict, total=False):
    """The options of a step; `IoProvider.step` describes them."""

    name: str
    returns: Any
    raises: Classes
    effect: bool
    timeout: float
    retry_on: Classes
    tries: int
    fresh: bool
    ignore_args: str | Sequence[str]
    on: str


class StepCalls(ABC):
    """The part of `io` that calls functions."""

    _scope: AttemptScope

    @property
    @abstractmethod
    def _handing(self) -> HandOut:
        """The calls of the attempt in flight."""

    @property
    def scope(self) -> AttemptScope:
        """The attempt whose handler has this `io`."""
        return self._scope

    @abstractmethod
    def _identify(
        self, namespace: str, request: Any, fact_key: str | None, *, keeps: bool | None = None
    ) -> Call:
        """Return the identified call."""

    @abstractmethod
    async def _fact(self, call: Call) -> FactRecorded:
        """Return the one fact of a call for all of its callers."""

    @abstractmethod
    async def _obtain(self, call: Call) -> FactRecorded:
        """Return the fact of a call that has none yet; it is in the log when this returns."""

    @abstractmethod
    async def _refused_to_repeat(self, call: Call, refusal: OtherIoError) -> FactRecorded:
        """Return the fact of a call that must not be made; it is in the log when this returns."""

    @abstractmethod
    def _before(self, call: Call) -> FactRecorded | OtherIoError | None:
        """Return the fact that already answers a call, or the error of one that must not be made."""

    @abstractmethod
    def _make_way(self, call: Call) -> None:
        """Let everything happen that has to be recorded before the fact of a call that cannot wait."""

    @abstractmethod
    def _read(self, fact: FactRecorded, decode: Callable[[Any], Any]) -> Any:
        """Return the recorded response of a fact, decoded."""

    @overload
    async def step(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        fact_key: str | None = None,
        **options: Unpack[StepOptions],
    ) -> T: ...

    @overload
    async def step(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        fact_key: str | None = None,
        **options: Unpack[StepOptions],
    ) -> T: ...

    async def step(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        fact_key: str | None = None,
        **options: Unpack[StepOptions],
    ) -> Any:
        """Call a function, async or plain, and return its recorded result. In a replay the function is not called.

        It may do any IO. Its name and arguments are the request; `kwargs` are its keyword arguments. Options:

        `name` in place of its own; `returns`, the type of the result; `raises`, classes of exceptions to raise as
        themselves; `effect=True` if it changes the outside world; `timeout` in seconds; `retry_on`, classes of
        exceptions after which it is called again, up to `tries` (3) times; `fresh=True` to call it again in an
        attempt after a failed one; `ignore_args`, names of arguments that are not recorded; `on="process"` to run a
        plain function in another process and not in a thread.
        """
        return await self.call_step(_step_of(function, options), args, kwargs or {}, fact_key)

    async def call_step(
        self, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any], fact_key: str | None = None
    ) -> Any:
        """Call a step and return its recorded result."""
        with engine_at_work():
            call, work = self._step_call(step, args, kwargs, fact_key)
            with announced(work):
                return self._step_result(await self._fact(call), work)

    def call_step_at_once(self, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the step of a plain function on the thread of the event loop, which stands still meanwhile."""
        with engine_at_work():
            call, work = self._step_call(step, args, kwargs, None)
            if step.effect:
                raise StateError(
                    f"the effect {step.name} is called on the thread of the event loop, which has to make its "
                    "intent durable first",
                    code=Code.INVALID_STEP,
                    hint="make its function async, await io.step(...), or call it in a handler that is a plain "
                    "function",
                )
            work.here = True
            with announced(work):
                return self._step_result(self._fact_at_once(call), work)

    def _step_call(
        self, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any], fact_key: str | None
    ) -> tuple[Call, StepWork]:
        scope = self._scope
        scope.check_open("called", step)
        follow_callers()
        bound = step.bind(args, kwargs)
        call = self._identify(STEP, bound.request, fact_key, keeps=not step.fresh)
        return call, StepWork(bound, (scope.log.history.run_id or "", scope.state.id))

    def _fact_at_once(self, call: Call) -> FactRecorded:
        """Return the fact of a call of a plain function on the event loop's own thread, which cannot wait."""
        refusal = call.refusal
        before = self._before(call) if refusal is None else None
        if isinstance(before, OtherIoError):
            before, refusal = None, before
        if before is None:
            self._make_way(call)
            if (controls := self._scope.run.controls) is not None:
                at_once(controls.admit(here=True))
            before = at_once(
                self._obtain(call) if refusal is None else self._refused_to_repeat(call, refusal)
            )
        self._handing.flush(call)
        return before

    def _step_result(self, fact: FactRecorded, work: StepWork) -> Any:
        try:
            return self._read(fact, work.result)
        except StepError as exc:
            raised = work.error(exc)
        raise raised

    def _intended_key(self, call: Call) -> str:
        """Return the idempotency key to record in the intent of an effect: that of its state, if it is sent."""
        if call.place is not None:
            return (self._scope.idempotency_key or "") if call.place.keyed else ""
        if call.namespace in CLIENT_NAMESPACES:
            sent = call.request.get("keyed")
        else:
            sent = call.namespace != STEP or call.request.get("effect") == KEYED
        return (self._scope.idempotency_key or "") if sent else ""


_known: Final[WeakKeyDictionary[Any, Step]] = WeakKeyDictionary()
"""The steps of functions that were called without options."""


def _step_of(function: Any, options: StepOptions) -> Step:
    made = getattr(function, "__machine_step__", None)
    if isinstance(made, Step):
        return made.with_options(options) if options else made
    if options or type(function) is not FunctionType:
        return Step.of(function, **options)
    step = _known.get(function)
    if step is None:
        step = _known[function] = Step.of(function)
    return step
