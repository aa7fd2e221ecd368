"""The driver: decide, perform, append, and nothing else.

`start`, `resume` and `replay` are this one loop with another history, another log and another `io`. `kernel.decide`
chooses the next step; `io` determines what a handler receives from the outside world.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint

from machine.catalogue import Catalogue
from machine.clients.recording import recording
from machine.config import Durability, RunConfig
from machine.engine.attempt import Attempts
from machine.engine.attempt_result import Ending, behind
from machine.engine.cancellation_origin import Stopped
from machine.engine.concurrent import Concurrent
from machine.engine.driver_protocols import DrivenLog, Earlier, Family, Info, Opening, Second, TimedOut
from machine.engine.events_of_decisions import end_of, events_of
from machine.engine.handler_runner import HandlerRunner, Refuse
from machine.engine.in_process_waits import answered_or
from machine.engine.leftover_tasks import Leftovers
from machine.engine.new_run import begin
from machine.engine.recorder import Recorder
from machine.engine.reporter import Reporter
from machine.engine.retry_delay import wait_for_retry
from machine.engine.stop_signal import Control
from machine.errors import ErrorInfo, StateError
from machine.events import (
    ArtifactKind,
    Event,
    RetryScheduled,
    RunSuspended,
    StateCompleted,
    StateEntered,
    StateFailed,
)
from machine.exception_to_error_info import interrupted, suspended
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.io.handler_tasks import notice_tasks
from machine.io.provider import IoProvider
from machine.io.put_away import PutAway
from machine.io.request_identity import RequestRules
from machine.io.run_controls import RunControls
from machine.io.settle_barrier import running_tasks
from machine.io.transport import Transport
from machine.kernel.decide import decide
from machine.kernel.decisions import (
    BeginCleanup,
    ChangePlan,
    CompleteRun,
    Decision,
    Done,
    EnterState,
    ReachLimit,
    ScheduleRetry,
    StartRun,
    SuspendRun,
)
from machine.kernel.frontier import Frontier
from machine.kernel.known_after_apply import context_on
from machine.kernel.scheduler import Schedule
from machine.kernel.snapshot import Snapshot
from machine.kernel.suspension import of_handlers
from machine.plan import Graph
from machine.recorded_clients import Clients
from machine.secrets.both_formats import OfRun
from machine.state import PlanState
from machine.watch.watch import behind_io


@attrs.define
class Run:
    """One run being driven. `opening` is needed only while the log is empty."""

    graph: Graph
    config: RunConfig
    log: DrivenLog
    provider: Callable[[AttemptScope], IoProvider]
    transports: Mapping[str, Transport]
    catalogue: Catalogue | None
    reporter: Reporter
    live: bool
    secrets: OfRun
    requests: RequestRules
    context_format: int
    clients: Clients
    """The libraries whose clients are recorded."""
    control: Control = attrs.field(factory=Control)
    recorder: Callable[[AttemptScope], Recorder] = Recorder
    opening: Opening | None = None
    snapshot: Snapshot | None = None
    second: Second | None = None
    refuse: Refuse | None = None
    """In a replay, returns the exception for an undeclared act of a handler."""
    schedule: Schedule | None = None
    """The schedule of a run with concurrent states, otherwise None."""
    check: Callable[[Run], Awaitable[None]] | None = None
    """Looks through the run before it continues, and raises what speaks against it."""
    goes_on: Callable[[], Awaitable[bool]] | None = None
    """Waits for answers where only waits are left, and says whether there is one; None: the run is suspended."""
    earlier: Callable[[str, int], Earlier] | None = None
    """Returns the recorded part of an attempt that was suspended, in a live run."""
    children: Family | None = None
    """The child runs, None where none can be begun."""
    controls: RunControls | None = None
    """The controls that every call of a live run passes before it is made."""
    careful: int = 0
    """The number of attempts before which the run waits for the disk, so that one that kills the process is
    recorded."""
    concurrency: int = attrs.field(init=False)
    """The maximum number of states in progress; it does not change what any of them does."""
    attempts: Attempts = attrs.field(init=False)
    concurrent: Concurrent = attrs.field(init=False)
    _runner: HandlerRunner = attrs.field(init=False)
    _leftovers: Leftovers = attrs.field(factory=Leftovers, init=False)
    _overlooked: ErrorInfo | None = attrs.field(default=None, init=False)
    """The error of a task that outlived a completed attempt and has used `io` or `rec` since."""
    _concurrent: bool = attrs.field(init=False)
    _bounded: bool = attrs.field(init=False)
    """True when the run must be durable at state boundaries."""

    def __attrs_post_init__(self) -> None:
        self._runner = HandlerRunner(
            self.config.undeclared_io, self.reporter, stalls=self.log.stalls, refuse=self.refuse
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
            self.requests,
            self.clients,
            self.children,
            self.controls,
        )
        max_concurrency = self.config.execution_mode.max_concurrency
        # a replay has no waiting time to use, and a paranoid run makes one attempt after another
        self.concurrency = 1 if not self.live or self.second is not None else max_concurrency or 1
        self._concurrent = max_concurrency is not None
        self._bounded = self.live and self.config.durability is not Durability.EFFECTS

    async def drive(self) -> None:
        """Perform decisions until the run is done, is suspended or is asked to stop."""
        self.concurrent.tasks |= running_tasks()
        await self._until_stopped(self.check)
        while self.control.ending:  # what is left then waits for nothing, unless there is a cleanup to do
            if await self._decisions(while_ending=True):
                break
            await self._until_stopped()
        await self.log.durable()
        if self.control.stopped is not None and not self.log.history.final:
            raise self.control.stopped

    async def _until_stopped(self, check: Callable[[Run], Awaitable[None]] | None = None) -> None:
        """Perform decisions until the run is done, is suspended or is asked to stop; look through it first."""
        noticing = notice_tasks() if self.live else nullcontext()
        with noticing, self.control.listening(), self._runner.open(), recording(self.clients, live=self.live):
            self.attempts.whole = None if self.live else self.control.scope
            if check is not None:
                await check(self)
            await (self._decisions() if self.concurrency == 1 else self.concurrent.drive())
        self.refuse_if_aborted()

    @property
    def at_hand(self) -> Snapshot | None:
        """The last context that is in memory, or None."""
        return self.snapshot if self._frontier is None else self._frontier.last

    @property
    def _frontier(self) -> Frontier | None:
        """The contexts of concurrent states; None in sequential mode, and from the beginning of the cleanup."""
        return self.schedule.frontier if self.schedule and self.log.history.cleanup is None else None

    def again(self, **changes: Any) -> Run:
        """Return the driver of a second run of this one, which writes and performs nothing."""
        without = dict.fromkeys(("opening", "snapshot", "second", "check", "children", "controls"))
        return attrs.evolve(self, **{"live": False, **without, **changes})

    async def _decisions(self, *, while_ending: bool = False) -> bool:
        """Perform decisions until nothing is left, and only while the run is to end or until it is; say which."""
        while self.control.ending is while_ending:
            decision = self.decided()
            if isinstance(decision, Done):
                return True
            await (self.enter(decision) if type(decision) is EnterState else self.perform(decision))
        return False

    def decided(self) -> Decision:
        """Return the next decision."""
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
            pause=said.pause,
            failed=said.failed or self._overlooked,
            limited=said.limited,
            reached=said.reached,
            wall_ms=said.wall_ms,
            secrets_lost=said.secrets_lost,
            woken=self._woken(),
            schedule=self.schedule,
        )

    def _woken(self) -> AbstractSet[str]:
        history = self.log.history
        return self.children.woken(history) if self.children and history.open_waits.by_key else frozenset()

    async def _suspend(self, event: RunSuspended) -> bool:
        """Suspend the run, with the time at which a child run of it can go on by itself."""
        wake_ms = None if self.children is None else self.children.next_ms(self.log.history)
        return await self.log.suspend(event, wake_ms)

    async def _end_children(self, *, ending: bool) -> None:
        """Cancel the child runs that nobody waits for any more; of a run that is `ending`, all of them."""
        history = self.log.history
        if self.children is not None and history.open_waits.children:
            await self.children.end_given_up(history, self.log.load, ending=ending)

    async def perform(self, decision: Decision) -> None:
        """Perform a decision other than to enter a state, and record its result; in concurrent runs too."""
        match decision:
            case StartRun():
                assert self.opening is not None
                max_concurrency = self.config.execution_mode.max_concurrency
                self.snapshot = await begin(self.log, self.graph, self.opening, max_concurrency)
            case ScheduleRetry(state_id, attempt, most_ms, jitter_ms):
                delay_ms = self.log.choose_ms(most_ms - jitter_ms, most_ms)
                await self.log.emit([RetryScheduled(state_id, attempt, delay_ms)])
            case SuspendRun(waits) if self.live and of_handlers(waits):
                await answered_or(self.goes_on, lambda: self._suspend(RunSuspended(waits)), self.control)
            case CompleteRun():
                await self._end_children(ending=True)
                await self.log.end(end_of(decision, self.log.history), self._merged())
            case _:
                payloads: Payloads | None = None
                if isinstance(decision, BeginCleanup):
                    await self._end_children(ending=True)
                    payloads = self._merged()
                elif isinstance(decision, ChangePlan):
                    payloads = Payloads()
                    payloads.add(ArtifactKind.PLAN, self.graph.shape_bytes)
                await self.log.emit(events_of(decision, self.log.history), payloads)
                if isinstance(decision, BeginCleanup):
                    self.control.begin_cleanup(self.log.history.cleanup_ms)
                elif isinstance(decision, ReachLimit):
                    self.control.limit()

    def _merged(self) -> Payloads | None:
        """Return the new nodes of the merged contexts of concurrent states, None in sequential mode."""
        if self.schedule is None:
            return None
        payloads = Payloads()
        payloads.items.update(self.schedule.frontier.take_made())
        return payloads

    @property
    def waits(self) -> bool:
        """True while a handler waits for external input whose attempt is put away."""
        return self.live and self.log.history.open_waits.any_beyond(self.log.history.open)

    def delivered(self) -> bool:
        """Record the answers to such waits that have come by now, and say whether there were any."""
        return self.log.deliver() > 0

    async def _emit(self, event: Event, payloads: Payloads | None = None, info: Info = None) -> None:
        await self.log.emit([event], payloads, info)

    def _base(self, state_id: str, snapshot_id: str) -> Snapshot:
        """Return the context that an attempt of a state begins on."""
        if (frontier := self._frontier) is not None:
            return frontier.base(state_id)
        if self.snapshot is None or self.snapshot.id != snapshot_id:
            self.snapshot = Snapshot.open(snapshot_id, behind_io(self.log.load))
        return self.snapshot

    async def enter(self, decision: EnterState) -> None:
        """Run one attempt of a state, from its `state_entered` to the event that ends it."""
        if self.live and decision.delay_ms:
            await wait_for_retry(decision, self.log, self.reporter)
        if self.log.carry(decision):
            return
        state = self.graph.states[decision.state_id]
        known = self.log.history.states.get(decision.state_id)
        earlier = await self._earlier(decision) if known is not None and known.goes_on else None
        entered = StateEntered(state.id, decision.attempt, decision.base_snapshot_id)
        await self.log.emit([entered], self._merged())
        if self._bounded or self.careful:
            self.careful = max(self.careful - 1, 0)
            await self._boundary()
        payloads = Payloads()
        try:
            ending, info = await self._tried(state, decision, payloads, earlier)
            if self.second is not None:
                self.refuse_if_aborted()
                if (differs := await self.second.differs(self, decision, ending, payloads)) is not None:
                    failed = StateFailed(state.id, self.secrets.attempt().error(differs))
                    ending, payloads, info = failed, Payloads(), None
        except (Stopped, KeyboardInterrupt, anyio.get_cancelled_exc_class()) as exc:
            self.refuse_if_aborted()
            if self.live:  # a replay must not interrupt an attempt that was not interrupted in the recording
                info = behind(exc, self.secrets.attempt())
                await self._emit(StateFailed(state.id, self._interrupted(state.id)), info=info)
            raise (exc.cancellation if isinstance(exc, Stopped) else exc) from None
        self.refuse_if_aborted()
        if earlier is not None and (changed := earlier.changed()) is not None:
            ending, payloads, info = StateFailed(state.id, changed), Payloads(), None
        if self.live and self.log.history.limited:  # whatever its handler made of it
            ending, payloads, info = StateFailed(state.id, self._interrupted(state.id)), Payloads(), None
        await self.log.emit([ending], payloads, info)
        await self._end_children(ending=False)
        if self._bounded and self._frontier is not None:
            await self._boundary()  # the boundary is not that of the next state: other attempts may take long

    def _interrupted(self, state_id: str) -> ErrorInfo:
        return interrupted(state_id, cancelled=self.control.cancelling, limited=self.log.history.limited)

    async def _earlier(self, decision: EnterState) -> Earlier | None:
        """Return the recorded part of an attempt that goes on, None in a replay."""
        if self.earlier is None:
            return None
        await self.log.durable()
        return self.earlier(decision.state_id, decision.attempt)

    async def _boundary(self) -> None:
        """Wait for the disk."""
        if self._bounded and self.concurrency > 1:
            # events that other attempts are about to write go to the disk in the same commit
            await checkpoint()
        await self.log.durable()

    async def _tried(
        self, state: PlanState, decision: EnterState, payloads: Payloads, earlier: Earlier | None
    ) -> tuple[Event, Mapping[str, str] | None]:
        """Run an attempt and return the event that ends it, with its informational data."""
        frontier = self._frontier
        base = self._base(state.id, decision.base_snapshot_id)
        followed = None if frontier is None else frontier.followed
        ctx = context_on(base, self.config, self.log.history, state.id, followed)
        orphans = self.log.history.states[state.id].failed.orphans
        if earlier is not None:
            orphans = (*orphans, decision.attempt)
        secrets = self.secrets.attempt(state.id, followed, but=orphans)
        shared = frontier is not None
        ending = Ending(state, ctx, secrets, self.context_format, self.config, concurrent=shared)
        try:
            scope, outcome = await self.attempts.make(state, decision.attempt, ctx, secrets, earlier)
            ended, snapshot = ending.returned(outcome, self.graph, base, payloads)
            completed = isinstance(ended[0], StateCompleted)
            left = await self._leftovers.used(scope) if self.live and completed else None
            scope.overlooked = self._overlook if completed else None
            if left is not None:
                payloads.items.clear()
                return StateFailed(state.id, secrets.error(left.info)), ending.info()
        except PutAway:
            return StateFailed(state.id, suspended(state.id)), ending.info()
        except TimedOut as exc:
            return ending.timed_out(exc)
        except (Stopped, KeyboardInterrupt):
            raise
        except BaseException as exc:  # noqa: BLE001 - a handler may raise anything, and it is recorded
            self.refuse_if_aborted()
            return ending.failed(exc)
        if frontier is None:
            self.snapshot = snapshot
        else:
            frontier.know(snapshot)
        return ended

    def refuse_if_aborted(self) -> None:
        """Raise the reason why the run cannot continue, even if a handler suppressed it."""
        if (reason := self.log.abort() or self._runner.failure) is not None:
            raise reason

    def _overlook(self, error: StateError) -> None:
        self._overlooked = self._overlooked or self.secrets.attempt().error(error.info)
