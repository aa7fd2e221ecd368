"""What the driver needs of a log and of a second run, and the values that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import attrs

from machine.config import RunConfig, RunManifest
from machine.engine import run_reader
from machine.errors import Code, ErrorInfo, UsageError
from machine.events import Entry, Event
from machine.failures import refused
from machine.io.attempt_scope import Log, Payloads, Timers
from machine.kernel.decisions import EnterState
from machine.plan import Graph, PlanState
from machine.stores.base import Store

__all__ = ["DrivenLog", "FirstRun", "Opening", "Outside", "Second", "SecondOf", "TimedOut", "second_of"]


class FirstRun(Protocol):
    """What a second run needs of the driver whose attempts it runs again."""

    log: DrivenLog

    def again(self, **changes: Any) -> FirstRun:
        """Return the driver of a second run of this one, which writes and performs nothing."""
        ...

    async def enter(self, decision: EnterState) -> None:
        """Run one attempt of a state, from its `state_entered` to what ends it."""
        ...


class Second(Protocol):
    """Runs every attempt of a live run again, from its own facts. It writes nothing and performs nothing."""

    def note(self, entry: Entry) -> None:
        """Take in an entry of the live run, already folded."""
        ...

    async def differs(
        self, run: FirstRun, decision: EnterState, ending: Event, payloads: Payloads
    ) -> ErrorInfo | None:
        """Run an attempt again that is about to end with `ending`; return how it differs, None if it does not."""
        ...


SecondOf: TypeAlias = Callable[[Iterable[Entry]], Second]
"""Makes one, given what there is of a run's log."""


def second_of(config: RunConfig, maker: SecondOf | None, store: Store, run_id: str) -> Second | None:
    """Return what runs the attempts of a run again, None unless it is paranoid."""
    if not config.paranoid:
        return None
    if maker is None:
        raise UsageError(
            "a paranoid run needs what runs each state again",
            hint="start it with machine.run or machine.aio.run, which have it",
        )
    known = store.run_exists(run_id)
    return maker((entry for entry, _ in run_reader.entries(store, run_id)) if known else ())


class Outside(NamedTuple):
    """What was said from outside: the plan in force now, whether the run was cancelled, a state to begin with.

    `failed` is why it cannot go on, where what a handler left behind has acted since.
    `limited` is false where limits are not looked at: a replay does what the recording did.
    `secrets_lost` says that there are facts of which the driver cannot open the true values.
    """

    graph: Graph
    cancel: bool
    prefer: str | None = None
    failed: ErrorInfo | None = None
    limited: bool = True
    secrets_lost: bool = False


class DrivenLog(Log, Protocol):
    """What the driver asks of a log beyond what `io` asks."""

    timers: Timers | None
    """What knows when the sleeps of the run end; None where nobody sleeps."""

    @property
    def waited(self) -> float:
        """For how many seconds the event loop stood still for the store."""
        ...

    def limit(self, timeout: float | None) -> float | None:
        """Return how long an attempt may take in seconds, None for as long as it likes."""
        ...

    def overdue(self, state: PlanState, timeout: float | None) -> BaseException:
        """Return what an attempt that took longer is ended with."""
        ...

    def outside(self, graph: Graph) -> Outside:
        """Take in what was said from outside, where `graph` was in force until now."""
        ...

    def carry(self, decision: EnterState) -> bool:
        """Take over a recorded attempt that was cut, and say whether there was one. Never so in live mode."""
        ...


@attrs.frozen
class Opening:
    """What a run begins with: the bodies of its first artifacts, and what is only informational."""

    manifest: RunManifest
    manifest_id: str
    payloads: Payloads
    info: Mapping[str, str]
    input_writes: Mapping[str, bytes | None]


class TimedOut(Exception):  # noqa: N818 - not an error of its own: it carries what the log will say
    """An attempt took longer than its state allows."""

    def __init__(self, state_id: str, timeout: float | None) -> None:
        self.info: ErrorInfo = refused(
            f"the attempt of {state_id} took longer than its timeout of {timeout:g} s",
            Code.STATE_TIMEOUT,
            retryable=True,
        )
