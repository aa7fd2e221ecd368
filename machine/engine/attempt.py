"""One attempt of a state: a single call of its handler, within its limits, and the result or the interruption."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled, current_token

from machine.catalogue import Catalogue
from machine.config import RunConfig
from machine.engine.cancellation_origin import Cancellations, Stopped, running_loop, told_by_scope
from machine.engine.concurrent import Concurrent
from machine.engine.driver_protocols import DrivenLog, Earlier
from machine.engine.handler_runner import HandlerRunner
from machine.engine.reconcile import reconcile
from machine.engine.recorder import Recorder
from machine.engine.stop_signal import Control
from machine.io.attempt_scope import AttemptScope, RunScope
from machine.io.child_runs import Children
from machine.io.handler_tasks import BEGUN
from machine.io.parked_tasks import end_of_tasks
from machine.io.provider import IoProvider
from machine.io.put_away import PutAway
from machine.io.request_identity import RequestRules
from machine.io.run_controls import RunControls
from machine.io.settle_barrier import SettleBarrier
from machine.io.step_threads import threads_left, wait_for_threads
from machine.io.transport import Transport
from machine.kernel.cleanup import failure_of
from machine.kernel.context import Context
from machine.kernel.known_after_apply import DryContext
from machine.kernel.snapshot import Snapshot
from machine.recorded_clients import Clients
from machine.secrets.both_formats import OfAttempt
from machine.state import PlanState
from machine.watch.code_owner import CALLER


@attrs.define
class Attempts:
    """The attempts of one run, made on request. The driver decides what the result of an attempt means."""

    config: RunConfig
    log: DrivenLog
    provider: Callable[[AttemptScope], IoProvider]
    recorder: Callable[[AttemptScope], Recorder]
    transports: Mapping[str, Transport]
    catalogue: Catalogue | None
    control: Control
    runner: HandlerRunner
    concurrent: Concurrent
    base: Callable[[str, str], Snapshot]
    """Function that returns the context that an attempt begins on, given the ids of its state and of a snapshot."""
    live: bool
    requests: RequestRules
    clients: Clients
    children: Children | None
    controls: RunControls | None
    whole: anyio.CancelScope | None = attrs.field(default=None, init=False)
    """Cancel scope of all attempts of a replay; the first cancelled attempt ends it. A scope for each would be
    slow."""
    _run: RunScope | None = attrs.field(default=None, init=False)
    _asyncio: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _patient_until: float = attrs.field(default=-math.inf, init=False)
    """The time, by `time.monotonic`, up to which the deadline of `whole` is certain not to end a handler too
    early."""

    async def make(
        self,
        state: PlanState,
        attempt: int,
        ctx: Context,
        secrets: OfAttempt,
        earlier: Earlier | None = None,
    ) -> tuple[AttemptScope, Any]:
        """Run the handler once and return what it returned. Raises what it raised, `TimedOut`, or `PutAway`.

        `earlier` is the recorded part of an attempt that was put away before.
        """
        if self._run is None:
            self._run, self._asyncio = self._shared(), running_loop()
        if self.live:
            try:
                if threads_left():
                    await wait_for_threads((self.log.history.run_id or "", state.id))
            except anyio.get_cancelled_exc_class() as exc:
                raise Stopped(exc) from None
        log = self.log if earlier is None else earlier.log
        barrier = SettleBarrier(self.concurrent.tasks, blocking=state.blocking)
        scope = AttemptScope(self._run, state, attempt, log, barrier, secrets)
        scope.around = self.control.scope, self.concurrent.scope
        scope.context = ctx
        if isinstance(ctx, DryContext):
            ctx.preview = functools.partial(self.runner.preview, scope, ctx)
        scope.idempotency_key = self.runner.idempotency_key(scope, ctx)
        io, rec = self.provider(scope), self.recorder(scope)
        if earlier is not None:
            io, rec = earlier.io(scope, io), earlier.recorder(scope)
        cancellations = Cancellations(self._asyncio)
        scope.main = cancellations.task
        timeout = state.meta.timeout
        made_of_it: BaseException | None = None
        BEGUN.set(scope.begun)
        caller = CALLER.get()
        CALLER.set(io)
        try:
            try:
                seconds = self.log.limit(timeout)
                if seconds is None:
                    outcome = await self._work(scope, ctx, io, rec, cancellations)
                elif self.whole is None:
                    due = anyio.current_time() + seconds
                    limit = scope.limit = anyio.CancelScope(deadline=due)
                    try:
                        with limit:
                            outcome = await self._work(scope, ctx, io, rec, cancellations)
                    finally:
                        if (
                            anyio.current_time() >= due
                        ):  # a handler that held the event loop could not be interrupted
                            limit.cancel()
                else:
                    scope.limit = self.whole
                    due = time.monotonic() + seconds
                    if self._patient_until < due:
                        # twice as long, so that the deadline need not be moved at every step
                        scope.limit.deadline = anyio.current_time() + 2 * seconds
                        self._patient_until = due + seconds
                    outcome = await self._work(scope, ctx, io, rec, cancellations)
                if scope.put_away:
                    raise PutAway  # noqa: TRY301 - whatever the handler made of it
                if (databases := scope.opened_databases) is not None:
                    databases.refuse_left_open(scope)
                if not self._cut(scope, cancellations):
                    scope.returned = self.live
                    return scope, outcome
            except BaseException as exc:
                if scope.put_away and not (
                    scope.cut or (self.live and cancellations.beyond(scope.interrupts))
                ):
                    await end_of_tasks(scope)
                    raise PutAway from None
                if cancellations.from_outside(exc):
                    if self.whole is not None and self.whole.cancel_called:
                        raise self.log.overdue(state, timeout) from None
                    raise Stopped(exc) from None
                if isinstance(exc, KeyboardInterrupt):
                    raise
                if not self._cut(scope, cancellations):
                    scope.refuse_undeclared()
                    raise
                made_of_it = exc
            scope.refuse_undeclared()
            cancelled = anyio.get_cancelled_exc_class()
            try:
                if self.whole is None:
                    await checkpoint_if_cancelled()  # raises a cancellation of a scope around the run
                    await checkpoint()  # raises a cancellation of the task that has not been delivered yet
                if not scope.late:
                    raise cancelled  # noqa: TRY301 - or what its task was asked
            except cancelled as exc:
                raise Stopped(await told_by_scope(exc, cut=scope.cut and self.live)) from made_of_it
            raise self.log.overdue(state, timeout) from made_of_it
        finally:
            BEGUN.set(None)
            CALLER.set(caller)
            cancellations.forget()
            if not io.unused:
                await io.end()
            scope.closed = True

    def _shared(self) -> RunScope:
        return RunScope(
            self.config,
            self.transports,
            self.catalogue,
            self.requests,
            self.clients,
            current_token(),
            self.log.timers,
            self.children,
            self.controls,
        )

    def _work(
        self, scope: AttemptScope, ctx: Context, io: IoProvider, rec: Recorder, cancellations: Cancellations
    ) -> Coroutine[Any, Any, Any]:
        state = scope.state
        failure = failure_of(self.log.history) if state.meta.cleanup else None
        call = self.runner.call(
            scope,
            state.callee,
            ctx,
            io,
            rec,
            plain=state.blocking,
            cancellations=cancellations,
            failure=failure,
        )
        return call if state.meta.reconcile is None else self._reconciled(scope, io, call)

    async def _reconciled(self, scope: AttemptScope, io: IoProvider, call: Coroutine[Any, Any, Any]) -> Any:
        """Clear up what earlier attempts have left uncertain, then make the call."""
        state_id, checkpoint_id = scope.state.id, self.log.history.checkpoint or ""
        with contextlib.closing(call):
            await reconcile(scope, io, self.runner, lambda: self.base(state_id, checkpoint_id))
            return await call

    def _cut(self, scope: AttemptScope, cancellations: Cancellations) -> bool:
        """Say whether the engine interrupted an attempt, even if its handler then returned or raised an error.

        That one of the engine's scopes was cancelled counts once the cancellation has reached the handler.
        """
        if scope.limit is not None and scope.late:
            return True
        return self.live and ((cancellations.reached and scope.cut) or cancellations.requested)
