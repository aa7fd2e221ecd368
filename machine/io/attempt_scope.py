"""The scope of one attempt in the IO layer: its state, the history it may use, and its transports."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import anyio
import attrs
from anyio.lowlevel import EventLoopToken

from machine import canonical
from machine.catalogue import Catalogue
from machine.config import RunConfig
from machine.errors import Code, CorruptionError, NotFoundError, StateError
from machine.events import Artifact, Event
from machine.io.call_counts import CallCounts
from machine.io.child_runs import Children
from machine.io.databases import Databases
from machine.io.handler_tasks import Begun
from machine.io.lent_work import LentWork
from machine.io.put_away import PutAway
from machine.io.request_identity import RequestRules
from machine.io.settle_barrier import SettleBarrier
from machine.io.transport import Transport
from machine.kernel.context import Context
from machine.kernel.history import History
from machine.kernel.io_in_step import refuse_in_step
from machine.kernel.known_after_apply import needed_by
from machine.kernel.outputs import Output
from machine.model_prices import Spending
from machine.recorded_clients import Clients
from machine.secrets.both_formats import OfAttempt
from machine.state import PlanState, SideEffects

_opening: Final = threading.Lock()
"""Held while an attempt makes its `Databases` or its `CallCounts`."""


class Payloads:
    """Artifacts on their way into the log, by id."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: dict[str, Artifact] = {}

    def add(self, kind: str, data: bytes) -> str:
        """Add bytes and return their id."""
        artifact_id = canonical.artifact_id(data)
        self.items[artifact_id] = Artifact(artifact_id, kind, data)
        return artifact_id


class Timers(Protocol):
    """The ends of sleeps that a crash interrupted."""

    def left(self, state_id: str, name: str, seconds: float, *, attempt: int, first: int) -> float:
        """Return how many seconds of a sleep are left; `first` is the first attempt whose sleeps still count."""
        ...


class Log(Protocol):
    """The destination of a run's events: a store when the run is live, the recording when it is replayed."""

    history: History
    floor_ms: int
    """A time that has passed for sure, in milliseconds since the epoch."""

    async def emit(
        self, events: Sequence[Event], payloads: Payloads | None = None, info: Mapping[str, str] | None = None
    ) -> None:
        """Append events, all or none, and fold them. Live, this returns without waiting for the disk."""
        ...

    async def durable(self, seq: int | None = None) -> None:
        """Return when all emitted events, or those up to a seq, are durable."""
        ...

    def flush(self) -> None:
        """Make everything emitted so far durable without suspending the task."""
        ...

    def abort(self) -> BaseException | None:
        """Return the reason why the run cannot continue, even if a handler suppressed it; None when it can."""
        ...

    def now_ms(self) -> int:
        """Return the time by the clock of the store, in milliseconds since the epoch."""
        ...

    def load(self, artifact_id: str) -> bytes:
        """Return an artifact's bytes, whether or not they have reached the store yet."""
        ...

    def put(self, kind: str, data: bytes) -> str:
        """Store an artifact ahead of the event that will name it, durably where the log is, and return its id."""
        ...

    def output(self, name: str) -> Output | None:
        """Return the output that has a name by now, or None."""
        ...

    def seal(self, key: str) -> bytes | None:
        """Return the seal of the fact with a key: None without one, empty when it is missing."""
        ...


class Controls(Protocol):
    """The controls of a run; see `run_controls`."""

    spending: Spending
    """The prices of models, and the interfaces whose answers say what was used."""

    def verdict(self, call: Any, scope: AttemptScope) -> Any:
        """Return the verdict of the policies on a call."""
        ...

    def check(self, call: Any, scope: AttemptScope) -> None:
        """Raise `OtherIoError` for a call that has no price or whose circuit breaker is open."""
        ...

    def check_hop(self, call: Any, scope: AttemptScope, url: str) -> None:
        """Raise `OtherIoError` for a redirect of a call to a URL that the policies do not allow."""
        ...

    def outcome(self, call: Any, scope: AttemptScope, outcome: Any) -> Mapping[str, str]:
        """Return the info of the fact of a call that has ended."""
        ...

    async def admit(self, *, here: bool) -> None:
        """Return if a further call may be made, else end the run; `here` is true for a call that cannot wait."""
        ...


def stored_seal(load: Callable[[str], bytes], artifact_id: str) -> bytes:
    """Return the seal of a fact, empty when it is missing or damaged, which is no damage to the log."""
    try:
        return load(artifact_id)
    except (NotFoundError, CorruptionError):
        return b""


@attrs.frozen
class RunScope:
    """The data that the attempts of one run share for their IO."""

    config: RunConfig
    transports: Mapping[str, Transport]
    catalogue: Catalogue | None
    """None for the standard one."""
    requests: RequestRules
    clients: Clients
    """The libraries whose clients are recorded, with their options."""
    loop: EventLoopToken
    """The event loop that drives the run, for calls from other threads."""
    timers: Timers | None = None
    """The stored ends of sleeps, in a run that really sleeps."""
    children: Children | None = None
    """The child runs, None where none can be begun."""
    controls: Controls | None = None
    """The controls that every call passes before it is made, None where there are none."""
    thread: int = attrs.field(factory=threading.get_ident, init=False)
    """The thread of the event loop that drives the run."""

    @property
    def native_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that drives the run, which has to be one of asyncio."""
        native: asyncio.AbstractEventLoop = self.loop.native_token  # type: ignore[assignment]  # an object to anyio
        return native


@attrs.define
class AttemptScope:
    """The data of one attempt for its IO. `closed` is true once the attempt has ended."""

    run: RunScope
    state: PlanState
    attempt: int
    log: Log
    barrier: SettleBarrier
    secrets: OfAttempt
    idempotency_key: str | None = None
    closed: bool = False
    ending: bool = False
    """True while the calls that the handler left in flight are being cancelled."""
    limit: anyio.CancelScope | None = None
    """The scope of the state's timeout."""
    around: tuple[anyio.CancelScope | None, ...] = ()
    """The scopes of the whole run, and of all attempts concurrent with this one."""
    reads_only: bool = False
    """True while the state's reconcile function makes calls."""
    undeclared: StateError | None = None
    """The first refusal of an undeclared act of the handler."""
    begun: Begun = attrs.field(factory=Begun)
    """The tasks that the handler has begun."""
    returned: bool = False
    """True once the handler has returned in time: a later use of `io` or `rec` comes from a task it left behind."""
    left_behind: StateError | None = None
    """The error for the first use of `io` or `rec` after the handler returned."""
    overlooked: Callable[[StateError], None] | None = None
    """The callback for a use of `io` or `rec` after the attempt was recorded as completed."""
    main: Any = None
    """The task in which the handler runs, None on another kind of event loop."""
    put_away: bool = False
    """True from the moment the attempt is put away because its handler waits for external input."""
    interrupts: int = 0
    """The times its own task was cancelled so that it ends."""
    context: Context | None = None
    """The context that its handler works on, None until the handler is called."""
    lent: LentWork | None = None
    """The work that the event loop lends to the threads of the handler, None if it lends none."""
    opened_databases: Databases | None = attrs.field(default=None, init=False)
    """The result of `databases`, None until somebody asks for it: most attempts have no database."""
    _counts: CallCounts | None = attrs.field(default=None, init=False)
    """The result of `counts`, None until somebody asks for it: most attempts make no call."""

    @property
    def counts(self) -> CallCounts:
        """The calls that the attempt has made so far, counted."""
        if self._counts is None:
            with _opening:
                if self._counts is None:
                    self._counts = CallCounts()
        return self._counts

    @property
    def databases(self) -> Databases:
        """The connections of the attempt to databases, made when they are first asked for, in any thread."""
        if self.opened_databases is None:
            with _opening:
                if self.opened_databases is None:
                    self.opened_databases = Databases()
        return self.opened_databases

    @property
    def keeps_all(self) -> bool:
        """True when the state reuses every success of its earlier attempts, because an effect is never repeated."""
        return self.state.meta.side_effects is SideEffects.APPLY_SIDE_EFFECT

    @property
    def concurrent(self) -> bool:
        """True when other attempts may run at the same time."""
        return len(self.around) > 1 and self.around[-1] is not None

    @property
    def cut(self) -> bool:
        """True from the moment the engine itself cancels the handler."""
        return self.closed or any(
            scope is not None and scope.cancel_called for scope in (self.limit, *self.around)
        )

    @property
    def late(self) -> bool:
        """True once the handler has exceeded its time limit."""
        return self.limit is not None and self.limit.cancel_called

    def check_open(self, did: str, *what: Any) -> None:
        """Raise `StateError` (`attempt_closed`) if the attempt has ended, or the reason the run cannot continue.

        `did` and `what` describe what the handler is about to do; they are formatted only for an error, because
        this is called at every call. Also raises `io_in_another_loop` on an event loop of another thread: the order
        of threads is in no recording, and another loop cannot wake a task of this one.
        """
        refuse_in_step("io or rec")
        lent = self.lent
        if threading.get_ident() == self.run.thread:
            if lent is not None:
                lent.used_on_loop()
        elif lent is None or not lent.is_done_here:
            raise StateError(
                f"{self.state.id} uses its io or rec on an event loop of another thread",
                code=Code.IO_IN_ANOTHER_LOOP,
                hint="await it in the handler, and give the thread what came of it; threads of a handler that "
                "is a plain function may call io",
            )
        reason = self.log.abort()
        if reason is not None:
            raise reason
        self.refuse_undeclared()
        if (needed := needed_by(self.context)) is not None:
            raise needed  # even if the handler suppressed it
        if self.closed or self.ending:
            if self.put_away:
                raise PutAway
            if self.begun.here:
                self.leave_behind(f"{did} {', '.join(str(getattr(one, 'name', one)) for one in what)}")
            raise self.ended()

    def leave_behind(self, use: str, became: str = "was refused") -> None:
        """Note that a task or thread that the handler left behind used `io` or `rec`; only the first use counts.

        Does nothing before the handler has returned. `use` and `became` are the words of the error for the use and
        for its result.
        """
        if not self.returned or self.left_behind is not None:
            return
        self.left_behind = StateError(
            f"the handler of {self.state.id} returned while a task or thread that it had begun went on, and that "
            f"{use}, which {became}",
            code=Code.TASK_LEFT_BEHIND,
            details={"state_id": self.state.id, "attempt": self.attempt, "use": use},
            hint="await every task before the handler returns",
        )
        if self.overlooked is not None:
            self.overlooked(self.left_behind)

    def refuse_undeclared(self) -> None:
        """Raise the refusal of an undeclared act again, even if the handler suppressed it."""
        if self.undeclared is not None:
            raise self.undeclared

    def ended(self) -> StateError:
        """Return the error for a use after the end of the attempt."""
        return StateError(
            f"attempt {self.attempt} of {self.state.id} has ended; a task it left behind used its io or rec",
            code=Code.ATTEMPT_CLOSED,
            hint="await every task before the handler returns",
        )

    def transport(self, namespace: str) -> Transport | None:
        """Return the transport of the longest registered dotted prefix of a namespace."""
        prefix = namespace
        while prefix:
            if prefix in self.run.transports:
                return self.run.transports[prefix]
            prefix = prefix.rpartition(".")[0]
        return None


def is_namespace(value: Any) -> bool:
    """Say whether a value may name a namespace: dotted lowercase segments."""
    return isinstance(value, str) and _is_dotted(value)


@functools.lru_cache(maxsize=256)
def _is_dotted(value: str) -> bool:
    return (
        len(value) <= 128  # noqa: PLR2004 - the rule itself
        and all(part.isidentifier() and part.islower() and part.isascii() for part in value.split("."))
    )
