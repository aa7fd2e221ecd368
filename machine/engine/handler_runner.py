"""Calling what a user wrote, in a context of its own, and watching what it does without `io`.

The one place where a handler is called. Nothing here decides what its outcome means. What a handler sets in
context variables (`decimal.setcontext`, what a logging library binds) is not in the log, so each attempt has its
own: else a resumed run would not have it, and concurrent states would depend on who came first.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from time import monotonic
from typing import Any, Final, Self, TypeAlias

import attrs
from anyio.lowlevel import current_token

from machine.config import UndeclaredIo
from machine.engine.cancellation import Cancellations
from machine.engine.recorder import Recorder
from machine.engine.reporter import Reporter
from machine.engine.threads import call_in_thread
from machine.errors import Code, StateError
from machine.io.attempt_scope import AttemptScope
from machine.io.blocking import Blocking
from machine.io.provider import IoProvider
from machine.kernel.context import Context
from machine.plan import is_plain
from machine.state import Callee, reconcile_callee
from machine.watch import audit_hook
from machine.watch.setprofile import ProfiledWatch
from machine.watch.sys_monitoring import MonitoredWatch
from machine.watch.watch import ALLOWED, Undeclared, Watch, guarded, in_step, unguarded, watching

__all__ = ["HandlerRunner", "Refuse"]

HELD_SECONDS: Final = 1.0
"""Seconds for which a handler may hold the event loop before a warning names it."""


class HandlerCall:
    """Calls a function and awaits what it returns, each step of it in a copy of the context of now.

    `cancellations` is told of what is raised in it where it waits. `held` is told of each step that kept the
    event loop for long, in seconds. `waited` says for how many seconds the loop has waited for the engine so far,
    which is no handler's doing; without it no step is timed.
    """

    __slots__ = ("_cancellations", "_context", "_held", "_steps", "_waited")

    def __init__(
        self,
        cancellations: Cancellations,
        held: Callable[[float], None],
        waited: Callable[[], float] | None,
        function: Callable[..., Awaitable[Any]],
        *args: Any,
    ) -> None:
        self._cancellations = cancellations
        self._context = copy_context()
        self._steps = _steps(function, args)
        self._held = held
        self._waited = waited

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has what `await` uses of a generator

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._step(self._steps.send, None)

    def send(self, value: Any) -> Any:
        """Go on."""
        return self._step(self._steps.send, value)

    def throw(self, *exc: Any) -> Any:
        """Go on, where it awaits, with an exception."""
        self._cancellations.note(exc[0])
        return self._step(self._steps.throw, *exc)

    def close(self) -> None:
        """Close what is awaited."""
        in_step(self._context, self._context.run, self._steps.close)

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        if self._waited is None:
            return in_step(self._context, self._context.run, step, *args)
        began = monotonic() - self._waited()
        try:
            return in_step(self._context, self._context.run, step, *args)
        finally:
            seconds = monotonic() - self._waited() - began
            if seconds >= HELD_SECONDS:
                self._held(seconds)


async def _steps(function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
    return await function(*args)


Refuse: TypeAlias = Callable[[AttemptScope, Undeclared], BaseException]

_WATCH: Final[type[Watch]] = MonitoredWatch if sys.version_info >= (3, 12) else ProfiledWatch


class HandlerRunner:
    """Calls the handlers of one run, and sees to it that nothing they do gets round `io` unseen.

    What that means is `undeclared_io`; with `allow` nobody looks, and nothing is installed. In a replay `refuse`
    is given: it returns what is raised in place of what would reach or change the outside, whatever the recording
    allowed.
    """

    def __init__(
        self,
        undeclared_io: UndeclaredIo,
        reporter: Reporter,
        *,
        waited: Callable[[], float] | None = None,
        refuse: Refuse | None = None,
    ) -> None:
        """Take `waited`, the seconds in which the event loop waited for the engine; None where nobody minds."""
        self._undeclared_io = undeclared_io
        self._reporter = reporter
        self._waited = waited
        self._refuse = refuse
        self._looks = undeclared_io is not UndeclaredIo.ALLOW or refuse is not None
        self._watches = Watch if undeclared_io is UndeclaredIo.ALLOW else _WATCH
        self._allowed = ALLOWED.get()
        if refuse is not None:  # a second run is made within a run that may have nobody look
            audit_hook.install(following=True)
        self.failure: BaseException | None = None
        """What the reporter raised when it was told, which ends the run."""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Look, for the duration of the context, at what handlers do."""
        outer = watching()
        if (
            outer is not None
        ):  # in a handler: that there is a run is to be seen, what it does is its own affair
            frame, live = inspect.currentframe(), self._refuse is None
            outer.note("machine.run", "drives a run of its own", None, frame, effect=live)
        with unguarded():
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
    ) -> Any:
        """Call a function of an attempt's state, in a thread when it is `plain`, and return what it returns.

        `cancellations` is told of those that reach it. Raises what it raises.
        """
        cancellations = cancellations or Cancellations()
        if not self._looks:
            if plain:
                return await _in_thread(scope.state.id, callee, ctx, io, third)
            return await self._called(scope, cancellations, *callee.call(ctx, io, third))
        watch = self._watch(scope, callee.function, plain=plain)
        with guarded(watch):
            try:
                if plain:
                    returned = await _in_thread(scope.state.id, callee, ctx, io, third, watch=watch)
                else:
                    call = callee.call(ctx, io, third)
                    returned = await self._called(scope, cancellations, watch.run, *call)
            finally:
                watch.end()
        scope.refuse_undeclared()
        return returned

    def _called(self, scope: AttemptScope, cancellations: Cancellations, *call: Any) -> HandlerCall:
        return HandlerCall(cancellations, functools.partial(self._held, scope), self._waited, *call)

    def _held(self, scope: AttemptScope, seconds: float) -> None:
        with self._told():
            self._reporter.held(scope.state.id, seconds)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Note what the reporter raises, which ends the run whatever a handler makes of it."""
        try:
            yield
        except BaseException as exc:
            self.failure = exc
            raise

    def idempotency_key(self, scope: AttemptScope, ctx: Context) -> str | None:
        """Return the idempotency key of an attempt's state over a context. Raises `StateError` when it is none."""
        key = scope.state.meta.idempotency
        if not callable(key):
            return key
        if not self._looks:
            value = key(ctx)
        else:
            watch = self._watch(scope, key, plain=True, remedy="compute the idempotency key from the context")
            with guarded(watch):
                value = in_step(copy_context(), watch.call, key, ctx)
            scope.refuse_undeclared()
        if not isinstance(value, str) or not value or not value.isprintable():
            raise StateError(
                f"the idempotency key of {scope.state.id} must be a non-empty printable string, not {value!r}",
                code=Code.INVALID_IDEMPOTENCY_KEY,
            )
        scope.vault.refuse_in_key("the idempotency key", value)
        return value

    def _watch(self, scope: AttemptScope, function: Any, *, plain: bool, remedy: str | None = None) -> Watch:
        found = functools.partial(self._found, scope, set())
        return self._watches(
            found,
            function,
            plain=plain,
            remedy=remedy,
            alone=lambda: scope.quiet.alone,
            follows=self._refuse is not None,
            effects_only=self._undeclared_io is UndeclaredIo.ALLOW,
        )

    def _found(self, scope: AttemptScope, seen: set[tuple[str, int, str]], what: Undeclared) -> None:
        if what.event in self._allowed:
            return
        # what was refused when it was recorded too, is refused in the same way, to the same end
        as_recorded = self._undeclared_io is UndeclaredIo.ERROR and not scope.closed
        if self._refuse is not None and what.effect and not as_recorded:
            raise self._refuse(scope, attrs.evolve(what, does=scope.vault.text(what.does)))
        if self._undeclared_io is UndeclaredIo.ERROR:
            error = StateError(
                f"{scope.state.id} {scope.vault.text(what.does)} without io at {what.place}",
                code=Code.UNDECLARED_IO,
                details={"event": what.event, "place": what.place, "remedy": what.remedy},
                hint=what.remedy,
            )
            scope.undeclared = scope.undeclared or error
            raise error
        once = (what.file, what.line, what.remedy)  # one call may be several acts, and a loop comes by often
        if once not in seen and not scope.closed:
            seen.add(once)
            with self._told():
                self._reporter.undeclared(
                    scope.state.id, attrs.evolve(what, does=scope.vault.text(what.does))
                )


async def _in_thread(
    state_id: str,
    callee: Callee,
    ctx: Context,
    io: IoProvider,
    third: Any,
    *,
    watch: Watch | None = None,
) -> Any:
    token = current_token()
    if isinstance(third, Recorder):
        third = Blocking(third, token)
    call = callee.call(ctx, Blocking(io, token), third)
    if watch is not None:
        call = (watch.call, *call)
    result = await call_in_thread(getattr(callee.function, "__name__", "handler"), *call)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise StateError(
            f"a plain function of {state_id} returned a coroutine",
            code=Code.INVALID_OUTCOME,
            hint="declare it with async def",
        )
    return result
