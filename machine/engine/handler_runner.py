"""Calls of user code, each in its own context and watched for undeclared IO.

This is the one place where a handler is called. Nothing here decides what its outcome means. Values that a handler
sets in context variables (`decimal.setcontext`, or those a logging library binds) are not in the log, so each
attempt has its own: otherwise a resumed run would lack them, and concurrent states would depend on the order in
which they ran.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from time import monotonic
from types import MappingProxyType
from typing import Any, Final, Protocol, Self

import attrs
from anyio.lowlevel import current_token

from machine.callee import Callee, reconcile_callee
from machine.config import UndeclaredIo
from machine.engine.blocking_recorder import BlockingRecorder
from machine.engine.cancellation_origin import Cancellations, running_loop
from machine.engine.commit_queue import StandingStill
from machine.engine.handler_threads import call_in_thread
from machine.engine.recorder import Recorder
from machine.engine.reporter import Reporter
from machine.errors import Code, ErrorInfo, MachineError, StateError
from machine.io.attempt_scope import AttemptScope
from machine.io.blocking_io import Blocking
from machine.io.provider import IoProvider
from machine.kernel.context import Context
from machine.state import is_plain
from machine.watch import audit_hook
from machine.watch.setprofile import ProfiledWatch
from machine.watch.sys_monitoring import MonitoredWatch
from machine.watch.watch import (
    ALLOWED,
    Undeclared,
    Watch,
    engine_at_work,
    guarded,
    guarded_copy,
    in_step,
    watching,
)

HELD_SECONDS: Final = 1.0
"""Seconds for which a handler may hold the event loop before a warning names it."""


class HandlerCall:
    """An awaitable call of a function for an attempt, with each step run in a context of its own.

    `cancellations` records exceptions thrown into it where it waits. `runner` gets each step that holds the event
    loop for long; the seconds in which the loop stood still for the engine do not count for the handler.
    """

    __slots__ = ("_cancellations", "_context", "_runner", "_scope", "_steps")

    def __init__(
        self,
        runner: HandlerRunner,
        scope: AttemptScope,
        cancellations: Cancellations,
        context: contextvars.Context,
        function: Callable[..., Awaitable[Any]],
        *args: Any,
    ) -> None:
        self._runner = runner
        self._scope = scope
        self._cancellations = cancellations
        self._context = context
        self._steps = _steps(function, args)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has all that `await` needs of a generator

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._step(self._steps.send, None)

    def send(self, value: Any) -> Any:
        """Resume with a value."""
        return self._step(self._steps.send, value)

    def throw(self, *exc: Any) -> Any:
        """Resume with an exception."""
        self._cancellations.note(exc[0])
        return self._step(self._steps.throw, *exc)

    def close(self) -> None:
        """Close the awaited coroutine."""
        in_step(self._context, self._context.run, self._steps.close)

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        stalls = self._runner.stalls
        if stalls is None:
            return in_step(self._context, self._context.run, step, *args)
        began = monotonic() - stalls.seconds
        try:
            return in_step(self._context, self._context.run, step, *args)
        finally:
            seconds = monotonic() - stalls.seconds - began
            if seconds >= HELD_SECONDS:
                self._runner.held(self._scope, seconds)


async def _steps(function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
    return await function(*args)


class Refuse(Protocol):
    """The recording of a replay, which refuses undeclared acts."""

    def refused(self, scope: AttemptScope, what: Undeclared) -> BaseException:
        """Return the exception to raise for an act that would read or change the outside world."""
        ...

    def failed_as(self, exc: MachineError) -> MachineError | None:
        """Return an error in the wording of the version that recorded it, if the attempt failed with it."""
        ...


_WATCH: Final[type[Watch]] = MonitoredWatch if sys.version_info >= (3, 12) else ProfiledWatch


class HandlerRunner:
    """The runner of one run's handlers, which also detects whatever they do without `io`.

    The reaction is chosen by `undeclared_io`; with `allow` nothing is watched, and nothing is installed. In a
    replay `refuse` is given: its recording refuses what would read or change the outside world, even what the run
    allowed.
    """

    def __init__(
        self,
        undeclared_io: UndeclaredIo,
        reporter: Reporter,
        *,
        stalls: StandingStill | None = None,
        refuse: Refuse | None = None,
    ) -> None:
        """Take `stalls`, the time in which the event loop stood still for the engine; None: no step is timed."""
        self._undeclared_io = undeclared_io
        self._reporter = reporter
        self.stalls = stalls
        self._refuse = refuse
        self._looks = undeclared_io is not UndeclaredIo.ALLOW or refuse is not None
        self._watches = Watch if undeclared_io is UndeclaredIo.ALLOW else _WATCH
        self._allowed = ALLOWED.get()
        if refuse is not None:  # a paranoid second run works within a run that may not watch at all
            audit_hook.install(following=True)
        self.failure: BaseException | None = None
        """The exception that the reporter raised, which ends the run."""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Watch what handlers do for the duration of the context."""
        outer = watching()
        if outer is not None:  # a run within a handler is reported; what that run does is not
            frame, live = inspect.currentframe(), self._refuse is None
            outer.note("machine.run", "drives a run of its own", None, frame, effect=live)
        with engine_at_work():
            if not self._looks:
                yield
                return
            audit_hook.install(following=self._refuse is not None)
            self._watches.listen()
            try:
                yield
            finally:
                self._watches.unlisten()

    async def reconcile(self, scope: AttemptScope, ctx: Context, io: IoProvider, effect: Any) -> Any:
        """Call the reconcile function of an attempt's state on an effect without an outcome."""
        function = scope.state.meta.reconcile
        assert function is not None
        callee = reconcile_callee(function)
        return await self.call(scope, callee, ctx, io, effect, plain=is_plain(function))

    async def call(
        self,
        scope: AttemptScope,
        callee: Callee,
        ctx: Context,
        io: IoProvider,
        third: Any,
        *,
        plain: bool,
        cancellations: Cancellations | None = None,
        failure: ErrorInfo | None = None,
    ) -> Any:
        """Call a function of an attempt's state, in a thread when it is `plain`, and return its result.

        `cancellations` records those that reach the function, `failure` is what a cleanup state is given. Raises
        what the function raises.
        """
        if cancellations is None:
            cancellations = Cancellations(running_loop())
        if not self._looks:
            if plain:
                return await _in_thread(scope, callee, ctx, io, third, failure=failure)
            call = callee.call(ctx, io, third, failure)
            return await HandlerCall(self, scope, cancellations, copy_context(), *call)
        watch = self._watch(scope, callee.function, plain=plain)
        try:
            if plain:
                with guarded(watch):
                    returned = await _in_thread(scope, callee, ctx, io, third, failure=failure, watch=watch)
            else:
                call = callee.call(ctx, io, third, failure)
                context = guarded_copy(watch)
                returned = await HandlerCall(self, scope, cancellations, context, watch.run, *call)
        finally:
            watch.end()
        scope.refuse_undeclared()
        return returned

    def held(self, scope: AttemptScope, seconds: float) -> None:
        """Report an attempt whose handler has held the event loop for so long."""
        with self._told():
            self._reporter.held(scope.state.id, seconds)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Save an exception of the reporter, which ends the run even if a handler suppresses it."""
        try:
            yield
        except BaseException as exc:
            self.failure = exc
            raise

    def idempotency_key(self, scope: AttemptScope, ctx: Context) -> str | None:
        """Return the idempotency key of an attempt's state for a context.

        Raises `StateError` for an invalid key.
        """
        key = scope.state.meta.idempotency
        if not callable(key):
            return key
        value = self._computed(scope, "compute the idempotency key from the context", key, ctx)
        if not isinstance(value, str) or not value or not value.isprintable():
            raise StateError(
                f"the idempotency key of {scope.state.id} must be a non-empty printable string, not {value!r}",
                code=Code.INVALID_IDEMPOTENCY_KEY,
            )
        scope.secrets.refuse_in_key("the idempotency key", value)
        return value

    def preview(self, scope: AttemptScope, ctx: Context, request: Any) -> Any:
        """Return the outcome that the `preview` function of an attempt's state gives for a request."""
        remedy, before = "compute the preview from the context and the request", scope.undeclared
        try:
            return self._computed(scope, remedy, scope.state.meta.preview, MappingProxyType(ctx), request)
        finally:
            scope.undeclared = before  # a replay does not call it: its failure is the outcome of the effect

    def _computed(self, scope: AttemptScope, remedy: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of a state's declaration, which may only compute."""
        if not self._looks:
            return function(*args)
        watch = self._watch(scope, function, plain=True, remedy=remedy)
        with guarded(watch):
            value = in_step(copy_context(), watch.call, function, *args)
        scope.refuse_undeclared()
        return value

    def _watch(self, scope: AttemptScope, function: Any, *, plain: bool, remedy: str | None = None) -> Watch:
        found = functools.partial(self._found, scope, set())
        return self._watches(
            found,
            function,
            plain=plain,
            remedy=remedy,
            alone=lambda: scope.barrier.alone,
            follows=self._refuse is not None,
            effects_only=self._undeclared_io is UndeclaredIo.ALLOW,
        )

    def _found(self, scope: AttemptScope, seen: set[tuple[str, int, str]], what: Undeclared) -> None:
        if what.event in self._allowed:
            return
        # an act that was refused in the recording is refused in the same way, to the same end
        as_recorded = self._undeclared_io is UndeclaredIo.ERROR and not scope.closed
        if self._refuse is not None and what.effect and not as_recorded:
            raise self._refuse.refused(scope, attrs.evolve(what, does=scope.secrets.text(what.does)))
        if self._undeclared_io is UndeclaredIo.ERROR:
            error = StateError(
                f"{scope.state.id} {scope.secrets.text(what.does)} without io at {what.place}",
                code=Code.UNDECLARED_IO,
                details={"event": what.event, "place": what.place, "remedy": what.remedy},
                hint=what.remedy,
            )
            if self._refuse is not None:
                self._refuse.failed_as(error)  # in the words of the version that recorded it
            scope.undeclared = scope.undeclared or error
            raise error
        once = (what.file, what.line, what.remedy)  # one call may be several acts, and a loop repeats it
        if once not in seen and not scope.closed:
            seen.add(once)
            with self._told():
                self._reporter.undeclared(
                    scope.state.id, attrs.evolve(what, does=scope.secrets.text(what.does))
                )


async def _in_thread(
    scope: AttemptScope,
    callee: Callee,
    ctx: Context,
    io: IoProvider,
    third: Any,
    *,
    failure: ErrorInfo | None,
    watch: Watch | None = None,
) -> Any:
    token = current_token()
    scope.lent = lent = io.lends(concurrent=scope.concurrent)
    if isinstance(third, Recorder):
        third = BlockingRecorder(third, token, lent)
    call = callee.call(ctx, Blocking(io, token, lent), third, failure)
    if watch is not None:
        call = (watch.call, *call)
    with nullcontext() if lent is None else lent.lent():
        result = await call_in_thread(getattr(callee.function, "__name__", "handler"), *call)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise StateError(
            f"a plain function of {scope.state.id} returned a coroutine",
            code=Code.INVALID_OUTCOME,
            hint="declare it with async def",
        )
    return result
