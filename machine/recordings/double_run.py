"""Paranoid mode: a live run followed by a replay of itself, one attempt behind.

Every attempt is run again immediately, in fresh memory and on the facts it has just recorded. This must never
write to the store or make an external call: it is an ordinary replay of a log that is still being written.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

import attrs

from machine import codec
from machine.engine.driver_protocols import FirstRun
from machine.engine.reporter import Reporter
from machine.errors import Code, ErrorInfo
from machine.events import Entry, Event, StateCompleted, StateEntered, StateFailed
from machine.exception_to_error_info import refused
from machine.exception_to_error_info import suspended as suspended_error
from machine.io.attempt_scope import Log, Payloads
from machine.kernel.decisions import EnterState
from machine.kernel.linearize import parts_of_attempt
from machine.recordings.divergence import Cause, Diverged, Divergence, DivergenceKind
from machine.recordings.divergence_cause import UNDECLARED
from machine.recordings.divergence_text import details_of
from machine.recordings.going_on import EarlierPart, changed, replay_up_to
from machine.recordings.replay import provider_of
from machine.recordings.replay_log import ReplayLog
from machine.recordings.replay_recorder import recorder_of
from machine.watch.watch import Undeclared

P = ParamSpec("P")
R = TypeVar("R")

_CAUSE: Final = (
    "the same code, run twice on the same facts: it keeps something from one run to the next (a global, a cache, "
    "a counter), or takes time, randomness or an identity that did not come through io"
)


class SecondRun:
    """The second run of a live run: it receives every log entry and is one attempt behind."""

    def __init__(self, earlier: Iterable[Entry]) -> None:
        self._entries = list(earlier)
        self._log = ReplayLog(self._entries, self._load, SilentReporter().entry)
        self._log.begin_at(len(self._entries))
        self._live: FirstRun | None = None
        self._pending = Payloads()
        self._inside = False
        self._suspended = {
            entry.event.state_id
            for entry in self._entries
            if isinstance(entry.event, StateFailed) and entry.event.suspended
        }
        """The states of which an attempt was suspended."""

    def note(self, entry: Entry) -> None:
        """Add an entry of the live run; an entry outside attempts is accepted unchanged."""
        if isinstance(entry.event, StateEntered):
            self._inside = True
        elif isinstance(entry.event, StateFailed) and entry.event.suspended:
            self._suspended.add(entry.event.state_id)
            self._inside = False
        elif isinstance(entry.event, StateCompleted | StateFailed):
            self._inside = False
        if entry.seq <= self._log.history.head_seq:
            return  # it was compared before it was written
        self._entries.append(entry)
        if not self._inside:
            self._log.begin_at(len(self._entries))

    @staticmethod
    def earlier(entries: Iterable[Entry], state_id: str, attempt: int, live: Log) -> EarlierPart:
        """Return the recorded part of a suspended attempt, given the entries of its run and its log."""
        return EarlierPart(entries, state_id, attempt, live)

    async def differs(
        self, run: FirstRun, decision: EnterState, ending: Event, payloads: Payloads
    ) -> ErrorInfo | None:
        """Run an attempt again that is about to end with `ending`; return the divergence, or None."""
        self._live, self._pending = run, payloads
        if isinstance(ending, StateFailed) and ending.suspended:
            return None  # it is compared as a whole once it has ended
        head = self._entries[-1]
        now = time.time_ns() // 1_000_000  # informational: how long a handler may wait
        entry = Entry(head.seq + 1, ending, codec.encode_event(ending), head.run_id, now, {})
        state_id, attempt, _, _, _ = decision
        parts = parts_of_attempt(self._entries, state_id, attempt) if state_id in self._suspended else None
        if parts is not None and parts.seen:
            log = replay_up_to(parts, entry, self._load, whole=True)
            difference = await self._again(run, log, decision)
            self._log.begin_at(len(self._entries))
            return difference
        self._entries.append(entry)
        try:
            return await self._again(run, self._log, decision)
        finally:
            if self._log.history.head_seq <= head.seq:  # it did not reach that end, or was stopped before
                self._entries.pop()

    async def unchanged(self, run: FirstRun, suspended: Iterable[EnterState]) -> ErrorInfo | None:
        """Run suspended attempts again up to where they were suspended; return the first difference, or None."""
        self._live = run
        for decision in suspended:
            parts = parts_of_attempt(self._entries, decision.state_id, decision.attempt)
            event, last = (
                StateFailed(decision.state_id, suspended_error(decision.state_id)),
                self._entries[-1],
            )
            ending = last._replace(seq=last.seq + 1, event=event, body=codec.encode_event(event))
            log = replay_up_to(parts, ending, self._load, whole=False)
            try:
                await self._replayed(run, log, decision)
            except Diverged as exc:
                return changed(decision.state_id, exc.divergence)
        return None

    async def _again(self, run: FirstRun, log: ReplayLog, decision: EnterState) -> ErrorInfo | None:
        try:
            await self._replayed(run, log, decision)
        except Diverged as exc:
            return _difference(decision.state_id, exc.divergence)
        return None

    @staticmethod
    async def _replayed(run: FirstRun, log: ReplayLog, decision: EnterState) -> None:
        # share the live run's known secrets, so that none appears in the description of a difference
        again = run.again(
            log=log,
            provider=provider_of(log),
            recorder=recorder_of(log, {}),
            reporter=SilentReporter(),
            refuse=log,
        )
        await again.enter(decision)

    def _load(self, artifact_id: str) -> bytes:
        pending = self._pending.items.get(artifact_id)
        if pending is not None:
            return pending.data
        assert self._live is not None
        return self._live.log.load(artifact_id)


def seconded(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return `run`, `resume`, `dry_run` or `apply` of the engine with the second run added."""

    @functools.wraps(function)
    async def with_second(*args: P.args, **kwargs: P.kwargs) -> R:
        kwargs.setdefault("second", SecondRun)
        return await function(*args, **kwargs)

    return with_second


class SilentReporter(Reporter):
    """A reporter that reports nothing: another run reports the same."""

    def undeclared(self, state_id: str, what: Undeclared) -> None:
        """Do nothing."""

    def held(self, state_id: str, seconds: float) -> None:
        """Do nothing."""

    def unused_answers(self, names: Sequence[str], waits: Sequence[str]) -> None:
        """Do nothing."""


def _difference(state_id: str, divergence: Divergence) -> ErrorInfo:
    cause = UNDECLARED if divergence.kind is DivergenceKind.UNDECLARED_IO else _CAUSE
    divergence = attrs.evolve(divergence, cause=Cause.NOTHING_CHANGED, cause_text=cause)
    error = refused(
        f"{state_id} did something else when it was run again on its own facts: {divergence.summary}",
        Code.NOT_DETERMINISTIC,
    )
    return attrs.evolve(error, details=details_of(divergence))
