"""The log of a replay, which compares every emission with the recording, byte for byte and in order.

It writes nothing. Inside an attempt, an emission that was recorded later is held back until its turn, so racing
calls end in the recorded order, made by `io/outcome_turns.py` in the live run. A missing turn is a divergence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

import anyio
import attrs

from machine import codec
from machine.engine.commit_queue import StandingStill
from machine.engine.driver_protocols import Outside
from machine.errors import Code, MachineError, StoreError
from machine.events import (
    Artifact,
    EffectIntended,
    Entry,
    Event,
    FactRecorded,
    LimitReached,
    RunCompleted,
    RunSuspended,
    StateCompleted,
    StateEntered,
    StateFailed,
    WaitBegun,
)
from machine.exception_causes import raised_text
from machine.io.attempt_scope import AttemptScope, Payloads, Timers, stored_seal
from machine.kernel.decisions import EnterState
from machine.kernel.history import History
from machine.kernel.linearize import put_away_ms
from machine.plan import Graph
from machine.recordings.divergence import Diverged, Divergence, RecordingEnds
from machine.recordings.divergent_calls import DivergentCalls
from machine.recordings.early_events import Turns
from machine.recordings.make_divergence import Differences
from machine.recordings.recorded_attempt import RecordedAttempt
from machine.recordings.recorded_commands import asked, begins_anew, delay_of, of_operators
from machine.recordings.redacted_request_matching import RecordedRequests
from machine.recordings.run_contents import Walked, sound_parts
from machine.state import PlanState
from machine.watch.watch import Undeclared

STALL_SECONDS: Final = 1.0
"""Seconds without progress for a handler that races tasks, in addition to its recorded duration."""

PATIENCE_SECONDS: Final = 30.0
PATIENCE: Final = 10
"""Time limit of an attempt in replay: a multiple of its recorded duration, and additional seconds."""
_NOT_AGAIN: Final = frozenset({str(Code.NOT_DETERMINISTIC), str(Code.TASK_LEFT_BEHIND)})
"""Error codes of failures that one run of a handler cannot find: they need two, or were a matter of time."""


class ReplayLog(DivergentCalls):
    """The recording of a run, and the position of a replay in it."""

    def __init__(
        self,
        recorded: Sequence[Entry],
        load: Callable[[str], bytes],
        on_entry: Callable[[Entry], None],
        graphs: Mapping[str, Graph] | None = None,
    ) -> None:
        """Start at the beginning; `graphs` maps plan ids to plans, when the run used more than one."""
        # concurrent states are replayed one after another, so their seqs are in another order
        started = recorded[0].event if recorded else None
        self.timers: Timers | None = None
        self.stalls: StandingStill | None = None
        self.floor_ms = 0
        self.learn: Callable[..., object] | None = None
        """Callback for every seal of a fact, as the replay reaches it."""
        self.history = History(in_seq=getattr(started, "max_concurrency", None) is None and _in_seq(recorded))
        self.divergence: Divergence | None = None
        self._recorded = recorded
        self._load = load
        self._on_entry = on_entry
        self._graphs = graphs or {}
        self._payloads: Mapping[str, Artifact] = {}
        self._walked: Walked = {}
        self._known: set[tuple[str, str]] = set()
        self._at = self._begin = self._end = 0
        self.requests = RecordedRequests(load)
        self._attempt = RecordedAttempt(self.requests)
        self._turns = Turns()
        self._scope: AttemptScope | None = None
        self._ended = False
        self._damage: StoreError | None = None
        self._early: Event | None = None
        self._differences = Differences(load, self.load)
        self._info: Mapping[str, str] = {}

    def outside(self, graph: Graph) -> Outside:
        """Accept the recorded operator's events and commands at this position."""
        event = self._next()
        # no attempt is open: it is the answer of an operator, or to what a suspended attempt waits for
        while type(event) is not StateEntered and (taken := of_operators(event, self._next(1))):
            self._take_to(self._at + taken)
            event = self._next()
        if type(event) is StateEntered:  # the most common, before which nothing was asked
            return Outside(graph, False, event.state_id, limited=False)  # noqa: FBT003 - no cancellation
        if type(event) is LimitReached:
            return Outside(graph, False, limited=False, reached=event)  # noqa: FBT003 - no cancellation
        said = asked(event, cleaning=self.history.cleanup is not None)
        graph = self._graphs.get(said.plan_id or "", graph)
        prefer = getattr(event, "state_id", None)
        return Outside(graph, said.cancel, prefer, said.failed, said.limited, said.secrets_lost)

    def _next(self, after: int = 0) -> Event | None:
        at = self._at + after
        return self._recorded[at].event if at < len(self._recorded) else None

    def choose_ms(self, least: int, most: int) -> int:
        """Return the recorded delay before a retry, when it is between these two."""
        return delay_of(self._next(), least, most)

    def carry(self, decision: EnterState) -> bool:
        """Accept the next recorded attempt if it was interrupted or is still open.

        The interruption came from outside the handler, which cannot reproduce it; the facts of the attempt are
        inputs like any others.
        """
        self._begin = self._end = min(self._at, len(self._recorded) - 1)
        self._attempt = recorded = RecordedAttempt(self.requests)
        if self._at >= len(self._recorded):
            return False
        first = self._recorded[self._at].event
        due = decision.state_id, decision.attempt, decision.base_snapshot_id
        if type(first) is not StateEntered or (first.state_id, first.attempt, first.base_snapshot_id) != due:
            return False
        for index in range(self._at + 1, len(self._recorded)):
            entry = self._recorded[index]
            event = entry.event
            self._end = index
            recorded.expect(entry)
            if isinstance(event, StateCompleted):
                return False
            if isinstance(event, StateFailed):
                if event.suspended and not begins_anew(self._recorded[index + 1 :], event.state_id):
                    return False
                if settled := event.cut or event.error.code in _NOT_AGAIN:
                    self._take_to(index + 1)
                return settled
        self._take_to(len(self._recorded))
        return True

    def begin_at(self, position: int) -> None:
        """Accept what comes before a position of the recording without comparing it."""
        self._consume_to(position)

    def abort(self) -> BaseException | None:
        """Return the exception that ended the replay, or None: a handler may have suppressed it."""
        if self.divergence is not None:
            return Diverged(self.divergence)
        return self._damage or (RecordingEnds() if self._ended else None)

    def limit(self, timeout: float | None) -> float | None:
        """Return the time limit of an attempt in seconds: replay never sleeps, so a short one is enough."""
        del timeout
        return PATIENCE_SECONDS + PATIENCE * (self.stall_seconds - STALL_SECONDS)

    def overdue(self, state: PlanState, timeout: float | None) -> BaseException:
        """Return the divergence of an attempt that ended in the recording and does not end now."""
        del state, timeout
        with contextlib.suppress(Diverged):
            if self.divergence is None:
                text = "the handler waits for something that is no call of io"
                self._diverge(self._differences.missing(self._recorded[self._at], text))
        return self.abort() or RecordingEnds()

    def attach(self, scope: AttemptScope) -> None:
        """Set the attempt that is about to be replayed."""
        self._scope = scope

    async def emit(
        self, events: Sequence[Event], payloads: Payloads | None = None, info: Mapping[str, str] | None = None
    ) -> None:
        """Compare events with the recording, each in its turn. Raises `Diverged` or `RecordingEnds`."""
        self._info = info or {}
        if payloads is not None:
            self._payloads = payloads.items
        for event in events:
            body, at = codec.encode_event(event), self._at
            free = self._early is None and self.abort() is None and at < len(self._recorded)
            if free and self._recorded[at].body == body:  # nearly always
                self._consume_to(at + 1)
            else:
                await self._match(event, body)

    async def end(self, event: RunCompleted, payloads: Payloads | None = None) -> None:
        """Compare the end of the run with the recording: the run that continues it is no part of that."""
        await self.emit([event], payloads)

    async def durable(self, seq: int | None = None) -> None:
        """Return at once: a replay writes nothing."""

    def flush(self) -> None:
        """Do nothing: a replay writes nothing."""

    def load(self, artifact_id: str) -> bytes:
        """Return an artifact of the recording, or one made by this replay."""
        if (made := self._payloads.get(artifact_id)) is not None:
            return made.data
        try:
            return self._load(artifact_id)
        except StoreError as exc:  # damage of the recording is not the fault of the handler that read it
            self._damage = exc
            raise

    def seal(self, key: str) -> bytes | None:
        """Return the seal stored with a fact: None when it has none, empty when the seal is not available."""
        artifact_id = self.history.sealed.payloads.get(key)
        return None if artifact_id is None else stored_seal(self._load, artifact_id)

    def fact(self, key: str) -> FactRecorded | None:
        """Return the fact that the open attempt recorded under a key, or None."""
        return next(iter(self._attempt.facts.get(key, ())), None)

    def takes(self, fact: FactRecorded) -> bool:
        """Accept a recorded fact and return True if it is the next event and its call was not given up."""
        self._raise_if_over()
        if self._early is not None or fact.given_up or self._recorded[self._at].event is not fact:
            return False
        self._info = {}
        self._consume_to(self._at + 1)
        return True

    def make_way(self, fact: FactRecorded) -> None:
        """Let recorded events through whose emitters wait, before a fact whose caller cannot wait for its turn."""
        body = codec.encode_event(fact)
        if self._early is None:
            self._consume_to(self._turns.let_through_to(body, self._recorded, self._at, self._end))
            if self._attempt.left.get(body) and self._recorded[self._at].body != body:
                self._stuck(fact)

    def asks(self, key: str) -> str | None:
        """Return the key of the approval that a policy asked for before the call with a key, None without one."""
        return self._attempt.asks.get(key)

    def begins(self, key: str) -> WaitBegun | None:
        """Return the beginning of a wait that the open attempt recorded under a key, or None."""
        return self._attempt.begins.get(key)

    @property
    def suspends(self) -> bool:
        """True where the recorded attempt was put away."""
        return isinstance(event := self._next(), StateFailed) and event.suspended

    def now_ms(self) -> int:
        """Return 0: a replay reads no clock."""
        return 0

    def deliver(self) -> int:
        """Return 0: a replay has no inbox."""
        return 0

    async def suspend(self, event: RunSuspended, wake_ms: int | None = None) -> bool:
        """Compare a suspension of the run with the recording."""
        del wake_ms
        await self.emit([event])
        return True

    def intended(self, key: str) -> EffectIntended | None:
        """Return the effect intent that the open attempt recorded under a key, or None."""
        return self._attempt.intents.get(key)

    def reused(self, key: str) -> str | None:
        """Return the key of the earlier fact that answered a call, if the recording has one."""
        return self._attempt.reused.get(key)

    def has(self, event: Event) -> bool:
        """Return whether the open attempt recorded an event that is still to come."""
        return self._attempt.has(codec.encode_event(event))

    def failed_as(self, exc: MachineError) -> MachineError | None:
        """Return an error as recorded, if the open attempt failed with it."""
        return self.requests.failed_as(exc)

    def refused(self, scope: AttemptScope, what: Undeclared) -> Diverged:
        """Record that a handler tried external I/O without `io`, and return the exception to raise there.

        It may be called in any thread, and after the attempt: the replay has diverged in any case.
        """
        if self.divergence is None:
            found = self._differences.undeclared(what, self._seq())
            self.divergence = attrs.evolve(found, state_id=scope.state.id, attempt=scope.attempt)
        return Diverged(self.divergence)

    @property
    def stall_seconds(self) -> float:
        """Return for how many seconds a handler that races tasks may make no progress."""
        span = self._recorded[self._end].ts_millis - self._recorded[self._begin].ts_millis
        if self._attempt.begins:  # the time in which it waited says nothing, nor that in which it went on
            span -= put_away_ms(self._recorded[self._begin : self._end + 1])
        return STALL_SECONDS + max(span, 0) / 1000

    async def _match(self, event: Event, body: bytes) -> None:
        inside = self._scope is not None and not self._scope.closed and not isinstance(event, StateEntered)
        while not self._turns.was_let_through(body):
            self._raise_if_over()
            entry = self._recorded[self._at]
            same = entry.body == body or self.requests.same(entry.body, body)
            if self._early is not None:
                self._probed(entry, event, body, same=same)
                return
            if same:
                self._consume_to(self._at + 1)
                return
            if not inside or not self._attempt.left.get(body):
                self._diverge(self._differences.between(entry, event))
            scope = self._scope
            if not self._turns and scope and scope.barrier.alone and not scope.state.blocking:
                self._stuck(event)
            else:
                await self._turn(event, body)

    def _stuck(self, early: Event) -> None:
        """Record that `early` is emitted while the recording has another event next, which does not come.

        That is a divergence. The handler continues so that its kind is known: does the other event come later?
        """
        self._early = early
        self._turns.wake()

    def _probed(self, entry: Entry, event: Event, body: bytes, *, same: bool) -> None:
        """Let an emission pass out of turn, unless it tells which divergence this is."""
        assert self._early is not None
        if same:
            self._diverge(self._differences.reordered(entry, self._early))
        if isinstance(event, StateCompleted | StateFailed):
            self._missing(event)
        if not self._attempt.left.get(body):
            self._missing()

    async def _turn(self, event: Event, body: bytes) -> None:
        """Wait until the recording reaches `body`; after `stall_seconds` without progress, `event` is stuck."""
        with self._turns.waiting(body) as come:
            while not come.is_set():
                at = self._at
                with anyio.move_on_after(self.stall_seconds):
                    await come.wait()
                if not come.is_set() and self._at == at and self._early is None:
                    self._stuck(event)

    def _raise_if_over(self) -> None:
        self._ended = self._ended or self._at >= len(self._recorded)
        if (reason := self.abort()) is not None:
            raise reason

    def _take_to(self, end: int) -> None:
        """Accept entries that are not compared, and check the artifacts they reference instead."""
        for entry in self._recorded[self._at : end]:
            for _ in sound_parts(entry, self._load, self._walked, self._known):
                pass
        self._consume_to(end)

    def _consume_to(self, end: int) -> None:
        attempt = self._attempt
        for at in range(self._at, end):
            entry = self._recorded[at]
            self.history.advance(entry)
            self._on_entry(entry)
            attempt.passed(entry)
            if self.learn is not None and isinstance(entry.event, FactRecorded):
                for seal_id, of_request in self.history.sealed.seals_of(entry.event.key):
                    self.learn(stored_seal(self._load, seal_id), entry.event, asked=of_request)
        self._at = end
        if self._turns and end < len(self._recorded):
            self._turns.come(self._recorded[end].body)

    def _diverge(self, divergence: Divergence) -> NoReturn:
        for attempt in self.history.open.values():
            divergence = attrs.evolve(divergence, state_id=attempt.state_id, attempt=attempt.attempt)
        if raised := raised_text(self._info):
            divergence = attrs.evolve(divergence, raised=raised)
        self.divergence = divergence
        self._turns.wake()  # so that waiters learn that their turn never comes
        self._end_attempt()
        raise Diverged(divergence)

    def _end_attempt(self) -> None:
        """Interrupt the handler, which may catch the exception of the divergence and continue."""
        if self._scope is not None and self._scope.limit is not None:
            self._scope.limit.cancel()

    def _seq(self) -> int:
        return self._recorded[min(self._at, len(self._recorded) - 1)].seq


def _in_seq(entries: Sequence[Entry]) -> bool:
    """Say whether entries lack none, as those of a run in which no handler waited."""
    return not entries or entries[-1].seq - entries[0].seq == len(entries) - 1
