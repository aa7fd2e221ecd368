"""The driver's view of a log and of a second run, and the values that they exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, Protocol, TypeAlias

import attrs

from machine.config import RunConfig, RunManifest
from machine.engine import run_reader
from machine.engine.commit_queue import StandingStill
from machine.engine.recorder import Recorder
from machine.errors import Code, ErrorInfo, UsageError
from machine.events import Entry, Event, LimitReached, RunCompleted, RunSuspended
from machine.exception_to_error_info import refused
from machine.io.attempt_scope import AttemptScope, Log, Payloads, Timers
from machine.io.child_runs import Children
from machine.io.provider import IoProvider
from machine.kernel.decisions import EnterState
from machine.kernel.history import History
from machine.plan import Graph
from machine.state import PlanState
from machine.stores.base import Store

Info: TypeAlias = Mapping[str, str] | None
"""The informational data of an event."""


class FirstRun(Protocol):
    """The driver of a run, as far as a second run of its attempts needs it."""

    log: DrivenLog

    def again(self, **changes: Any) -> FirstRun:
        """Return the driver of a second run of this one, which writes and performs nothing."""
        ...

    async def enter(self, decision: EnterState) -> None:
        """Run one attempt of a state, from its `state_entered` to what ends it."""
        ...


class Second(Protocol):
    """A second run of every attempt of a live run, from its recorded facts.

    It writes nothing and performs nothing.
    """

    def note(self, entry: Entry) -> None:
        """Receive an entry of the live run, already folded."""
        ...

    async def differs(
        self, run: FirstRun, decision: EnterState, ending: Event, payloads: Payloads
    ) -> ErrorInfo | None:
        """Run an attempt again that is about to end with `ending`; return the difference, or None."""
        ...


class Earlier(Protocol):
    """The recorded part of an attempt that was put away and goes on: a replay up to its end, live from there."""

    @property
    def log(self) -> Log:
        """The log of the attempt: the recording, and from its end on the log of the run."""
        ...

    def io(self, scope: AttemptScope, live: IoProvider) -> IoProvider:
        """Return the `io` of the attempt, given the one that it has after the recording."""
        ...

    def recorder(self, scope: AttemptScope) -> Recorder:
        """Return the `rec` of the attempt."""
        ...

    def changed(self) -> ErrorInfo | None:
        """Return the error of an attempt that does not do again what it did; None when it has."""
        ...


class Replays(Second, Protocol):
    """A second run, which can also run suspended attempts again."""

    async def unchanged(self, run: FirstRun, suspended: Iterable[EnterState]) -> ErrorInfo | None:
        """Run suspended attempts again up to where they were suspended; return the first difference, or None."""
        ...


class SecondOf(Protocol):
    """The maker of replays for a run that is driven."""

    def __call__(self, earlier: Iterable[Entry], /) -> Replays:
        """Return a second run, given the entries of the run so far."""
        ...

    def earlier(self, entries: Iterable[Entry], state_id: str, attempt: int, live: Log) -> Earlier:
        """Return the recorded part of a suspended attempt, given the entries of its run and its log."""
        ...


def second_of(config: RunConfig, maker: SecondOf | None, store: Store, run_id: str) -> Second | None:
    """Return the second run of a paranoid run, otherwise None."""
    if not config.paranoid:
        return None
    if maker is None:
        raise UsageError(
            "a paranoid run needs a second run of each state",
            hint="start it with machine.run or machine.aio.run, which have it",
        )
    known = store.run_exists(run_id)
    return maker((entry for entry, _ in run_reader.entries(store, run_id)) if known else ())


def earlier_of(maker: SecondOf | None, store: Store, log: DrivenLog) -> Callable[[str, int], Earlier]:
    """Return what reads the recorded part of a suspended attempt of a run, given the log that it goes on in.

    It raises `UsageError` without a maker of replays.
    """

    def earlier(state_id: str, attempt: int) -> Earlier:
        if maker is None:
            raise UsageError(
                f"{state_id} goes on after a suspension, which needs a replay of it",
                hint="drive the run with machine.run, machine.resume or machine.aio, which have it",
            )
        entries = (entry for entry, _ in run_reader.entries(store, log.history.run_id or ""))
        return maker.earlier(entries, state_id, attempt, log)

    return earlier


class Outside(NamedTuple):
    """Input to a decision besides the history: the plan in force, a cancellation, a state to begin first.

    `failed` is the reason why the run cannot continue, when something a handler left behind has acted since.
    `limited` is false where limits are ignored: a replay does what the recording did. `secrets_lost` is true when
    the driver cannot open the true values of some facts.
    """

    graph: Graph
    cancel: bool
    prefer: str | None = None
    failed: ErrorInfo | None = None
    limited: bool = True
    secrets_lost: bool = False
    reached: LimitReached | None = None
    """In a replay, the limit that the run reached here."""
    pause: bool = False
    """True when the run was asked to be paused."""
    wall_ms: int = 0
    """The time in which attempts have been open."""


class DrivenLog(Log, Protocol):
    """A log with the methods that the driver needs beyond those of `io`."""

    timers: Timers | None
    """The ends of the run's sleeps; None where no sleep is waited for."""

    stalls: StandingStill | None
    """The time in which the event loop stood still for the store; None where no store is written."""

    def limit(self, timeout: float | None) -> float | None:
        """Return the time limit of an attempt in seconds, or None."""
        ...

    def overdue(self, state: PlanState, timeout: float | None) -> BaseException:
        """Return the exception that ends an attempt which exceeded its limit."""
        ...

    def deliver(self) -> int:
        """Record the answers that open waits have by now, and return how many. Only in live mode."""
        ...

    async def suspend(self, event: RunSuspended, wake_ms: int | None = None) -> bool:
        """Suspend the run for its handlers, and say whether it is: a message may have come. Only in live mode.

        `wake_ms` is the time at which a child run of it can go on by itself.
        """
        ...

    async def end(self, event: RunCompleted, payloads: Payloads | None = None) -> None:
        """End the run, and begin the run that continues it where one does. Only in live mode."""
        ...

    def outside(self, graph: Graph) -> Outside:
        """Return what came from outside the run since the last decision; `graph` is the plan so far."""
        ...

    def choose_ms(self, least: int, most: int) -> int:
        """Return a delay before a retry, in milliseconds: at random between two, or as recorded."""
        ...

    def carry(self, decision: EnterState) -> bool:
        """Copy a recorded interrupted attempt, and say whether there was one. Never done in live mode."""
        ...


class Family(Children, Protocol):
    """The child runs of a run, as its driver uses them."""

    def woken(self, history: History) -> AbstractSet[str]:
        """Return the suspended states whose child can go on, or has ended."""
        ...

    def next_ms(self, history: History) -> int | None:
        """Return the earliest time at which a child that is waited for can go on by itself, None without one."""
        ...

    async def end_given_up(self, history: History, load: Callable[[str], bytes], *, ending: bool) -> None:
        """Cancel the children that nobody waits for any more; of a run that is `ending`, all of them."""
        ...


@attrs.frozen
class Opening:
    """The opening of a run: the bodies of its first artifacts, and its informational data."""

    manifest: RunManifest
    manifest_id: str
    payloads: Payloads
    info: Mapping[str, str]
    input_writes: Mapping[str, bytes | None]


class TimedOut(Exception):  # noqa: N818 - not an error of its own: it carries what the log will say
    """The error of an attempt that took longer than its state allows, or its run allows for the `cleanup`."""

    def __init__(self, state_id: str, timeout: float | None, cleanup: float | None = None) -> None:
        if cleanup is None:
            text = f"the attempt of {state_id} took longer than its timeout of {timeout:g} s"
        else:
            text = f"the attempt of {state_id} is over: the cleanup has taken its limit of {cleanup:g} s"
        self.info: ErrorInfo = refused(text, Code.STATE_TIMEOUT, retryable=cleanup is None)
