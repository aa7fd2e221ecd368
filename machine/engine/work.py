"""A worker: it drives the runs of a store that nobody drives, those that are due, and the schedules of the store.

Each run is driven by `resume`, or for a schedule by `run`, in a thread of its own
(docs/decisions/a-thread-a-run.md). A suspended run has no thread: it is a row that a query
finds once it is due. Several workers need no agreement: the lease of a run, and the invocation key of an
instant, let one of them have it.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import anyio
import attrs

from machine.cron.ticks import tick_key
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import start_and_resume
from machine.engine.backoff import Backoff
from machine.engine.children import root_of
from machine.engine.driven_run import Drive, DrivenRun
from machine.engine.driver_name import checked_worker_name, drive_as
from machine.engine.driver_protocols import SecondOf
from machine.engine.due_ticks import DueTicks, is_of_schedule
from machine.engine.plan_loader import Load, PlanLoader
from machine.engine.run_keeper import LEASE_SECONDS, lease_ms_of
from machine.engine.run_result import RunResult
from machine.engine.start_checks import check_store
from machine.engine.work_stop import Stop, Wake
from machine.errors import (
    Code,
    ConcurrencyError,
    MachineError,
    OtherStoreError,
    RunError,
    StoreError,
    UsageError,
)
from machine.kernel.run_index import RunRow
from machine.kernel.run_status import FINAL_STATUSES, INTERRUPTED, RunStatus
from machine.policy import NO_POLICY, Policy
from machine.stores.base import Store
from machine.stores.schedule import Schedule
from machine.target import load as load_target

IDLE_SECONDS: Final = 1.0
"""Seconds between two looks of a worker that has nothing to do."""

GRACE_SECONDS: Final = 30.0
"""Default number of seconds that running attempts have to end when a worker was asked to stop."""

CONCURRENCY: Final = 10
"""Default number of runs that a worker drives at once."""

_LEAVE_SECONDS: Final = 5.0
"""Seconds in which interrupted attempts have to end; what then still holds its thread is abandoned."""

_SHORTEST_WAIT: Final = 0.01
_PAGE: Final = 100
_PAGES: Final = 2
"""Pages of interrupted runs of one look, where the next look continues."""

_MORE: Final = 10
"""Due runs that are looked at, for each that a worker can drive: several workers begin with the same ones."""

_TAKEN: Final = frozenset({Code.RUN_LEASED, Code.INVOCATION_TAKEN, Code.LEASE_LOST, Code.CONCURRENCY})


class WorkReporter:
    """An observer of a worker. The methods do nothing by default; override the ones you need."""

    def ended(self, result: RunResult) -> None:
        """Report a run that has ended, or waits again."""

    def failed(self, what: str, error: BaseException, *, for_good: bool) -> None:
        """Report a run or an instant of a schedule that could not be driven; each reason is reported once.

        `for_good`: it is left alone by this worker; otherwise it is tried again later.
        """


@attrs.frozen
class WorkResult:
    """The work that was done: how many runs came to each status, and how many were left alone by this worker.

    A run that was driven more than once counts each time.
    """

    counts: Mapping[str, int]
    left_alone: int

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {"counts": dict(self.counts), "left_alone": self.left_alone}


@with_default_store(create=True)
async def work(
    targets: Sequence[str] = (),
    *,
    store: Store = DEFAULT_STORE,
    concurrency: int = CONCURRENCY,
    once: bool = False,
    until_idle: bool = False,
    grace: float = GRACE_SECONDS,
    lease: float = LEASE_SECONDS,
    name: str | None = None,
    stop: Stop | None = None,
    reporter: WorkReporter | None = None,
    load: Load = load_target,
    policy: Policy = NO_POLICY,
    second: SecondOf | None = None,
) -> WorkResult:
    """Drive the runs of a store: those that nobody drives, those that are due or answered, and its schedules.

    With `targets` only runs and schedules of these plans, otherwise those of every plan that was recorded and that
    can be loaded here. At most `concurrency` runs are driven at once, each in a thread. It goes on until `stop` is
    asked; then it takes no more runs and gives those it drives `grace` seconds before it interrupts them. `once`
    ends it when all is done that was due when it began, `until_idle` when nothing is due. `lease` is that of `run`,
    `load` loads a target, `policy` holds on top of those of the runs, `name` stands next to the process in the log
    of what it drives, and `second` is what paranoid runs need.

    A run whose plan cannot be loaded is left alone, and one that cannot be driven is tried again later, up to a
    minute; the reporter gets each reason once. Raises what the targets raise, `UsageError` and `StoreError`.
    """
    drive_as(checked_worker_name(name))
    loader = PlanLoader(load, [load(target, None) for target in targets])
    options: dict[str, Any] = {"lease": lease, "reporter": reporter, "policy": policy, "second": second}
    worker = Worker(store, loader, concurrency=concurrency, **options)
    return await worker.work(once=once, until_idle=until_idle, grace=grace, stop=stop)


@with_default_store()
async def run_schedules(
    *,
    store: Store = DEFAULT_STORE,
    concurrency: int = CONCURRENCY,
    once: bool = False,
    grace: float = GRACE_SECONDS,
    lease: float = LEASE_SECONDS,
    stop: Stop | None = None,
    reporter: WorkReporter | None = None,
    load: Load = load_target,
    second: SecondOf | None = None,
) -> WorkResult:
    """Start the runs of a store's schedules when they are due, and drive those runs; see `work`.

    Those that were interrupted, were answered or are due go on too, so that none is in the way of the next instant.
    `once` starts what is due now, and returns when that has ended or waits.
    """
    loader = PlanLoader(load)
    worker = Worker(
        store, loader, concurrency=concurrency, lease=lease, reporter=reporter, second=second, scheduled=True
    )
    return await worker.work(once=once, grace=grace, stop=stop)


class Worker:
    """The state of one worker. All but the driven runs themselves happens in the task that calls `work`.

    With `scheduled`, it drives only runs that schedules have started.
    """

    def __init__(
        self,
        store: Store,
        loader: PlanLoader,
        *,
        concurrency: int = CONCURRENCY,
        lease: float = LEASE_SECONDS,
        reporter: WorkReporter | None = None,
        policy: Policy = NO_POLICY,
        second: SecondOf | None = None,
        scheduled: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_store(store)
        lease_ms_of(lease)
        if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
            raise UsageError(f"concurrency is {concurrency!r}: it must be a whole number from 1 up")
        self._store = store
        self._loader = loader
        self._concurrency = concurrency
        self._options: dict[str, Any] = {"store": store, "lease": lease, "policy": policy, "second": second}
        self._reporter = reporter or WorkReporter()
        self._scheduled = scheduled
        self._clock = clock
        self._ticks = DueTicks(
            store, loader.wants, lambda one, exc: self._give_up(f"schedule {one.name}", exc)
        )
        self._backoff = Backoff(clock)
        self._driven: dict[str, DrivenRun] = {}
        self._heads: dict[str, int] = {}
        self._over: deque[DrivenRun] = deque()
        self._counts: Counter[str] = Counter()
        self._reported: set[tuple[str, str]] = set()
        self._left_alone: set[str] = set()
        self._cursors: dict[str | None, str | None] = {}
        self._soonest_ms: int | None = None

    async def work(
        self,
        *,
        once: bool = False,
        until_idle: bool = False,
        grace: float = GRACE_SECONDS,
        stop: Stop | None = None,
    ) -> WorkResult:
        """Work until a stop is asked for, or until nothing is due (see `machine.work`)."""
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace < float("inf"):
            raise UsageError(f"grace is {grace!r}: it must be a number of seconds from 0 up")
        stop, self._wake = stop or Stop(), Wake()
        began_ms, ends = self._store.clock(), once or until_idle
        with self._wake.listening(stop):
            try:
                while not stop.times:
                    now_ms = began_ms if once else self._store.clock()
                    started = self.look(now_ms, every=ends)
                    if ends and not started and not self._driven:
                        break
                    await self._wake.wait(self._seconds_until_next(now_ms))
                    self._settle()
                await self._drain(stop, grace)
            finally:
                if self._driven:
                    with anyio.CancelScope(shield=True):
                        await self._interrupt()
        return WorkResult(dict(self._counts), len(self._left_alone))

    def look(self, now_ms: int, *, every: bool = False) -> int:
        """Start what can be driven now, and return how many; `every` looks at all interrupted runs."""
        before, self._soonest_ms = len(self._driven), None
        try:
            for schedule, instant_ms in self._ticks.due(now_ms) if self._room else ():
                self._fire(schedule, instant_ms)
            horizon_ms = now_ms if every else now_ms + int(IDLE_SECONDS * 1000)
            for run_id in self._candidates(horizon_ms, every=every) if self._room else ():
                self._consider(run_id, now_ms, horizon_ms)
                if not self._room:
                    break
        except StoreError as exc:
            if exc.code != Code.STORE_BUSY:
                raise
            self._report("the store", exc, for_good=False)
        return len(self._driven) - before

    @property
    def _room(self) -> int:
        return self._concurrency - len(self._driven)

    def _candidates(self, horizon_ms: int, *, every: bool) -> Iterator[str]:
        """Yield runs that were answered or are due by a time, and runs that nobody drives."""
        # others may have the first of them, and this worker leaves some alone
        limit = _MORE * self._concurrency + len(self._driven) + len(self._backoff)
        for op in self._loader.ops:
            yield from self._store.due_runs(horizon_ms, limit, op=op)
        for op in self._loader.ops:
            yield from self._undriven(op, every=every)

    def _undriven(self, op: str | None, *, every: bool) -> Iterator[str]:
        """Yield runs that nobody drives: a few pages, from where the last look ended, or `every` one."""
        cursor = None if every else self._cursors.get(op)
        for number in itertools.count(1):
            page = self._store.list_runs(status=INTERRUPTED, op=op, limit=_PAGE, cursor=cursor)
            yield from (row.run_id for row in page.rows)
            self._cursors[op] = cursor = page.cursor
            if cursor is None or (number >= _PAGES and not every):
                return

    def _consider(self, run_id: str, now_ms: int, horizon_ms: int) -> None:
        """Resume a run, unless it is driven already, left alone, or not due yet."""
        if run_id in self._driven or self._backoff.holds(run_id):
            return
        if self._store.lease_of(run_id) is not None:
            return
        try:
            row = self._store.run_row(run_id)
            if self._scheduled and not is_of_schedule(self._store, row):
                self._backoff.for_good(run_id)
                return
            if row.status in FINAL_STATUSES or not self._is_due(row, now_ms, horizon_ms):
                return
            if root_of(self._store, run_id) != run_id:
                return  # it is due with its parent, which drives it
            plan = self._loader.of_run(self._store, run_id, row.op_id)
        except OtherStoreError:
            raise
        except MachineError as exc:
            self._give_up(run_id, exc)
            return
        self._heads[run_id] = row.head_seq
        self._drive(
            run_id, lambda seen: start_and_resume.resume(run_id, plan=plan, reporter=seen, **self._options)
        )

    def _is_due(self, row: RunRow, now_ms: int, horizon_ms: int) -> bool:
        """Say whether a candidate is due; one whose own time is after the horizon is here because of an answer."""
        if row.status != RunStatus.SUSPENDED or row.wake_ms is None or not now_ms < row.wake_ms <= horizon_ms:
            return True
        self._soonest_ms = min(row.wake_ms, self._soonest_ms or row.wake_ms)
        return False

    def _fire(self, schedule: Schedule, instant_ms: int) -> None:
        """Start the run of an instant, unless this worker does so already or leaves it alone."""
        key = tick_key(schedule.name, instant_ms)
        if key in self._driven or self._backoff.holds(key) or not self._room:
            return
        try:
            loaded = self._loader.of_target(schedule.target)
        except MachineError as exc:
            self._give_up(f"schedule {schedule.name}", exc)
            return
        options = {**self._options, "invocation_key": key, "attach": False, "target": schedule.target}
        self._drive(
            key,
            lambda seen: start_and_resume.run(loaded.plan, input=schedule.input, reporter=seen, **options),
        )

    def _drive(self, key: str, drive: Drive) -> None:
        run = self._driven[key] = DrivenRun(key, drive, self._ended)
        run.start()

    def _ended(self, run: DrivenRun) -> None:
        """Hand over a run from its thread."""
        self._over.append(run)
        self._wake.set()

    def _settle(self) -> None:
        """Note what came of the runs that are not driven any more."""
        while self._over:
            run = self._over.popleft()
            del self._driven[run.key]
            before = self._heads.pop(run.key, None)
            if run.result is not None and not run.was_driven:
                self._backoff.clear(run.key)  # another driver has just ended it
            elif run.result is not None:
                self._counts[run.result.status] += 1
                self._reporter.ended(run.result)
                # a run that waits as it did would be found again at once
                same = run.result.run_id == run.key and run.result.head_seq == before
                idle = run.result.status == RunStatus.SUSPENDED and same
                (self._backoff.fail if idle else self._backoff.clear)(run.key)
            elif run.was_interrupted:
                self._counts[INTERRUPTED] += 1
            elif isinstance(run.error, ConcurrencyError) and run.error.code in _TAKEN:
                self._backoff.hold(run.key)
            else:
                self._backoff.fail(run.key)
                self._report(run.key, _error_of(run), for_good=False)

    def _give_up(self, what: str, exc: MachineError) -> None:
        """Leave something alone for as long as this worker lives."""
        self._backoff.for_good(what)
        self._left_alone.add(what)
        self._report(what, exc, for_good=True)

    def _report(self, what: str, exc: BaseException, *, for_good: bool) -> None:
        reason = (what, str(getattr(exc, "code", type(exc).__name__)))
        if reason not in self._reported:
            self._reported.add(reason)
            self._reporter.failed(what, exc, for_good=for_good)

    def _seconds_until_next(self, now_ms: int) -> float:
        times = [time for time in (self._soonest_ms, self._ticks.next_ms(now_ms)) if time is not None]
        seconds = min((time - now_ms for time in times), default=IDLE_SECONDS * 1000) / 1000
        return min(max(seconds, _SHORTEST_WAIT), IDLE_SECONDS)

    async def _drain(self, stop: Stop, grace: float) -> None:
        """Wait for the runs that are driven, at most for the grace or until the stop is asked for again."""
        deadline = self._clock() + grace
        while self._driven and stop.times < 2 and (left := deadline - self._clock()) > 0:  # noqa: PLR2004 - twice
            await self._wake.wait(left)
            self._settle()

    async def _interrupt(self) -> None:
        """Interrupt the runs that are driven, and wait until they have written that."""
        deadline = self._clock() + _LEAVE_SECONDS
        for run in self._driven.values():
            run.interrupt()
        while self._driven and (left := deadline - self._clock()) > 0:
            await self._wake.wait(left)
            self._settle()
        self._counts[INTERRUPTED] += len(self._driven)  # their threads are abandoned


def _error_of(run: DrivenRun) -> BaseException:
    """Return why a run could not be driven, in words for a user."""
    if isinstance(run.error, MachineError):
        return run.error
    return RunError(
        f"driving {run.key} stopped: {run.error!r}",
        code=Code.ATTEMPT_INTERRUPTED,
        hint="nothing durable is lost; have handlers cancel only tasks they have begun, and not exit",
    )
