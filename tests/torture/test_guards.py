"""The test of the test: take one guard out of the engine, and the matrix must find it missing."""

from __future__ import annotations

from contextlib import suppress

import attrs
import pytest

from machine.codec import decode_entry
from machine.engine import drive_run, driver, fork_log, log, run_reader
from machine.engine.attempt import Attempts
from machine.engine.commit_queue import CommitQueue
from machine.engine.handler_runner import HandlerRunner
from machine.errors import ConcurrencyError, StoreError
from machine.events import EffectIntended, FactRecorded
from machine.io import earlier_answers
from machine.io.live_io import LiveIo
from machine.io.outcome_turns import HandOut
from machine.io.provider import IoProvider
from machine.kernel import decide as deciding
from machine.kernel.decisions import EnterState, RecoverOrphan, ScheduleRetry
from machine.kernel.history import History
from machine.stores import sqlite_append
from machine.stores.base import ZERO_CHAIN
from machine.stores.sqlite import SqliteStore
from machine.torture import Fault, crash_matrix

MUTATIONS = {}


def guard(*faults, where=None):
    """Register a mutation, with the faults that find it and words of the reason they give."""

    def register(mutate):
        MUTATIONS[mutate.__name__] = (mutate, faults, where)
        return mutate

    return register


@guard(Fault.KILLED_BEFORE_APPEND, where="before its intent was durable")
def the_intent_is_durable_before_the_effect_leaves(patch):
    async def intend(self, call):
        scope = self._scope
        key = scope.idempotency_key or ""
        intent = EffectIntended(call.key, call.digest, key, scope.state.id, scope.attempt)
        await scope.log.emit([intent], call.payloads())

    patch.setattr(IoProvider, "_intend", intend)


@guard(Fault.KILLED_AFTER_RETURN, where="had returned, and its outcome was not durable")
def the_outcome_of_an_effect_is_durable_before_the_handler_is_given_it(patch):
    async def kept(self, call, seq=None):
        return None

    patch.setattr(HandOut, "durable", kept)


@guard(Fault.KILLED_BEFORE_APPEND, where="before its intent was durable")
def an_effect_has_an_intent(patch):
    async def intend(self, call):
        return None

    patch.setattr(IoProvider, "_intend", intend)


@guard(Fault.FSYNC_LOST, where="before the run itself was durable")
def the_run_is_durable_before_its_first_handler(patch):
    begin = driver.begin

    async def hasty(*args):
        with pytest.MonkeyPatch.context() as inner:

            async def durable(_, seq=None):
                return None

            inner.setattr(log.LiveLog, "durable", durable)
            return await begin(*args)

    patch.setattr(driver, "begin", hasty)
    patch.setattr(drive_run, "_CAREFUL_AT_FIRST", 0)  # what the first attempts wait for would hide it
    patch.setattr(drive_run, "_CAREFUL", 0)


@guard(Fault.DUPLICATE_APPEND, where="stopped with store_corrupt, not with concurrency")
def an_append_is_refused_when_the_head_is_another(patch):
    patch.setattr(sqlite_append, "_check_head", lambda run_id, expected_seq, found: None)


@guard(Fault.DUPLICATE_APPEND, where="the store took the same events twice")
def an_append_is_not_taken_twice(patch):
    append = SqliteStore.append

    def forgiving(self, *args, **more):
        with suppress(ConcurrencyError):
            append(self, *args, **more)

    patch.setattr(SqliteStore, "append", forgiving)


def careless(patch, error):
    """Go on, where a commit has failed with an error, as if it had been made."""
    flush = CommitQueue.flush

    def going_on(self):
        try:
            flush(self)
        except error:
            self.failure, self.written = None, self._queued

    patch.setattr(CommitQueue, "flush", going_on)


@guard(Fault.DUPLICATE_APPEND, where="went on to its end")
def a_run_stops_when_somebody_else_drives_it(patch):
    careless(patch, ConcurrencyError)


@guard(Fault.ENOSPC, Fault.EIO, Fault.STORE_LOCKED, where="the run stopped with")
def a_run_stops_when_its_store_fails(patch):
    careless(patch, StoreError)


@guard(Fault.KILLED_AFTER_APPEND, where="1 events were durable and 0 are left")
def append_is_durable_when_it_returns(patch):
    append = SqliteStore.append

    def lazy(self, run_id, expected_seq, events, artifacts=(), **more):
        for artifact in artifacts:
            self.put(artifact.kind, artifact.data)
        waiting = getattr(self, "waiting", None)
        if waiting:
            append(self, *waiting, **more)
        self.waiting = (run_id, expected_seq, events)
        if b"run_completed" in events[-1].data:
            append(self, *self.waiting, **more)

    patch.setattr(SqliteStore, "append", lazy)


@guard(Fault.KILLED_AFTER_APPEND, where="artifact")
def artifacts_are_no_later_than_the_events_that_name_them(patch):
    append, get = SqliteStore.append, SqliteStore.get

    def late(self, run_id, expected_seq, events, artifacts=(), **more):
        held, self.held = getattr(self, "held", {}), {artifact.id: artifact for artifact in artifacts}
        append(self, run_id, expected_seq, events, list(held.values()), **more)
        if b"run_completed" in events[-1].data:
            append(self, run_id, events[-1].seq, [], artifacts, **more)

    def remember(self, artifact_id):
        held = getattr(self, "held", {}).get(artifact_id)
        return held.data if held else get(self, artifact_id)

    patch.setattr(SqliteStore, "append", late)
    patch.setattr(SqliteStore, "get", remember)


@guard(Fault.KILLED_BEFORE_APPEND, where="did not come to this boundary")
def no_result_is_returned_before_it_is_durable(patch):
    durable, flush = log.LiveLog.durable, CommitQueue.flush

    async def hasty(self, seq=None):
        if self._behind or not self.history.final:
            await durable(self, seq)

    def last(self):
        if self._thread is not None or not self._stopping:
            flush(self)

    patch.setattr(log.LiveLog, "durable", hasty)
    patch.setattr(CommitQueue, "flush", last)


@guard(Fault.KILLED_BEFORE_APPEND, where="its receiver cannot tell")
def an_effect_carries_its_idempotency_key(patch):
    perform = LiveIo._perform

    async def keyless(self, transport, call, payloads):
        return await perform(self, transport, attrs.evolve(call, effect=False), payloads)

    patch.setattr(LiveIo, "_perform", keyless)


@guard(Fault.KILLED_AFTER_APPEND, where="could not go on")
def an_attempt_left_open_is_closed_first(patch):
    def forgetful(plan, config, history, **more):
        decision = deciding.decide(plan, config, history, **more)
        if isinstance(decision, RecoverOrphan):
            state = history.states[decision.state_id]
            return EnterState(decision.state_id, state.attempts, history.checkpoint)
        return decision

    patch.setattr(driver, "decide", forgetful)


@guard(Fault.KILLED_AFTER_APPEND, where="the digest is another")
def a_cut_attempt_uses_up_no_retry(patch):
    after = deciding.retry_decision

    def strict(plan, config, history, state_id, *, woken=False):
        decision, state = after(plan, config, history, state_id, woken=woken), history.states[state_id]
        if isinstance(decision, EnterState) and state.failed.retry_delay_ms is None:
            return ScheduleRetry(state_id, state.attempts, 0)
        return decision

    patch.setattr(deciding, "retry_decision", strict)


@guard(Fault.KILLED_AFTER_APPEND, where="asked again for what the run had learned already")
def what_a_cut_attempt_had_fetched_is_reused(patch):
    answers = earlier_answers.answers

    def forgetful(*call, keeps_all):
        return answers(*call, keeps_all=True) if keeps_all else ()

    patch.setattr(earlier_answers, "answers", forgetful)


@guard(Fault.KILLED_AFTER_APPEND, where="again")
def an_effect_whose_outcome_is_known_is_not_repeated_after_a_failure(patch):
    answers = earlier_answers.answers
    patch.setattr(earlier_answers, "answers", lambda *call, keeps_all: answers(*call, keeps_all=False))


@guard(Fault.KILLED_AFTER_APPEND, where="again for what the run had learned already")
def a_fact_key_is_single_assignment(patch):
    before = IoProvider._before

    def forgetful(self, call):
        return None if call.key == "named" else before(self, call)

    patch.setattr(IoProvider, "_before", forgetful)
    patch.setitem(History._folded, FactRecorded, _accepting(History._fact))


def _accepting(fact):
    def accept(self, entry, event):
        self.facts.pop(event.key, None)
        fact(self, entry, event)

    return accept


@guard(Fault.KILLED_BEFORE_APPEND, where="receivers took 1 effects more")
def an_effect_is_sent_again_under_the_same_key(patch):
    key_of = HandlerRunner.idempotency_key

    def fickle(self, scope, ctx):
        key = key_of(self, scope, ctx)
        fickle.asked += 1
        return f"{key}/{fickle.asked}" if key else key

    fickle.asked = 0
    # the first run, the rehearsal and the beginning of each trial ask as often; what is asked after a cut is new
    make = Attempts.make

    async def counted(self, state, number, *given):
        fickle.asked = number
        return await make(self, state, number, *given)

    patch.setattr(Attempts, "make", counted)
    patch.setattr(HandlerRunner, "idempotency_key", fickle)


@guard(Fault.KILLED_AFTER_APPEND, where="chain")
def a_resumed_log_goes_on_from_its_chain(patch):
    make = fork_log.LiveLog

    def unchained(*args, chain, **more):
        return make(*args, chain=ZERO_CHAIN, **more)

    patch.setattr(fork_log, "LiveLog", unchained)


@guard(Fault.TORN_WRITE, where="is not what was appended, and nobody noticed")
def what_is_read_is_held_against_its_chain(patch):
    def trusting(store, run_id, to_seq=None):
        for stored in store.read_range(run_id, 1, to_seq):
            yield decode_entry(stored.seq, stored.data), stored

    patch.setattr(run_reader, "entries", trusting)


@guard(Fault.KILLED_AFTER_APPEND, where="verify, before it was resumed: artifact")
def a_request_is_no_later_than_its_intent(patch):
    async def intend(self, call):
        scope = self._scope
        key = scope.idempotency_key or ""
        await scope.log.emit([EffectIntended(call.key, call.digest, key, scope.state.id, scope.attempt)])
        await scope.log.durable()

    patch.setattr(IoProvider, "_intend", intend)


@guard(Fault.EIO, where="the run stopped with usage, not with store_failed")
def what_was_not_written_is_not_followed_by_what_came_after(patch):
    close = CommitQueue.close

    def hasty(self):
        self.failure = None
        close(self)

    patch.setattr(CommitQueue, "close", hasty)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_without_this_guard_a_cell_is_unsafe(name, small, world, monkeypatch):
    mutate, faults, where = MUTATIONS[name]
    mutate(monkeypatch)
    matrix = crash_matrix(small, transports=world, faults=faults, stop_at_first=True)
    print(matrix.render())
    assert not matrix.safe
    assert where in matrix.unsafe[0].reason
