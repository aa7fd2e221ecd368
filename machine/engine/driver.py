"""The driver: decide, perform, append, and nothing else.

`start`, `resume` and `replay` are this one loop, given another history, another log and another `io`. What comes
next is `kernel.decide`'s business; what a handler sees of the outside is `io`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint

from machine.catalogue import Catalogue
from machine.config import Durability, RunConfig
from machine.engine.attempt import Attempts
from machine.engine.attempt_result import Ending, behind
from machine.engine.cancellation import Stopped
from machine.engine.concurrent import Concurrent
from machine.engine.handler_runner import HandlerRunner, Refuse
from machine.engine.left_behind import Leftovers
from machine.engine.opening import begin, going_on
from machine.engine.protocols import DrivenLog, Opening, Second, TimedOut
from machine.engine.recorder import Recorder
from machine.engine.reporter import Reporter
from machine.engine.stop_signal import Control
from machine.errors import ErrorInfo, StateError
from machine.events import (
    ArtifactKind,
    Event,
    PlanWait,
    RetryScheduled,
    RunCompleted,
    RunResumed,
    RunSuspended,
    SecretWait,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
)
from machine.failures import interrupted, orphaned
from machine.io.attempt_scope import AttemptScope, Payloads, running_tasks
from machine.io.begun_tasks import notice_tasks
from machine.io.provider import IoProvider
from machine.io.transport import Transport
from machine.kernel.context import Context
from machine.kernel.decide import decide
from machine.kernel.decisions import (
    ChangePlan,
    CompleteRun,
    Decision,
    Done,
    EnterState,
    LoseSecrets,
    RecoverOrphan,
    ResumeRun,
    ScheduleRetry,
    SkipState,
    StartRun,
    SuspendRun,
)
from machine.kernel.frontier import Frontier
from machine.kernel.scheduler import Schedule
from machine.kernel.snapshot import Snapshot
from machine.plan import Graph, PlanState
from machine.secrets.knowing import OfRun
from machine.watch.watch import behind_io

__all__ = ["Run"]


@attrs.define
class Run:
    """One run being driven. `opening` is needed only while the log is empty."""

    graph: Graph
    config: RunConfig
    log: DrivenLog
    provider: Callable[[AttemptScope], IoProvider]
    transports: Mapping[str, Transport]
    catalogue: Catalogue
    reporter: Reporter
    live: bool
    vault: OfRun
    control: Control = attrs.field(factory=Control)
    recorder: Callable[[AttemptScope], Recorder] = Recorder
    opening: Opening | None = None
    snapshot: Snapshot | None = None
    second: Second | None = None
    refuse: Refuse | None = None
    """In a replay, what is raised in place of what a handler would do to the outside without `io`."""
    schedule: Schedule | None = None
    """Only where states run side by side."""
    careful: int = 0
    """Before how many attempts yet the run waits for the disk: one that kills the process is in the log then."""
    abreast: int = attrs.field(init=False)
    """How many states the run has in hand at a time; what each of them does is the same however many."""
    attempts: Attempts = attrs.field(init=False)
    concurrent: Concurrent = attrs.field(init=False)
    _runner: HandlerRunner = attrs.field(init=False)
    _leftovers: Leftovers = attrs.field(factory=Leftovers, init=False)
    _overlooked: ErrorInfo | None = attrs.field(default=None, init=False)
    """The error of a task that outlived a completed attempt and has used `io` or `rec` since."""
    _concurrent: bool = attrs.field(init=False)
    _bounded: bool = attrs.field(init=False)
    """True when the run is to be durable at the bounds of states."""

    def __attrs_post_init__(self) -> None:
        waited = (lambda: self.log.waited) if self.live else None
        self._runner = HandlerRunner(
            self.config.undeclared_io, self.reporter, waited=waited, refuse=self.refuse
        )
        self.concurrent = Concurrent(self)
        self.attempts = Attempts(
            self.config,
            self.log,
            self.provider,
            self.recorder,
            self.transports,
            self.catalogue,
            self.control,
            self._runner,
            self.concurrent,
            self._base,
            self.live,
        )
        at_a_time = self.config.execution_mode.max_concurrency
        # a replay waits for nothing that others could use, and a second run makes one attempt after the other
        alone = not self.live or self.second is not None
        self.abreast = 1 if alone else at_a_time or 1
        self._concurrent = at_a_time is not None
        self._bounded = self.live and self.config.durability is not Durability.EFFECTS

    async def drive(self) -> None:
        """Perform decisions until the run is done, is suspended or is told to stop."""
        self.concurrent.tasks |= running_tasks()
        noticing = notice_tasks() if self.live else nullcontext()
        with noticing, self.control.listening(), self._runner.open():
            self.attempts.whole = None if self.live else self.control.scope
            await (self._decisions() if self.abreast == 1 else self.concurrent.drive())
        self.refuse_if_aborted()
        if self.control.cancelling:
            await self._decisions()  # what is left of a cancelled run, in which nothing is waited for
        await self.log.durable()

    @property
    def at_hand(self) -> Snapshot | None:
        """The last context that is at hand."""
        return self.snapshot if self.schedule is None else self.schedule.frontier.last

    def again(self, **changes: Any) -> Run:
        """Return the driver of a second run of this one, which writes and performs nothing."""
        return attrs.evolve(self, live=False, opening=None, snapshot=None, second=None, **changes)

    async def _decisions(self) -> None:
        while not isinstance(decision := self.decided(), Done):
            await self.perform(decision)

    def decided(self) -> Decision:
        """Return what comes next."""
        said = self.log.outside(self.graph)
        if self._concurrent:
            if self.schedule is None or said.graph is not self.graph:
                self.schedule = Schedule(Frontier(said.graph, behind_io(self.log.load)), self.concurrent.busy)
            self.schedule.prefer = said.prefer
        self.graph = said.graph
        return decide(
            self.graph,
            self.config,
            self.log.history,
            cancel=said.cancel,
            failed=said.failed or self._overlooked,
            limited=said.limited,
            secrets_lost=said.secrets_lost,
            schedule=self.schedule,
        )

    async def perform(self, decision: Decision) -> None:
        """Do what was decided and write down what came of it."""
        match decision:
            case EnterState():  # first, for it is nearly always this
                await self.enter(decision)
            case StartRun():
                assert self.opening is not None
                at_a_time = self.config.execution_mode.max_concurrency
                self.snapshot = await begin(self.log, self.graph, self.opening, at_a_time)
            case RecoverOrphan(state_id):
                await self._emit(StateFailed(state_id, orphaned(state_id)))
            case SkipState(state_id, reason):
                await self._emit(StateSkipped(state_id, reason))
            case ScheduleRetry(state_id, attempt, delay_ms):
                await self._emit(RetryScheduled(state_id, attempt, delay_ms))
            case SuspendRun(waits):
                await self._emit(RunSuspended(waits))
            case ResumeRun():
                await self._emit(RunResumed("operator"))
            case ChangePlan(plan_id, suspended):
                payloads = Payloads()
                payloads.add(ArtifactKind.PLAN, self.graph.shape_bytes)
                goes_on = RunResumed("plan_change", plan_id)
                await self.log.emit(going_on(PlanWait(plan_id), goes_on, suspended=suspended), payloads)
            case LoseSecrets(suspended):
                goes_on = RunResumed("secrets_lost", secrets_lost=True)
                await self.log.emit(going_on(SecretWait(), goes_on, suspended=suspended))
            case CompleteRun(status, final_snapshot_id, error):
                await self._emit(RunCompleted(status.value, final_snapshot_id, error), self._merged())

    def _merged(self) -> Payloads | None:
        """Return what is new in the context where states that ran side by side have come together."""
        if self.schedule is None:
            return None
        payloads = Payloads()
        payloads.add_all(ArtifactKind.CONTEXT_SNAPSHOT, self.schedule.frontier.take_made())
        return payloads

    async def _emit(
        self, event: Event, payloads: Payloads | None = None, info: Mapping[str, str] | None = None
    ) -> None:
        await self.log.emit([event], payloads, info)

    def _base(self, state_id: str, snapshot_id: str) -> Snapshot:
        """Return the context that an attempt of a state begins on."""
        if self.schedule is not None:
            return self.schedule.frontier.base(state_id)
        if self.snapshot is None or self.snapshot.id != snapshot_id:
            self.snapshot = Snapshot.open(snapshot_id, behind_io(self.log.load))
        return self.snapshot

    async def enter(self, decision: EnterState) -> None:
        """Run one attempt of a state, from its `state_entered` to what ends it."""
        if self.live and decision.delay_ms:
            waited = time.time_ns() // 1_000_000 - decision.since_ms
            left = min(decision.delay_ms, decision.delay_ms - waited) / 1000
            if left > 0:
                await self.log.durable()
                self.reporter.waiting(decision.state_id, left)
                await anyio.sleep(left)
        if self.log.carry(decision):
            return
        state = self.graph.states[decision.state_id]
        entered = StateEntered(state.id, decision.attempt, decision.base_snapshot_id)
        await self.log.emit([entered], self._merged())
        if self._bounded or self.careful:
            self.careful = max(self.careful - 1, 0)
            await self._boundary()
        payloads = Payloads()
        try:
            ending, info = await self._tried(state, decision, payloads)
            if self.second is not None:
                self.refuse_if_aborted()
                differs = await self.second.differs(self, decision, ending, payloads)
                if differs is not None:
                    ending, payloads, info = (
                        StateFailed(state.id, self.vault.attempt().error(differs)),
                        Payloads(),
                        None,
                    )
        except (Stopped, KeyboardInterrupt, anyio.get_cancelled_exc_class()) as exc:
            self.refuse_if_aborted()
            if self.live:  # in replay nobody cuts an attempt that was not cut when it was recorded
                error = interrupted(state.id, cancelled=self.control.cancelling)
                await self._emit(StateFailed(state.id, error), info=behind(exc, self.vault.attempt()))
            raise (exc.cancellation if isinstance(exc, Stopped) else exc) from None
        self.refuse_if_aborted()
        await self.log.emit([ending], payloads, info)
        if self._bounded and self.schedule is not None:
            await self._boundary()  # which is not that of the next state: others may be long at work

    async def _boundary(self) -> None:
        """Wait for the disk."""
        if self._bounded and self.abreast > 1:
            await checkpoint()  # what the others are about to write goes to the disk with it
        await self.log.durable()

    async def _tried(
        self, state: PlanState, decision: EnterState, payloads: Payloads
    ) -> tuple[Event, Mapping[str, str] | None]:
        """Run an attempt and return the event that ends it, and what is informational about that."""
        base = self._base(state.id, decision.base_snapshot_id)
        ctx = Context(base)
        followed = None if self.schedule is None else self.schedule.frontier.followed
        vault = self.vault.attempt(state.id, followed, but=self.log.history.states[state.id].orphans)
        ending = Ending(state, ctx, vault, side_by_side=self.schedule is not None)
        try:
            scope, outcome = await self.attempts.make(state, decision.attempt, ctx, vault)
            ended, snapshot = ending.returned(outcome, self.graph, base, payloads)
            completed = isinstance(ended[0], StateCompleted)
            left = await self._leftovers.used(scope) if self.live and completed else None
            scope.overlooked = self._overlook if completed else None
            if left is not None:
                payloads.items.clear()
                return StateFailed(state.id, vault.error(left.info)), ending.info()
        except TimedOut as exc:
            return StateFailed(state.id, exc.info), ending.info(**behind(exc, vault))
        except (Stopped, KeyboardInterrupt):
            raise
        except BaseException as exc:  # noqa: BLE001 - a handler may raise anything, and it is recorded
            self.refuse_if_aborted()
            return ending.failed(exc)
        if self.schedule is None:
            self.snapshot = snapshot
        else:
            self.schedule.frontier.know(snapshot)
        return ended

    def refuse_if_aborted(self) -> None:
        """Raise why the run cannot go on, whatever a handler made of it."""
        reason = self.log.abort() or self._runner.failure
        if reason is not None:
            raise reason

    def _overlook(self, error: StateError) -> None:
        self._overlooked = self._overlooked or self.vault.attempt().error(error.info)
