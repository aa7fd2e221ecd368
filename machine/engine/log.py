"""The live log: seals events, folds them, and gets them into the store as the durability asks.

Nothing here interprets an event; `kernel.fold` does. With a store whose commits take long, a writer thread
commits behind the run in groups; `durable` is the barrier. A failed commit stops the run at its next event.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TypeAlias

from machine import codec
from machine.engine import timers
from machine.engine.control import Control
from machine.engine.driven import Outside
from machine.engine.second import Second
from machine.engine.secrets import wanted
from machine.errors import Code, ErrorInfo, StoreError
from machine.events import Entry, Event, FactRecorded, StateFailed, chain_next, seal
from machine.failures import refused
from machine.ids import RunId
from machine.io.scope import Payloads, Timers, stored_seal
from machine.kernel.decisions import EnterState
from machine.kernel.history import COPIED, History
from machine.plan import Graph, PlanState
from machine.secrets.handles.vault import Vault
from machine.stores.base import Artifact, Store, StoredEvent
from machine.stores.lease import Lease

__all__ = ["Draft", "LiveLog", "TimedOut"]

_MOST_PENDING = 2000
"""Events that may wait for the disk before the run waits for it too."""

_LINGER_SECONDS = 0.1
"""How long an event may wait for others before the writer commits it. A fast run fills the queue before that, and
commits it itself: a thread that works beside it would take the interpreter from it at every row."""


Draft: TypeAlias = tuple[Event, int, Mapping[str, str] | None]
"""An event on its way into the log: with its time in milliseconds, and what is informational about it."""


class TimedOut(Exception):  # noqa: N818 - not an error of its own: it carries what the log will say
    """An attempt took longer than its state allows."""

    def __init__(self, state_id: str, timeout: float | None) -> None:
        self.info: ErrorInfo = refused(
            f"the attempt of {state_id} took longer than its timeout of {timeout:g} s",
            Code.STATE_TIMEOUT,
            retryable=True,
        )


class LiveLog:
    """A run's log while it is driven. `on_entry` is called with every entry, after it was folded.

    `vault` looks through what is written, in format 1; `lost` are the seals that its driver cannot open, by facts'
    keys. `behind` lets a thread commit facts while the run goes on, with `boundaries` everything else too.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        history: History,
        chain: bytes,
        behind: bool,
        boundaries: bool,
        on_entry: Callable[[Entry], None],
        vault: Vault | None = None,
        lost: Mapping[str, str] = MappingProxyType({}),
        lease: Lease | None = None,
        control: Control | None = None,
        second: Second | None = None,
    ) -> None:
        self.history = history
        self.timers: Timers | None = timers.Timers(
            store, run_id, resumed=history.head_seq > 0, waiting=self._waiting
        )
        self.waited = 0.0
        self._store = store
        self._run_id = run_id
        self._checked_id = RunId(run_id)
        self._chain = chain
        self._vault = vault
        self._lost_seals = lost
        self._lease = lease
        self._control = control or Control()
        self._on_entry = on_entry
        self._second = second
        self._written = history.head_seq
        self._events: list[StoredEvent] = []
        self._artifacts: dict[str, Artifact] = {}
        self._committing: Mapping[str, Artifact] = {}
        self._failure: BaseException | None = None
        self._lost = False
        self._commit = threading.Lock()
        self._pending = threading.Lock()
        self._changed = threading.Condition(self._pending)
        self._stopping = self._wanted = self._resting = False
        self._since = 0.0
        # a store that strikes behind the run (the crash matrix) need not be waited for
        self._linger: float = getattr(store, "linger_seconds", _LINGER_SECONDS)
        self._thread: threading.Thread | None = None
        self._behind = behind
        self._boundaries = boundaries

    async def emit(
        self, events: Sequence[Event], payloads: Payloads | None = None, info: Mapping[str, str] | None = None
    ) -> None:
        """Seal, fold and queue events. Returns without waiting for the disk, and never suspends the task."""
        now = time.time_ns() // 1_000_000
        self._put([(event, now, info) for event in events], payloads)

    def copy(self, entries: Sequence[Entry], payloads: Payloads | None = None) -> None:
        """Queue events of another run as they are, moved in time as a whole so that the last of them is now.

        The observer is not told of them: nothing happens.
        """
        shift = time.time_ns() // 1_000_000 - entries[-1].ts_millis
        drafts: list[Draft] = []
        for entry in entries:
            info = {name: text for name, text in entry.info.items() if name not in {"run_id", "ts_millis"}}
            if isinstance(entry.event, StateFailed) and entry.event.cut:
                info[COPIED] = "true"
            drafts.append((entry.event, max(entry.ts_millis + shift, 0), info))
        self._put(drafts, payloads, told=False)

    def _put(self, drafts: Sequence[Draft], payloads: Payloads | None, *, told: bool = True) -> None:
        reason = self.abort()
        if reason is not None:
            raise reason
        try:
            sealed = self._sealed(drafts, payloads, told=told)
        except BaseException as exc:  # half folded: nothing may follow it
            self._failure = exc
            raise
        with self._pending:
            self._events += sealed
            pending = len(self._events)
            if payloads is not None:
                for artifact_id, (kind, data) in payloads.items.items():
                    self._artifacts[artifact_id] = Artifact(artifact_id, kind, data)
            behind = self._behind and (self._boundaries or isinstance(drafts[0][0], FactRecorded))
            if behind and not self._wanted:
                self._wanted, self._since = True, time.monotonic()
                if self._resting:
                    self._changed.notify()
        if behind and self._thread is None:
            self._thread = threading.Thread(target=self._write, name="machine log writer", daemon=True)
            self._thread.start()
        # a store that takes a run apart event by event (the crash matrix) says how many may wait
        if pending >= getattr(self._store, "most_pending", _MOST_PENDING):
            self.flush()

    def _sealed(self, drafts: Sequence[Draft], payloads: Payloads | None, *, told: bool) -> list[StoredEvent]:
        bodies = [codec.encode_event(event) for event, _, _ in drafts]
        if self._vault is not None and self._vault.knows_some:
            names = [event.type for event, _, _ in drafts]
            self._vault.refuse_in_log(zip(names, bodies, strict=True))
            if payloads is not None:
                self._vault.refuse_in_log(payloads.items.values())
        sealed: list[StoredEvent] = []
        run_id, history = self._run_id, self.history
        for (event, now, info), body in zip(drafts, bodies, strict=True):
            seq = history.head_seq + 1
            data = seal(seq, body, run_id, now, info)
            self._chain = chain_next(self._chain, data)
            sealed.append(StoredEvent(seq, data, self._chain))
            entry = Entry(seq, event, body, run_id, now, {**(info or {}), "run_id": run_id, "ts_millis": now})
            history.advance(entry)
            if self._second is not None:
                self._second.note(entry)
            if told:
                self._on_entry(entry)
        return sealed

    def outside(self, graph: Graph) -> Outside:
        """Return the plan that was given, and whether somebody has cancelled the run."""
        lost = self._lost_seals and bool(wanted(self.history, self._lost_seals))
        return Outside(graph, self._control.cancelling, secrets_lost=bool(lost))

    def carry(self, decision: EnterState) -> bool:
        """Return False: a live run has nothing recorded ahead of it."""
        del decision
        return False

    def limit(self, timeout: float | None) -> float | None:
        """Return how long an attempt may take: what its state says."""
        return timeout

    def overdue(self, state: PlanState, timeout: float | None) -> BaseException:
        """Return what cuts an attempt that has taken too long."""
        return TimedOut(state.id, timeout)

    def abort(self) -> BaseException | None:
        """Return why the log takes no more events; None when it does."""
        return self._failure or self._control.failure

    async def durable(self, seq: int | None = None) -> None:
        """Return when every event emitted so far is durable, or up to a seq. Raises what the store raised.

        Never suspends the task.
        """
        if seq is None or seq > self._written:
            with self._waiting():
                self.flush()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.waited += time.monotonic() - began

    def flush(self) -> None:
        """Commit what is pending, in this thread; the blocking form of `durable`."""
        with self._commit:
            if self._lost and self._failure is not None:
                raise self._failure
            with self._pending:
                events, self._events, self._wanted = self._events, [], False
                self._committing, self._artifacts = self._artifacts, {}
            if not events:
                return
            try:
                artifacts = list(self._committing.values())
                self._store.append(self._checked_id, self._written, events, artifacts, lease=self._lease)
            except BaseException as exc:
                self._failure, self._lost = exc, True
                raise
            self._written = events[-1].seq
            self._committing = {}

    def load(self, artifact_id: str) -> bytes:
        """Return an artifact's bytes, whether or not they have reached the store yet."""
        pending = self._held(artifact_id)
        if pending is not None:
            return pending.data
        try:
            return self._store.get(artifact_id)
        except StoreError as exc:  # no fault of the handler that happened to read: the run cannot go on
            self._failure = exc
            raise

    def seal(self, key: str) -> bytes | None:
        """Return what was sealed beside the fact of a key, None where nothing was; empty where it is not there."""
        artifact_id = self.history.sealed.payloads.get(key)
        if artifact_id is None:
            return None
        pending = self._held(artifact_id)
        return pending.data if pending is not None else stored_seal(self._store.get, artifact_id)

    def _held(self, artifact_id: str) -> Artifact | None:
        """Return an artifact that has not reached the store yet."""
        with self._pending:
            return self._artifacts.get(artifact_id) or self._committing.get(artifact_id)

    def close(self) -> None:
        """Stop the writer. What was emitted and not waited for is still written, unless writing failed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        if not self._lost:
            self.flush()

    def _left(self) -> float:
        """Return for how many seconds the writer still leaves what is pending to the run; infinite without any."""
        return self._since + self._linger - time.monotonic() if self._wanted else math.inf

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and (left := self._left()) > 0:
                    self._resting = left == math.inf
                    self._changed.wait(None if self._resting else left)
                self._resting = False
                if self._stopping:
                    return
            try:
                self.flush()
            except BaseException:  # noqa: BLE001 - kept in self._failure, raised at the run's next event
                return
