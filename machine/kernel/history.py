"""`fold`: the only interpreter of a log.

It is a pure function of the entries. It checks every envelope rule, each with its own error code, and is total: any
entries give a `History` or a `LogError`. Folding a `History` further in place equals folding the longer log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

import attrs
from blake3 import blake3

from machine.errors import Code, ErrorInfo, LogError
from machine.events import (
    CleanupBegun,
    DomainEventRecorded,
    EffectIntended,
    Entry,
    Event,
    FactRecorded,
    FactValue,
    LimitReached,
    RetryScheduled,
    RunCompleted,
    RunResumed,
    RunStarted,
    RunSuspended,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
    WaitBegun,
)
from machine.kernel import log_rules, suspension
from machine.kernel.facts_with_ignored_parts import IgnoredParts
from machine.kernel.open_waits import OpenWaits
from machine.kernel.outputs import Outputs
from machine.kernel.published import Published
from machine.kernel.run_status import FINAL_STATUSES, RunStatus, may_follow
from machine.kernel.sealed_facts import SealedFacts
from machine.kernel.state_history import OpenAttempt, StateHistory, StateStatus, failed_and_skipped
from machine.kernel.transactions import Transactions
from machine.kernel.usage import Usage
from machine.waits import Wait

_EMPTY_LANE: Final = bytes(32)
_RUN_LANE: Final = ""


@attrs.define
class History:
    """The state of a run after folding its log. Only `fold` and `advance` write it."""

    run_id: str | None = None
    status: RunStatus = RunStatus.PENDING
    started: RunStarted | None = None
    started_ms: int | None = None
    max_concurrency: int | None = None
    """The maximum number of open attempts; None in sequential mode."""
    head_seq: int = 0
    checkpoint: str | None = None  # snapshot id of the last state boundary
    states: dict[str, StateHistory] = attrs.field(factory=dict)
    settled: list[str] = attrs.field(factory=list)
    """The states that have completed or been skipped, in that order."""
    stopped: dict[str, None] = attrs.field(factory=dict)
    """The states whose last attempt did not complete: they failed, or wait for a retry."""
    branched: bool = False
    """True when a state has chosen not to continue to a successor."""
    next_inputs: dict[str, str] = attrs.field(factory=dict)
    """The inputs with which states said that the run goes on as another, by state."""
    open: dict[str, OpenAttempt] = attrs.field(factory=dict)
    """The attempts that have begun and not ended, by state; at most one in sequential mode."""
    facts: dict[str, FactRecorded] = attrs.field(factory=dict)
    successes: dict[tuple[str, str, str], list[FactRecorded]] = attrs.field(factory=dict)
    """Final outcomes in order, by state, namespace and request digest."""
    sealed: SealedFacts = attrs.field(factory=SealedFacts)
    ignored: IgnoredParts = attrs.field(factory=IgnoredParts)
    transactions: Transactions = attrs.field(factory=Transactions)
    published: Published = attrs.field(factory=Published)
    outputs: Outputs = attrs.field(factory=Outputs)
    usage: Usage = attrs.field(factory=Usage)
    uncertain: dict[str, EffectIntended] = attrs.field(factory=dict)  # effects without an outcome, by key
    open_waits: OpenWaits = attrs.field(factory=OpenWaits)
    """The waits of handlers that are not over, by key."""
    sent: dict[tuple[str, str | None, str], str] = attrs.field(factory=dict)
    """The request digest of the first effect intended, by state, namespace and idempotency key."""
    plan_id: str | None = None  # the plan the run continues with
    replanned: bool = False  # whether it is another one than the run was started with
    waits: tuple[Wait, ...] = ()
    """The external input that a suspended run waits for."""
    cancelling: bool = False  # an attempt was interrupted because the run, or its cleanup, is being cancelled
    cleanup: CleanupBegun | None = None  # the end of the work, after which only cleanup states begin
    cleanup_ms: int = 0  # the time of that event
    cleanup_seq: int = 0
    final_snapshot_id: str | None = None
    error: ErrorInfo | None = None
    """The reason why the run failed when no state did."""
    in_seq: bool = True
    """False for a recording whose attempts were linearized, so that seqs are out of order."""
    digested: bool = True
    """False for a reader that asks for no digest."""
    lanes: dict[str, bytes] = attrs.field(factory=dict)

    @property
    def final(self) -> bool:
        """True when the run has ended for good."""
        return self.status in FINAL_STATUSES

    @property
    def limited(self) -> bool:
        """True when the run has used up a limit, and its cleanup has not begun."""
        return self.usage.reached is not None and self.cleanup is None

    @property
    def unanswered(self) -> tuple[Wait, ...]:
        """The external input that a suspended run still waits for."""
        return suspension.unanswered(self.waits, self.uncertain, self.open_waits.by_key)

    @property
    def held(self) -> bool:
        """True while a suspended run cannot continue."""
        return suspension.held(self.waits, self.unanswered)

    def uncertain_of(self, state_id: str) -> list[EffectIntended]:
        """Return the effects of a state whose outcome is unknown, in the order they were intended."""
        return [intent for intent in self.uncertain.values() if intent.state_id == state_id]

    def digest(self, order: Iterable[str]) -> str:
        """Return the digest, 64 hex digits: one BLAKE3 over the run's own lane, then each state's as ordered.

        A lane is itself a BLAKE3 chain over the canonical bodies of its events. So digests are equal if every lane
        has the same bodies in the same order: run ids, times, other info and the interleaving are left out.
        """
        assert self.digested
        whole = blake3(self.lanes.get(_RUN_LANE, _EMPTY_LANE))
        for state_id in order:
            whole.update(self.lanes.get(state_id, _EMPTY_LANE))
        return whole.hexdigest()

    def advance(self, entry: Entry) -> None:
        """Fold one more entry into this history. Raises `LogError`, leaving the history unusable."""
        seq, event, body, run_id, _, _ = entry
        due = self.head_seq + 1
        if seq != due and self.in_seq:
            raise LogError(seq, f"it follows event {self.head_seq}", code=Code.LOG_SEQ_GAP)
        if self.status is not RunStatus.RUNNING or run_id != self.run_id:
            log_rules.check_place(entry, self.run_id, self.status)
        timing = self._folded[type(event)](self, entry, event)
        if self.digested and not timing:
            lane = getattr(event, "state_id", _RUN_LANE)
            self.lanes[lane] = blake3(self.lanes.get(lane, _EMPTY_LANE) + body).digest()
        self.head_seq = due

    def _start(self, entry: Entry, event: RunStarted) -> None:
        log_rules.check_started(entry.seq, event, again=self.started is not None)
        self.run_id, self.started, self.started_ms = entry.run_id, event, entry.ts_millis
        self.checkpoint, self.plan_id = event.initial_snapshot_id, event.plan_id
        self.max_concurrency = event.max_concurrency
        self._become(entry.seq, RunStatus.RUNNING)

    def _enter(self, entry: Entry, event: StateEntered) -> bool:
        """Begin an attempt; return True for one that was suspended and goes on."""
        seq, state_id, base = entry.seq, event.state_id, event.base_snapshot_id
        if (
            self.open and len(self.open) >= (1 if self.one_by_one else self.max_concurrency or 1)
        ) or state_id in self.open:
            text = f"{state_id} begins while {self._open_one} is open"
            raise LogError(seq, text, code=Code.LOG_ATTEMPT_OPEN)
        state = self.states.get(state_id)
        if state is None:
            state = self.states[state_id] = StateHistory(StateStatus.OPEN, cleans=self.cleanup is not None)
            self.usage.states += 1
        else:
            log_rules.check_begins_again(state, seq, state_id, cleaning=self.cleanup is not None)
        goes_on = state.goes_on
        number = state.attempts - goes_on
        # of a concurrent state, it is what the states before it wrote: the same for each attempt
        due = self.checkpoint if self.one_by_one else state.base_snapshot_id
        log_rules.check_entered(seq, event, number, due)
        if state.attempts:
            state.status = StateStatus.OPEN
            state.failed = attrs.evolve(state.failed, retry_delay_ms=None, retry_ts_millis=None)
            self.stopped.pop(state_id, None)
        self.usage.attempts += not goes_on
        state.attempts = number + 1
        state.base_snapshot_id = base
        self.open[state_id] = OpenAttempt(state_id, event.attempt, base, seq)
        return goes_on

    def _close(self, seq: int, kind: str, state_id: str) -> OpenAttempt:
        opened = self.open.pop(state_id, None)
        if opened is None:
            raise LogError(seq, f"{kind} of {state_id}, which is not open", code=Code.LOG_NO_OPEN_ATTEMPT)
        return opened

    def _settle(self, entry: Entry, event: StateCompleted) -> None:
        self._close(entry.seq, event.type, event.state_id)
        self.usage.note(entry.info)
        state = self.states[event.state_id]
        state.status, state.snapshot_id = StateStatus.COMPLETED, event.context_snapshot_id
        state.wrote, state.read = event.wrote or (), entry.info.get("read")
        if event.not_taken is not None:
            state.not_taken, self.branched = event.not_taken, True
        if event.next_input_id is not None:
            self.next_inputs[event.state_id] = event.next_input_id
        if self.one_by_one:
            self.checkpoint = event.context_snapshot_id
        self.settled.append(event.state_id)
        if self.open_waits.by_key:
            self.open_waits.close(event.state_id)

    def _fail(self, entry: Entry, event: StateFailed) -> bool:
        """Close an attempt; return True for one that is suspended, which has neither failed nor ended."""
        opened = self._close(entry.seq, event.type, event.state_id)
        self.usage.note(entry.info)
        state = self.states[event.state_id]
        if event.suspended:
            self.open_waits.check_suspended(entry.seq, event.state_id, opened.attempt)
            state.status, state.answered, state.anew = StateStatus.SUSPENDED, False, False
            state.failed = state.failed.and_suspended(event, opened)
            self.stopped[event.state_id] = None
            return True
        state.status, state.read = StateStatus.FAILED, entry.info.get("read")
        state.failed = state.failed.and_one(entry, event, opened)
        self.stopped[event.state_id] = None
        self.cancelling = self.cancelling or event.error.code == Code.RUN_CANCELLED
        return False

    def _skip(self, entry: Entry, event: StateSkipped) -> None:
        if self.one_by_one:
            self._no_open_attempt(entry.seq, "skips a state")
        before, cleaning = self.states.get(event.state_id), self.cleanup is not None
        state = log_rules.state_to_skip(before, entry.seq, event, cleaning=cleaning)
        state.status, state.reason = StateStatus.SKIPPED, event.reason
        self.states[event.state_id] = state
        self.stopped.pop(event.state_id, None)
        self.open_waits.close(event.state_id)
        self.settled.append(event.state_id)

    def _retry(self, entry: Entry, event: RetryScheduled) -> None:
        state = log_rules.state_to_retry(self.states.get(event.state_id), entry.seq, event)
        state.status = StateStatus.WAITING
        self.usage.retries += 1
        state.failed = state.failed.and_scheduled(event.delay_ms, entry.ts_millis)

    def _within(self, entry: Entry, event: log_rules.Within) -> None:
        log_rules.check_within(self.open.get(event.state_id), entry.seq, event)

    def _domain(self, entry: Entry, event: DomainEventRecorded) -> None:
        self._within(entry, event)
        if event.artifact_kind is not None:
            log_rules.note_output(self.outputs, entry.seq, event)

    def _fact(self, entry: Entry, event: FactRecorded) -> None:
        seq = entry.seq
        if event.key in self.open_waits.by_key:
            if not isinstance(event.outcome, FactValue):
                self._within(entry, event)  # only the handler itself gives up a wait
            self.open_waits.end(entry, event)
            state = self.states[event.state_id]
            state.answered = state.answered or state.status is StateStatus.SUSPENDED
        elif self.status is RunStatus.SUSPENDED:
            suspension.check_outcome(self.waits, seq, event, self.uncertain.get(event.key))
        else:
            self._within(entry, event)
        before = self.facts.get(event.key)
        log_rules.check_new_fact(seq, event, before, lost=event.key in self.sealed.lost)
        self.facts[event.key] = event
        # a part of a stream that is made again replaces one that could not be opened
        self.sealed.note(entry, event.key, final=event.outcome.final or event.piece is not None)
        self.ignored.note(event, entry.info)
        self.transactions.note(event, entry.info)
        self.published.note(event, entry.info)
        self.usage.count_fact(entry.info)
        if event.outcome.final:
            call = (event.state_id, event.namespace, event.request_digest)
            self.successes.setdefault(call, []).append(event)
        # an error is no progress unless an operator supplied it: each attempt would meet it again
        if event.outcome.final or self.status is RunStatus.SUSPENDED:
            state = self.states[event.state_id]
            if state.failed.recoveries:
                state.failed = attrs.evolve(state.failed, recoveries=0)
        # a call that was abandoned may have happened all the same
        if not event.unknown:
            self.uncertain.pop(event.key, None)

    def _intend(self, entry: Entry, event: EffectIntended) -> None:
        seq = entry.seq
        self._within(entry, event)
        fact, intent = self.facts.get(event.key), self.uncertain.get(event.key)
        twice = intent is not None and (intent.state_id, intent.attempt) == (event.state_id, event.attempt)
        log_rules.check_new_effect(seq, event, fact, twice=twice, lost=event.key in self.sealed.lost)
        self.uncertain[event.key] = event
        self.transactions.intend(event, entry.info)
        state = self.states[event.state_id]
        if state.failed.failed_seq is not None:
            state.failed = attrs.evolve(state.failed, failed_seq=None)
        self.sent.setdefault((event.state_id, event.namespace, event.idempotency_key), event.request_digest)

    def _wait(self, entry: Entry, event: WaitBegun) -> None:
        self._within(entry, event)
        log_rules.check_unanswered(entry.seq, event, self.facts.get(event.key))
        self.open_waits.begin(entry, event)

    def _suspend(self, entry: Entry, event: RunSuspended) -> bool:
        """Suspend the run; return True when that depends on when an answer came, or a person paused it."""
        self._no_open_attempt(entry.seq, "is suspended")
        self._become(entry.seq, RunStatus.SUSPENDED)
        self.waits = event.waits
        suspension.check_waits(event.waits, entry.seq, self.uncertain, self.open_waits.by_key, self.states)
        return suspension.of_timing(self.waits)

    def _resume(self, entry: Entry, event: RunResumed) -> bool:
        """Resume the run; return True when an answer for a handler or a person is the only reason."""
        suspension.check_resumed(self.waits, entry.seq, event, self.unanswered)
        self._become(entry.seq, RunStatus.RUNNING)
        waits, self.waits = self.waits, ()
        if event.secrets_lost:
            self.sealed.lose()
        if event.plan_id is not None:
            self.plan_id, self.replanned = event.plan_id, True
            for state_id in self.stopped:  # another plan may place states after them
                self.states[state_id].base_snapshot_id = None
        suspension.let_go(waits, self.states, entry.ts_millis)
        if event.anew:
            for state_id in self.stopped:
                self.states[state_id].anew = self.states[state_id].status is StateStatus.SUSPENDED
        return suspension.of_timing(waits) and not event.anew

    def _clean(self, entry: Entry, event: CleanupBegun) -> None:
        self._no_open_attempt(entry.seq, "begins with its cleanup")
        base = self.checkpoint if self.max_concurrency is None else event.base_snapshot_id
        log_rules.check_cleanup_begun(entry.seq, event, base, again=self.cleanup is not None)
        self.cleanup, self.cleanup_ms, self.cleanup_seq = event, entry.ts_millis, entry.seq
        self.usage.work_ms = self.usage.wall_ms
        self.checkpoint, self.cancelling = event.base_snapshot_id, False
        self.open_waits.by_key.clear()

    @property
    def one_by_one(self) -> bool:
        """True where one state follows another, each on what the last one has left."""
        return self.max_concurrency is None or self.cleanup is not None

    def _become(self, seq: int, status: RunStatus) -> None:
        if not may_follow(self.status, status):
            raise LogError(
                seq, f"a run that is {self.status} cannot become {status}", code=Code.INVALID_TRANSITION
            )
        self.status = status

    def _no_open_attempt(self, seq: int, what: str) -> None:
        if self.open:
            raise LogError(seq, f"the run {what} while {self._open_one} is open", code=Code.LOG_ATTEMPT_OPEN)

    @property
    def _open_one(self) -> str:
        return next(iter(self.open))

    def _complete(self, entry: Entry, event: RunCompleted) -> None:
        seq = entry.seq
        self._no_open_attempt(seq, "ends")
        log_rules.check_completed(seq, event, self.cleanup, failed_and_skipped(self.states))
        if self.cleanup is None:
            self._become(seq, RunStatus(event.status))
        else:  # a cleanup that is cancelled may have been suspended
            self.status = RunStatus(event.status)
        if self.one_by_one and event.final_snapshot_id not in {None, self.checkpoint}:
            raise LogError(seq, "the run ends on a snapshot that is not its last", code=Code.LOG_END_SNAPSHOT)
        log_rules.check_next_input(entry, event, self.next_inputs)
        self.final_snapshot_id, self.waits = event.final_snapshot_id, ()
        self.open_waits.by_key.clear()
        self.checkpoint, self.error = event.final_snapshot_id or self.checkpoint, event.error

    _folded: ClassVar[dict[type[Event], Callable[[History, Entry, Any], bool | None]]] = {
        RunStarted: _start,
        StateEntered: _enter,
        StateCompleted: _settle,
        StateFailed: _fail,
        StateSkipped: _skip,
        RetryScheduled: _retry,
        FactRecorded: _fact,
        EffectIntended: _intend,
        WaitBegun: _wait,
        DomainEventRecorded: _domain,
        RunSuspended: _suspend,
        RunResumed: _resume,
        LimitReached: lambda history, entry, event: history.usage.reach(entry, event),
        CleanupBegun: _clean,
        RunCompleted: _complete,
    }


def fold(entries: Iterable[Entry], history: History | None = None) -> History:
    """Return the history of `entries`, continuing `history` (in place) when one is given. Raises `LogError`."""
    history = History() if history is None else history
    for entry in entries:
        history.advance(entry)
    return history
