"""Paranoid mode: a live run followed by a replay of itself, one attempt behind.

Every attempt is run again immediately, in fresh memory and on the facts it has just recorded. This must never
write to the store or make an external call: it is an ordinary replay of a log that is still being written.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, ParamSpec, TypeVar

import attrs

from machine import canonical, codec
from machine.engine.driver_protocols import FirstRun
from machine.engine.reporter import Reporter
from machine.errors import Code, ErrorInfo
from machine.events import Entry, Event, StateCompleted, StateEntered, StateFailed
from machine.exception_to_error_info import refused
from machine.io.attempt_scope import Log, Payloads
from machine.kernel.decisions import EnterState
from machine.recordings.divergence import Cause, Diverged, Divergence, DivergenceKind
from machine.recordings.divergence_cause import UNDECLARED
from machine.recordings.divergence_text import lines
from machine.recordings.going_on import EarlierPart
from machine.recordings.replay import provider_of
from machine.recordings.replay_log import ReplayLog
from machine.recordings.replay_recorder import recorder_of
from machine.watch.watch import Undeclared

P = ParamSpec("P")
R = TypeVar("R")

_MOST_DETAILS: Final = 16 * 1024
"""The largest divergence, in bytes, that an error holds whole; of a larger one it has the text."""

_CAUSE: Final = (
    "the same code, run twice on the same facts: it keeps something from one run to the next (a global, a cache, "
    "a counter), or takes time, randomness or an identity that did not come through io"
)


class SecondRun:
    """The second run of a live run: it receives every log entry and is one attempt behind."""

    def __init__(self, earlier: Iterable[Entry]) -> None:
        self._entries = list(earlier)
        self._log = ReplayLog(self._entries, self._load, SilentReporter().entry)
        self._log.pass_over()
        self._live: FirstRun | None = None
        self._pending = Payloads()
        self._inside = False

    def note(self, entry: Entry) -> None:
        """Add an entry of the live run; an entry outside attempts is accepted unchanged."""
        if isinstance(entry.event, StateEntered):
            self._inside = True
        elif isinstance(entry.event, StateCompleted | StateFailed):
            self._inside = False
        if entry.seq <= self._log.history.head_seq:
            return  # it was compared before it was written
        self._entries.append(entry)
        if not self._inside:
            self._log.pass_over()

    @staticmethod
    def earlier(entries: Iterable[Entry], state_id: str, attempt: int, live: Log) -> EarlierPart:
        """Return the recorded part of a suspended attempt, given the entries of its run and its log."""
        return EarlierPart(entries, state_id, attempt, live)

    async def differs(
        self, run: FirstRun, decision: EnterState, ending: Event, payloads: Payloads
    ) -> ErrorInfo | None:
        """Run an attempt again that is about to end with `ending`; return the divergence, or None."""
        self._live, self._pending = run, payloads
        head = self._entries[-1]
        now = time.time_ns() // 1_000_000  # informational: how long a handler may wait
        self._entries.append(Entry(head.seq + 1, ending, codec.encode_event(ending), head.run_id, now, {}))
        # share the live run's known secrets, so that none appears in the description of a difference
        again = run.again(
            log=self._log,
            provider=provider_of(self._log),
            recorder=recorder_of(self._log, {}),
            reporter=SilentReporter(),
            refuse=self._log,
        )
        try:
            await again.enter(decision)
        except Diverged as exc:
            return _difference(decision.state_id, exc.divergence)
        finally:
            if self._log.history.head_seq <= head.seq:  # it did not reach that end, or was stopped before
                self._entries.pop()
        return None

    def _load(self, artifact_id: str) -> bytes:
        pending = self._pending.items.get(artifact_id)
        if pending is not None:
            return pending.data
        assert self._live is not None
        return self._live.log.load(artifact_id)


def seconded(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return `run`, `resume` or `dry_run` of the engine with the second run added."""

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


def _difference(state_id: str, divergence: Divergence) -> ErrorInfo:
    cause = UNDECLARED if divergence.kind is DivergenceKind.UNDECLARED_IO else _CAUSE
    divergence = attrs.evolve(divergence, cause=Cause.NOTHING_CHANGED, cause_text=cause)
    details: dict[str, Any] = {"text": lines(divergence)}
    whole = divergence.to_json()
    if len(canonical.encode(whole)) <= _MOST_DETAILS:
        details["divergence"] = whole
    error = refused(
        f"{state_id} did something else when it was run again on its own facts: {divergence.summary}",
        Code.NOT_DETERMINISTIC,
    )
    return attrs.evolve(error, details=details)
