"""The live log: it seals events, folds them, and stores them as the durability requires.

Nothing here interprets an event; `fold` of `kernel.history` does. `durable` is the barrier: when it returns, all
events emitted before are in the store (`commit_queue`).
"""

from __future__ import annotations

import secrets as secrets_of_os
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from machine import canonical, codec
from machine.engine import sleep_timers
from machine.engine.cancel_reason import cancelled_for
from machine.engine.commit_queue import CommitQueue, StandingStill
from machine.engine.deliver import Inbox, delivery
from machine.engine.driver_name import driver_name
from machine.engine.driver_protocols import Outside, Second, TimedOut
from machine.engine.live_run_secrets import wanted
from machine.engine.reporter import Reporter
from machine.engine.stop_signal import Control
from machine.engine.wall_clock import WallClock
from machine.envelope import chain_next, seal
from machine.errors import StoreError
from machine.event_bytes import spelled
from machine.events import (
    DRIVER,
    INBOX_SEEN,
    Entry,
    Event,
    FactRecorded,
    RunCompleted,
    RunSuspended,
    StateEntered,
    StateFailed,
    WaitBegun,
)
from machine.io.attempt_scope import Payloads, Timers, stored_seal
from machine.kernel.decisions import EnterState
from machine.kernel.history import History
from machine.kernel.open_waits import DUE, MESSAGE, WAKE, OpenWait
from machine.kernel.outputs import Output
from machine.kernel.run_status import RunStatus
from machine.kernel.state_history import COPIED, StateStatus
from machine.kernel.wait_answers import WaitAnswer
from machine.plan import Graph
from machine.secrets.both_formats import OfRun
from machine.secrets.format_1.run_secrets import Format1RunSecrets
from machine.state import PlanState
from machine.stores.base import Store, StoredEvent
from machine.stores.lease import Lease

_OF_RUN: Final = frozenset({"run_id", "ts_millis", MESSAGE, INBOX_SEEN})
"""Informational data that a copy in another run has otherwise, or has not: it has an inbox of its own."""

Draft: TypeAlias = tuple[Event, int, Mapping[str, str] | None]
"""An event to be appended, with its time in milliseconds and its informational data."""

Ending: TypeAlias = Callable[["LiveLog", RunCompleted, Payloads | None], bool]
"""A function that ends a run which goes on as another one, or returns False where it does not."""


class LiveLog:
    """A run's log while it is driven. `on_entry` is called with every entry, after it was folded.

    `secret_check` checks what is written, in format 1; `secrets` knows when nothing can be sealed any more, and
    `lost` are the seals that its driver cannot open, by the keys of facts. `behind` lets a thread commit facts
    while the run continues, with `boundaries` all other events too.
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
        secret_check: Format1RunSecrets | None = None,
        secrets: OfRun | None = None,
        lost: Mapping[str, str] = MappingProxyType({}),
        lease: Lease | None = None,
        control: Control | None = None,
        second: Second | None = None,
    ) -> None:
        self.history = history
        self._queue = CommitQueue(store, run_id, written=history.head_seq, lease=lease)
        self.timers: Timers | None = sleep_timers.Timers(
            store, run_id, resumed=history.head_seq > 0, stalls=self._queue.stalls
        )
        self.stalls: StandingStill | None = self._queue.stalls
        self._store = store
        self._run_id = run_id
        self._chain = chain
        self._secret_check = secret_check
        self._keys = secrets.keys if secrets is not None else None
        self._lost_seals = lost
        self._control = control or Control()
        self._on_entry = on_entry
        self._second = second
        self._failure: BaseException | None = None
        self._behind = behind
        self._boundaries = boundaries
        self.floor_ms = history.open_waits.latest_ms
        """A time that has passed for sure, once a wait was answered: no later event is before it."""
        self._passed_ms = 0
        self.next_run: Ending | None = None
        """Ends the run together with the beginning of the one that continues it; None where none is begun."""
        self._driver = driver_name()
        self._inbox = Inbox(store, run_id)
        self.in_any_thread = second is None and secret_check is None and _in_any_thread(on_entry)
        """True when events may be emitted in any thread, one after another."""
        self.wall: WallClock | None = None
        """The time in which attempts have been open, None where nothing limits it."""
        self._limits_cleanup = False

    async def emit(
        self, events: Sequence[Event], payloads: Payloads | None = None, info: Mapping[str, str] | None = None
    ) -> None:
        """Seal, fold and queue events. Returns without waiting for the disk, and never suspends the task."""
        now = self.event_ms()
        if self.wall is not None:
            info = self.wall.stamp(info)
        self._put([(event, now, self._noted(event, info)) for event in events], payloads)
        if self.wall is not None:
            self.wall.follow()

    def _noted(self, event: Event, info: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Return the info of an event, with who drives an attempt, and who cancelled the run and why."""
        if type(event) is StateEntered:
            return {DRIVER: self._driver, **(info or {})}
        if type(event) is RunCompleted and event.status == RunStatus.CANCELLED:
            return {**cancelled_for(self._store, self._run_id), **(info or {})}
        return info

    def event_ms(self) -> int:
        """Return the time of an event that is emitted now."""
        return max(time.time_ns() // 1_000_000, self.floor_ms)

    def now_ms(self) -> int:
        """Return the time by the clock of the store, never before one that an answer was given at."""
        return max(self._store.clock(), self._passed_ms)

    @property
    def goes_on(self) -> bool:
        """True when a suspended attempt has an answer, or one has come that is not in the log yet."""
        history = self.history
        if any(state.status is StateStatus.SUSPENDED and state.answered for state in history.states.values()):
            return True
        return bool(history.open_waits.by_key and self._inbox.due(history, self.load, self.now_ms(), {}))

    def deliver(self) -> int:
        """Record the answers that open waits have by now, and return how many."""
        if not self.history.open_waits.by_key or self.history.final or self._control.cancelling:
            return 0
        due = self._inbox.due(self.history, self.load, self.now_ms(), {})
        for fact, payloads, info, at_ms, takes in due:
            self.skip_to(at_ms)
            if takes:
                self.append_now(fact, info, payloads, takes=takes)
            else:
                self._put([(fact, self.event_ms(), info)], payloads)
        return len(due)

    def answer(self, wait: OpenWait, payload: Mapping[str, Any]) -> None:
        """Record an answer to a wait that no message gave."""
        fact, payloads, info, at_ms, _ = delivery(WaitAnswer(wait, dict(payload)))
        self.skip_to(at_ms)
        self._put([(fact, self.event_ms(), info)], payloads)

    def asked(self, wait: OpenWait) -> Any:
        """Return the request of a wait."""
        return self._request(wait.begun.request_digest)

    def _request(self, digest: str, payloads: Payloads | None = None) -> Any:
        made = None if payloads is None else payloads.items.get(digest)
        return canonical.decode_stored(digest, self.load(digest) if made is None else made.data)

    def skip_to(self, ms: int) -> None:
        """Let the time be at least this from now on."""
        self._passed_ms = max(self._passed_ms, ms)
        self.floor_ms = max(self.floor_ms, ms)

    async def suspend(self, event: RunSuspended, wake_ms: int | None = None) -> bool:
        """Suspend the run, durably, unless a message came that was not looked at yet; say whether it is.

        `wake_ms` is the time at which a child run of it can go on by itself.
        """
        seen = self._inbox.seen
        awaits = self._inbox.awaits(self.history, self.load)
        info = {INBOX_SEEN: str(seen), **({} if wake_ms is None else {WAKE: str(wake_ms)})}
        return self.append_now(event, info, inbox_seen=seen, awaits=awaits)

    def set_aside(self) -> None:
        """Have a suspended run that cannot continue be due no longer, unless it has received more meanwhile."""
        if self.history.status is RunStatus.SUSPENDED and self.history.held:
            self._inbox.read()
            self._queue.set_aside(self._inbox.seen)

    async def end(self, event: RunCompleted, payloads: Payloads | None = None) -> None:
        """End the run, together with the beginning of the run that continues it, if one does."""
        if event.next_input_id is None or self.next_run is None or not self.next_run(self, event, payloads):
            await self.emit([event], payloads)

    def append_now(
        self,
        event: Event,
        info: Mapping[str, str],
        payloads: Payloads | None = None,
        *,
        now: int | None = None,
        **terms: Any,
    ) -> bool:
        """Append an event on terms that depend on what others do meanwhile; say whether it is in the log."""
        if (reason := self.abort()) is not None:
            raise reason
        run_id, now = self._run_id, self.event_ms() if now is None else now
        seq, body = self.history.head_seq + 1, codec.encode_event(event)
        data = seal(seq, body, run_id, now, info)
        chain = chain_next(self._chain, data)
        artifacts = () if payloads is None else list(payloads.items.values())
        if not self._queue.append_now(StoredEvent(seq, data, chain), artifacts, **terms):
            return False
        self._chain = chain
        self._note(Entry(seq, event, body, run_id, now, {**info, "run_id": run_id, "ts_millis": now}))
        return True

    def _note(self, entry: Entry, *, notify: bool = True) -> None:
        self.history.advance(entry)
        if self._second is not None:
            self._second.note(entry)
        if notify:
            self._on_entry(entry)

    def copy(self, entries: Sequence[Entry], payloads: Payloads | None = None) -> None:
        """Queue events of another run unchanged, with their times shifted so that the last one is now.

        The observer is not called, because nothing happens.
        """
        shift = time.time_ns() // 1_000_000 - max(entry.ts_millis for entry in entries)
        drafts: list[Draft] = []
        for entry in entries:
            info = {name: text for name, text in entry.info.items() if name not in _OF_RUN}
            if isinstance(entry.event, WaitBegun) and DUE in info:
                asked = self._request(entry.event.request_digest, payloads)
                info[DUE] = str(asked.get("until_ms", int(info[DUE]) + shift))
            if isinstance(entry.event, StateFailed) and entry.event.cut:
                info[COPIED] = "true"
            drafts.append((entry.event, max(entry.ts_millis + shift, 0), info))
        self._put(drafts, payloads, notify=False)

    def _put(self, drafts: Sequence[Draft], payloads: Payloads | None, *, notify: bool = True) -> None:
        reason = self.abort()
        if reason is not None:
            raise reason
        sealed: list[StoredEvent] = []
        run_id, history = self._run_id, self.history
        try:
            if self._secret_check is not None and self._secret_check.knows_some:
                self._refuse_secrets(self._secret_check, drafts, payloads)
            for event, now, info in drafts:
                seq = history.head_seq + 1
                body = spelled(event) or codec.encode_event(event)
                data = seal(seq, body, run_id, now, info)
                self._chain = chain = chain_next(self._chain, data)
                sealed.append(StoredEvent(seq, data, chain))
                said = {"run_id": run_id, "ts_millis": now}
                self._note(
                    Entry(seq, event, body, run_id, now, {**info, **said} if info else said), notify=notify
                )
        except BaseException as exc:  # half folded: nothing may follow it
            self._failure = exc
            raise
        behind = self._behind and (self._boundaries or type(drafts[0][0]) is FactRecorded)
        self._queue.add(sealed, None if payloads is None else payloads.items, behind=behind)

    @staticmethod
    def _refuse_secrets(check: Format1RunSecrets, drafts: Sequence[Draft], payloads: Payloads | None) -> None:
        check.refuse_in_log((event.type, codec.encode_event(event)) for event, _, _ in drafts)
        if payloads is not None:
            check.refuse_in_log((kind, data) for _, kind, data in payloads.items.values())

    def outside(self, graph: Graph) -> Outside:
        """Return the plan as given, and whether the run was cancelled or has lost secrets that it needs.

        Waits whose answers have come meanwhile have them in the log then.
        """
        if self.history.open_waits.by_key:
            self.deliver()
        lost = self._lost_seals and bool(wanted(self.history, self._lost_seals))
        wall_ms = 0 if self.wall is None else self.wall.ms
        return Outside(
            graph,
            self._control.cancelling,
            secrets_lost=bool(lost),
            pause=self._control.pausing,
            wall_ms=wall_ms,
        )

    def choose_ms(self, least: int, most: int) -> int:
        """Return a delay between two, chosen by the operating system's randomness: no handler can seed it."""
        return least + secrets_of_os.randbelow(most - least + 1)

    def carry(self, decision: EnterState) -> bool:
        """Return False: a live run has no recorded entries ahead of it."""
        del decision
        return False

    def limit(self, timeout: float | None) -> float | None:
        """Return the time limit of an attempt in seconds: that of its state, or the rest of that of the cleanup."""
        left = None if self.wall is None else self.wall.cleanup_left
        self._limits_cleanup = left is not None and (timeout is None or left < timeout)
        return left if self._limits_cleanup else timeout

    def overdue(self, state: PlanState, timeout: float | None) -> BaseException:
        """Return the exception for an attempt that has exceeded its time limit."""
        of_cleanup = self.wall.cleanup if self.wall is not None and self._limits_cleanup else None
        return TimedOut(state.id, timeout, of_cleanup)

    def abort(self) -> BaseException | None:
        """Return the reason why the log takes no more events, or None."""
        unsealed = self._keys.failure if self._keys is not None else None
        return self._failure or self._queue.failure or self._control.failure or unsealed

    async def durable(self, seq: int | None = None) -> None:
        """Return when all emitted events, or those up to a seq, are durable. Raises what the store raised."""
        await self._queue.durable(seq)

    def flush(self) -> None:
        """Make everything emitted so far durable without suspending the task: the event loop stands still."""
        with self._queue.stalls:
            self._queue.flush()

    def load(self, artifact_id: str) -> bytes:
        """Return an artifact's bytes, whether or not they have reached the store yet."""
        pending = self._queue.held(artifact_id)
        if pending is not None:
            return pending.data
        try:
            return self._store.get(artifact_id)
        except (
            StoreError
        ) as exc:  # the handler that happened to read is not at fault: the run cannot continue
            self._failure = exc
            raise

    def put(self, kind: str, data: bytes) -> str:
        """Store an artifact ahead of the event that will name it, durably, and return its id."""
        if (reason := self.abort()) is not None:
            raise reason
        try:
            with self._queue.stalls:
                return self._store.put(kind, data)
        except StoreError as exc:  # the run cannot continue
            self._failure = exc
            raise

    def output(self, name: str) -> Output | None:
        """Return the output that has a name by now, or None."""
        return self.history.outputs.by_name.get(name)

    def seal(self, key: str) -> bytes | None:
        """Return the seal of the fact with a key: None without one, empty when it is missing."""
        artifact_id = self.history.sealed.payloads.get(key)
        if artifact_id is None:
            return None
        pending = self._queue.held(artifact_id)
        return pending.data if pending is not None else stored_seal(self._store.get, artifact_id)

    def close(self) -> None:
        """Stop committing. Emitted events that nobody waited for are still written, unless writing failed."""
        self._queue.close()


def _in_any_thread(on_entry: Callable[[Entry], None]) -> bool:
    """Say whether an observer may be called in any thread: one that looks at no entry, or says so."""
    reporter = getattr(on_entry, "__self__", None)
    return isinstance(reporter, Reporter) and (
        reporter.in_any_thread or getattr(on_entry, "__func__", None) is Reporter.entry
    )
