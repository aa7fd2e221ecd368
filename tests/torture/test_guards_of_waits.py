"""The test of the tests of waits: without one guard of the engine, the matrix or the story finds it missing.

The matrix kills a run whose waits are answered in its process. The story is a run that is put away at each wait,
answered through its inbox, driven on by another driver each time, and killed after each of its events.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

import machine
from machine import DomainEvent, Plan
from machine.engine import deliver, drive_run, run_reader
from machine.errors import Code, MachineError, RunError, WaitTimeoutError
from machine.events import DomainEventRecorded, FactRecorded, RunResumed, WaitBegun
from machine.io.going_on_io import GoingOnIo
from machine.io.waits import WaitCalls
from machine.kernel import wait_answers
from machine.kernel.history import History
from machine.kernel.open_waits import OpenWaits
from machine.recordings.going_on import EarlierPart, GoingOnLog
from machine.stores import MemoryStore
from machine.torture import Fault, crash_matrix

HOUR = 3600
HOUR_MS = HOUR * 1000
ANSWERS = {"go": {"approved": True, "by": "ada"}, "paid": 7}
MUTATIONS = {}


def waiting_plan(transports, *, effect="pay"):
    """Return a plan whose one state does something of each kind before, between and after its waits."""
    plan = Plan("waiting", version="1", transports=transports)

    @plan.state("pay.ask", side_effects="apply_side_effect", idempotency="pay/1")
    async def ask(ctx, io, rec):
        ctx["sent"] = (await io.call("world", {"do": effect})).response
        await rec.emit(DomainEvent("seen", {"n": 1}))
        ctx["by"] = (await io.approval("Go on?", key="go", timeout=9 * HOUR)).by
        ctx["paid"] = [await io.wait_signal("paid"), await io.wait_signal("paid")]
        await rec.emit(DomainEvent("seen", {"n": 2}))
        await io.sleep(HOUR)
        ctx["late"] = (await io.call("world", {"n": 2})).response

    @plan.state("pay.last", after=[ask])
    def last(ctx, io):
        try:
            ctx["last"] = io.approval("Anything else?", key="last", timeout=HOUR).by
        except WaitTimeoutError:
            ctx["last"] = "nobody"

    return plan


class Prompt(MemoryStore):
    """A store in which an answer comes at the last moment: when the run is about to be suspended."""

    slept_over = False

    def append(self, run_id, expected_seq, events, artifacts=(), *, inbox_seen=None, **terms):
        last_moment = inbox_seen is not None and len(events) == 1 and not self.inbox(run_id)
        if last_moment:
            self.post(run_id, "answer", {"key": "go", "answer": {"approved": True, "by": "ada"}})
        super().append(run_id, expected_seq, events, artifacts, inbox_seen=inbox_seen, **terms)
        # a driver that dies here leaves the run to a worker
        self.slept_over = self.slept_over or (last_moment and not self.due_runs(self.clock()))


class Story:
    """A run that is answered and driven on step by step, each time by another driver."""

    def __init__(self, world, *, store=MemoryStore):
        self.now, self.world = [HOUR_MS], world
        self.plan = waiting_plan({"world": world})
        self.store = store(clock=lambda: self.now[0])
        self.result = machine.run(self.plan, store=self.store)
        self.run_id = self.result.run_id

    def post(self, kind, **data):
        self.store.post(self.run_id, kind, data)

    def answer(self, key, by):
        self.post("answer", key=key, answer={"approved": True, "by": by})

    def drive(self, hours=0.0, plan=None):
        self.now[0] += int(hours * HOUR_MS)
        self.result = machine.resume(self.run_id, plan=plan or self.plan, store=self.store)

    @property
    def open(self):
        return [wait.type for wait in self.result.waits]

    @property
    def log(self):
        return [entry.event for entry, _ in run_reader.entries(self.store, self.run_id)]

    def go_back(self, store, length):
        """Go on with what a store had after an event, as after a crash there."""
        self.store = MemoryStore(clock=lambda: self.now[0])
        for kind, data in store._contents.artifacts.values():
            self.store.put(kind, data)
        self.store.append(self.run_id, 0, list(store.read_range(self.run_id, 1, length)))
        asked = any(isinstance(event, WaitBegun) and event.key == "last" for event in self.log)
        inbox = store._contents.inboxes.get(self.run_id, [])
        self.store._contents.inboxes[self.run_id] = inbox if asked else inbox[:4]
        self.world.asked.clear()

    def check_end(self, sent=1):
        assert self.result.status == "completed", f"it ends {self.result.status}: {self.result.error}"
        context = {name: self.result.context[name] for name in ("by", "paid", "last")}
        assert context == {"by": "ada", "paid": [1, 2], "last": "nobody"}, f"the context is {context}"
        answered = [event.key for event in self.log if is_fact(event) and event.namespace.startswith("wait.")]
        assert len(set(answered)) == len(answered) == 5, f"the answers are those of {answered}"
        found = len([request for request in self.world.asked if "do" in request])
        assert found == sent, f"the effect was sent {found} times"
        replayed = machine.replay(self.run_id, plan=self.plan, store=self.store)
        assert replayed.identical, f"its replay differs: {replayed.divergence.summary}"


def is_fact(event):
    return isinstance(event, FactRecorded)


# -- the checks -------------------------------------------------------------------------------------------------


def told(make):
    """Tell the story from its beginning to its end, and return it."""
    story = Story(make())
    assert story.open == ["approval"]
    story.post("signal", name="paid", value=1)  # before anybody waits for it
    story.answer("go", "ada")
    story.post("signal", name="paid", value=2)
    story.answer("go", "bo")  # who comes second
    story.drive()
    assert story.open == ["timer"], f"after all answers it waits for {story.open}"
    story.drive(hours=0.9)
    assert story.open == ["timer"], "the timer is over before its time"
    story.drive(hours=0.1)
    assert story.open == ["approval"], f"after the timer it waits for {story.open}"
    story.now[0] += HOUR_MS
    story.answer("last", "too late")
    story.drive()
    story.check_end()
    attempts = {event.attempt for event in story.log if hasattr(event, "attempt")}
    assert attempts == {0}, f"the attempts are {sorted(attempts)}"
    return story


def whole(make):
    """Tell the story."""
    told(make)


def killed(make):
    """Kill the story after each of its events, and let another driver end it."""
    story = told(make)
    store, log = story.store, story.log
    for length in range(1, len(log)):
        story.go_back(store, length)
        story.drive()
        story.drive(hours=1)
        story.drive(hours=1)
        known = any(is_fact(event) and event.namespace == "world" for event in log[:length])
        story.check_end(sent=0 if known else 1)


def at_the_last_moment(make):
    """Answer a run when it is about to be suspended: it must go on, or be found by a worker."""
    story = Story(make(), store=Prompt)
    assert not story.store.slept_over, "an answer was slept over"
    assert story.open == ["signal"]


def killed_while_it_waits(make):
    """Kill the driver after the wait was begun: the next attempt has what is left of its time, and no more."""
    story = Story(make())
    begun = [isinstance(event, WaitBegun) for event in story.log].index(True) + 1
    story.go_back(story.store, begun)
    story.drive(hours=8)
    assert story.open == ["approval"]
    story.drive(hours=1)
    assert story.open == [], "the time limit began again"


def changed_code(make):
    """Go on with code that does something else before the wait: it must be refused, and nothing written."""
    story = Story(make())
    story.answer("go", "ada")
    head, asked = story.store.head_seq(story.run_id), len(story.world.asked)
    with suppress(RunError):
        story.drive(plan=waiting_plan({"world": story.world}, effect="pay twice"))
    assert story.store.head_seq(story.run_id) == head, "changed code has written something"
    assert len(story.world.asked) == asked, "changed code has made a call"


def fickle_code(make):
    """Go on in the same process with code that does something else the second time: its attempt must fail."""
    lives = []
    plan = Plan("fickle", version="1", transports={"world": make()})

    @plan.state("ask.one")
    async def ask(ctx, io):
        lives.append(1)
        await io.call("world", {"n": len(lives)})
        ctx["by"] = (await io.approval("?", key="go")).by

    with MemoryStore() as store:
        error = machine.run(plan, store=store, answers=ANSWERS).error
    assert error is not None, "the code has changed, and nobody noticed"
    assert error.code == Code.SUSPENDED_CODE_CHANGED, f"the code has changed, and the error is {error.code}"


def matrix(*faults):
    """Return a check by the crash matrix, with some faults."""

    def struck(make):
        plan, world = waiting_plan({}), {"world": make()}
        given = {"clock": "skip", "answers": ANSWERS}
        found = crash_matrix(plan, transports=world, faults=faults, stop_at_first=True, **given)
        assert found.safe, found.unsafe[0].reason

    return struck


after_append = matrix(Fault.KILLED_AFTER_APPEND)


# -- the guards -------------------------------------------------------------------------------------------------


def guard(check, *, where):
    """Register a mutation, with the check that finds it and words of the reason that it gives."""

    def register(mutate):
        MUTATIONS[mutate.__name__] = (mutate, check, where)
        return mutate

    return register


@guard(whole, where="waits for \\['approval'\\]")
def a_wait_that_is_answered_is_closed(patch):
    end = OpenWaits.end

    def open_still(self, entry, event):
        wait = self.by_key[event.key]
        end(self, entry, event)
        self.by_key[event.key] = wait

    patch.setattr(OpenWaits, "end", open_still)


@guard(whole, where="does not wait for 'go'")
def a_wait_has_one_answer(patch):
    due = deliver.due_answers

    def each_alone(waits, requests, messages, now_ms, children, **more):
        alone = [due(waits, requests, [message], -1, children) for message in messages]
        return [answer for found in alone for answer in found] + due(
            waits, requests, [], now_ms, children, **more
        )

    patch.setattr(deliver, "due_answers", each_alone)


@guard(whole, where="waits for \\['approval'\\]")
def a_message_is_kept_until_somebody_waits_for_it(patch):
    due = deliver.Inbox.due

    def forgetful(self, *args):
        found = due(self, *args)
        self._messages = []
        return found

    patch.setattr(deliver.Inbox, "due", forgetful)


@guard(whole, where="waits for \\['signal'\\]")
def a_message_is_consumed_by_its_own_fact_alone(patch):
    patch.setattr(OpenWaits, "has_heard", lambda self, number, ts: number <= max(self.heard, default=0))


@guard(whole, where="the context is")
def a_message_is_handed_out_once(patch):
    patch.setattr(OpenWaits, "has_heard", lambda self, number, ts: False)


@guard(whole, where="the context is")
def a_fact_names_the_message_that_it_hands_out(patch):
    made = deliver.delivery
    patch.setattr(deliver, "delivery", lambda answer: made(answer._replace(message=None)))


@guard(whole, where="the context is")
def an_answer_after_the_time_limit_is_too_late(patch):
    fitting = wait_answers._fitting
    endless = lambda *asked: (wait._replace(due_ms=None) for wait in fitting(*asked))  # noqa: E731
    patch.setattr(wait_answers, "_fitting", endless)


@guard(killed_while_it_waits, where="began again")
def a_time_limit_begins_once(patch):
    begin = OpenWaits.begin

    def again(self, entry, event):
        self.by_key.pop(event.key, None)
        begin(self, entry, event)

    patch.setattr(OpenWaits, "begin", again)


@guard(whole, where="before its time")
def a_timer_is_not_over_before_its_deadline(patch):
    due = deliver.due_answers

    def early(waits, requests, messages, now_ms, children, **more):
        return due(waits, requests, messages, now_ms + HOUR_MS // 2, children, **more)

    patch.setattr(deliver, "due_answers", early)


@guard(at_the_last_moment, where="an answer was slept over")
def a_run_is_suspended_over_no_message_that_it_has_not_seen(patch):
    append = MemoryStore.append

    def deaf(self, *args, inbox_seen=None, **terms):
        append(self, *args, **terms)

    patch.setattr(MemoryStore, "append", deaf)


@guard(whole, where="resumes before the external input")
def a_run_without_an_answer_stays_suspended(patch):
    patch.setattr(History, "held", False)


@guard(whole, where="the attempts are")
def a_suspended_attempt_keeps_its_number(patch):
    patch.setattr(RunResumed, "anew", True)


@guard(killed, where="answered already")
def an_answer_outlives_the_attempt_that_asked(patch):
    known = WaitCalls._known_answer

    def own(self, call):
        fact = known(self, call)
        return fact if fact is None or fact.attempt == self._scope.attempt else None

    patch.setattr(WaitCalls, "_known_answer", own)


@guard(after_append, where="never recorded")
def an_effect_is_not_sent_again_where_an_attempt_goes_on(patch):
    side = GoingOnIo._side
    patch.setattr(GoingOnIo, "_side", lambda self, call: self._live if call.effect else side(self, call))


@guard(whole, where="waits for \\[\\]")
def an_event_is_not_written_again_where_an_attempt_goes_on(patch):
    emit = GoingOnLog.emit

    async def twice(self, events, *more):
        recorded = not self.over
        await emit(self, events, *more)
        if recorded and isinstance(events[0], DomainEventRecorded):
            await self.live.emit(events, *more)

    patch.setattr(GoingOnLog, "emit", twice)


@guard(fickle_code, where="the code has changed, and")
def going_on_is_compared_with_what_was_recorded(patch):
    patch.setattr(EarlierPart, "changed", lambda self: None)


@guard(changed_code, where="changed code has written")
def changed_code_is_found_before_anything_is_written(patch):
    async def trusting(*args, **more):
        return None

    patch.setattr(drive_run, "check_suspended", trusting)


CHECKS = [killed, killed_while_it_waits, at_the_last_moment, changed_code, fickle_code, after_append]
LONG = [killed, after_append]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_found_where_no_guard_is_missing(check, outside):
    check(outside)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if check in LONG else ())
        for name, (_, check, _) in MUTATIONS.items()
    ],
)
def test_without_this_guard_of_waits_a_check_fails(name, outside, monkeypatch):
    mutate, check, where = MUTATIONS[name]
    mutate(monkeypatch)
    with pytest.raises((AssertionError, MachineError), match=where):
        check(outside)
