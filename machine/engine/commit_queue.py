"""The queue between a run and its store: emitted events wait here and are committed in groups.

A writer thread commits events that have waited long enough, and events that somebody waits for while the event loop
has other work. In all other cases, and when too many wait, the run commits them itself. After a failed commit the
queue keeps the error: it is raised to whoever waits, and stops the run at its next event.
`config.Durability` lists every moment at which a run waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio

from machine.errors import Code, ConcurrencyError
from machine.events import Artifact
from machine.ids import RunId
from machine.io.handler_tasks import tasks_made
from machine.io.settle_barrier import running_tasks
from machine.stores.base import Store, StoredEvent
from machine.stores.lease import Lease

_OTHERS_WERE_FIRST: Final = frozenset({Code.INBOX_MOVED, Code.SIGNAL_TAKEN})


class CommitQueue:
    """The events and artifacts of one run that its store does not have yet, added within one event loop.

    `written` is the seq of the last event in the store, `failure` the reason why nothing can be committed any more,
    and `stalls` the time in which the event loop stood still for a commit.
    """

    def __init__(self, store: Store, run_id: str, *, written: int, lease: Lease | None = None) -> None:
        self.written = written
        self.failure: BaseException | None = None
        self.stalls = StandingStill()
        self._store = store
        self._run_id = RunId(run_id)
        self._lease = lease
        self._queued = written
        self._events: list[StoredEvent] = []
        self._artifacts: dict[str, Artifact] = {}
        self._committing: Mapping[str, Artifact] = {}
        self._commit = threading.Lock()
        self._pending = threading.Lock()
        self._changed = threading.Condition(self._pending)
        self._due = math.inf
        """The time, by `time.monotonic`, at which the writer commits the queue; infinite when the run commits
        it."""
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._resting = self._stopping = False
        self._alone_since: int | None = None
        """The number of tasks made when the run's own was found to be the only one."""
        self._thread: threading.Thread | None = None

    def add(
        self, events: Sequence[StoredEvent], artifacts: Mapping[str, Artifact] | None, *, behind: bool
    ) -> None:
        """Queue events with the artifacts they name; `behind` lets the writer thread commit them after a delay.

        Commits immediately once `max_pending` events wait: a run that emits that fast commits them itself, because
        a concurrent thread would compete with it for the interpreter at every row.
        """
        limits = self._store.commit_limits
        with self._pending:
            self._events += events
            self._queued = events[-1].seq
            if artifacts:
                self._artifacts.update(artifacts)
            pending = len(self._events)
            if behind and self._due == math.inf:
                self._wake(time.monotonic() + limits.max_delay)
        if pending >= limits.max_pending:
            self.flush()

    async def durable(self, seq: int | None = None) -> None:
        """Return when every event up to `seq` is in the store, None for all. Raises what the store raised.

        The event loop continues meanwhile if anything else uses it: another run, another state, a server. A task
        that has the loop for itself commits at once, which saves two thread switches. A cancellation that arrives
        during the wait takes effect after it.
        """
        seq = self._queued if seq is None else seq
        if seq <= self.written:
            return
        if not self._store.write_behind or self._is_alone():
            with self.stalls:
                self.flush()
            return
        future = asyncio.get_running_loop().create_future()
        with self._pending:
            self._waiters.append((seq, future))
            self._wake(-math.inf)
        await _whatever_is_cancelled(future)
        if self.written < seq and self.failure is not None:
            raise self.failure

    def _is_alone(self) -> bool:
        """Say whether this task has the event loop for itself, as it has until another task is made."""
        made = tasks_made()
        if made is None or made != self._alone_since:
            if len(running_tasks()) > 1:
                return False
            self._alone_since = made
        return True

    def flush(self) -> None:
        """Commit the queue in this thread. Raises what the store raised, now or before."""
        with self._commit:
            if self.failure is None:
                self._append()
            with self._pending:
                if self.failure is not None:
                    self._due = math.inf
                waiters, self._waiters = self._waiters, []
                for seq, future in waiters:
                    if self.failure is None and seq > self.written:
                        self._waiters.append((seq, future))
                    else:
                        _settle(future)
        if self.failure is not None:
            raise self.failure

    def _append(self) -> None:
        with self._pending:
            events, self._events, self._due = self._events, [], math.inf
            self._committing, self._artifacts = self._artifacts, {}
        if not events:
            return
        try:
            artifacts = list(self._committing.values())
            self._store.append(self._run_id, self.written, events, artifacts, lease=self._lease)
        except BaseException as exc:  # noqa: BLE001 - raised by `flush`, for whoever waits for it
            self.failure = exc
            return
        self.written = events[-1].seq
        self._committing = {}

    def append_now(self, event: StoredEvent, artifacts: Sequence[Artifact] = (), **terms: Any) -> bool:
        """Commit the queue, and then one event if the terms of its append allow it; say whether it is in.

        They are `inbox_seen`, `takes` and `awaits` of `Store.append`. Raises what the store raised otherwise.
        """
        self.flush()
        with self._commit:
            try:
                self._store.append(self._run_id, self.written, [event], artifacts, lease=self._lease, **terms)
            except BaseException as exc:
                if isinstance(exc, ConcurrencyError) and exc.code in _OTHERS_WERE_FIRST:
                    return False
                self.failure = exc
                raise
            self.written = self._queued = event.seq
        return True

    def set_aside(self, inbox_seen: int) -> None:
        """Tell the store that the suspended run has no use for its messages up to a number.

        It stays due if a later one exists. Raises what the store raised otherwise.
        """
        self.flush()
        try:
            self._store.append(self._run_id, self.written, (), lease=self._lease, inbox_seen=inbox_seen)
        except ConcurrencyError as exc:
            if exc.code != Code.INBOX_MOVED:
                raise

    def held(self, artifact_id: str) -> Artifact | None:
        """Return an artifact that has not reached the store yet, or None when it is not in the queue."""
        with self._pending:
            return self._artifacts.get(artifact_id) or self._committing.get(artifact_id)

    def close(self) -> None:
        """Stop the writer, and commit the rest of the queue unless a commit has failed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        if self.failure is None:
            self.flush()

    def _wake(self, due: float) -> None:
        """Have the writer commit at `due`. Called with the queue locked."""
        self._due = due
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="machine log writer", daemon=True)
            self._thread.start()
        elif self._resting or due == -math.inf:
            self._changed.notify()

    def _write(self) -> None:
        while self._is_due():
            # the exception is stored in `failure`, which stops the run at its next event
            with contextlib.suppress(BaseException):
                self.flush()

    def _is_due(self) -> bool:
        """Wait until there is something to commit; return False when the queue is closed."""
        with self._changed:
            while not self._stopping and (left := self._due - time.monotonic()) > 0:
                self._resting = left == math.inf
                self._changed.wait(None if self._resting else left)
            self._resting = False
            return not self._stopping


class StandingStill:
    """The time in which an event loop stands still for a store: `seconds` is that spent in this context so far."""

    __slots__ = ("_began", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *exc: object) -> None:
        self.seconds += time.monotonic() - self._began


def _settle(future: asyncio.Future[None]) -> None:
    def settle() -> None:
        if not future.done():
            future.set_result(None)

    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has closed, so nobody waits any more
        return


async def _whatever_is_cancelled(future: asyncio.Future[None]) -> None:
    """Wait for a future to its end, and repeat a cancellation of the task afterwards.

    A cancellation that was withdrawn by then is not repeated, as that of a timeout whose block has ended in time.
    """
    cancelled = False
    with anyio.CancelScope(shield=True):
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                cancelled = True
    task = asyncio.current_task()
    if cancelled and task is not None:
        asyncio.get_running_loop().call_soon(_cancel_again, task, task.cancelling())


def _cancel_again(task: asyncio.Task[object], asked: int) -> None:
    if not task.done() and task.cancelling() >= asked:
        task.cancel()
        task.uncancel()
