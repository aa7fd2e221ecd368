"""Runs that go on as another: the end of one and the beginning of the next are one commit, and one is driven on."""

from __future__ import annotations

import gc
import inspect
from typing import Any

import pytest
from crashes import CommittedStore

import machine
from machine import Plan, RunConfig, StateOutcome
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.engine.run_keeper import Keeper
from machine.errors import Code, RunError, StateError
from machine.events import RunCompleted, StateCompleted, StateFailed
from machine.kernel.history import History
from machine.kernel.segments import FIRST_RUN, NEXT_RUN, PREVIOUS_RUN, SEGMENT
from machine.stores import MemoryStore, open_store

LAST = 3


@pytest.fixture
def store():
    with MemoryStore() as store:
        yield store


@pytest.fixture(params=[None, 2], ids=["sequential", "concurrent"])
def config(request):
    return RunConfig() if request.param is None else RunConfig(execution_mode=FanOutJoin(request.param))


def counting(last: int = LAST) -> Plan:
    """Return a plan whose first state says how the run goes on, and whose second runs all the same."""
    plan = Plan("counting")

    @plan.state("count.up")
    async def up(ctx, io):
        ctx["at"] = await io.now()
        if ctx["n"] < last:
            return StateOutcome(next_run={"n": ctx["n"] + 1})
        return None

    @plan.state("count.rest", after=[up])
    def rest(ctx):
        ctx["rest"] = ctx["n"]

    return plan


def chain(store: Any, op: str = "counting") -> list[Any]:
    """Return the rows of the runs of an op, in the order they began."""
    return [*reversed(store.list_runs(op=op).rows)]


def entries(store: Any, run_id: str) -> list[Any]:
    return [entry for entry, _ in run_reader.entries(store, run_id)]


def linked(store: Any, rows: list[Any]) -> None:
    """Check that the runs continue each other, in their logs and in the index, and that nothing is left open."""
    for number, row in enumerate(rows, 1):
        following = rows[number].run_id if number < len(rows) else None
        first, last = entries(store, row.run_id)[0], entries(store, row.run_id)[-1]
        assert last.info.get(NEXT_RUN) == row.next_run_id == following
        said = [first.info.get(name) for name in (PREVIOUS_RUN, FIRST_RUN, SEGMENT)]
        if number == 1:
            assert said == [None, None, None]
        else:
            assert said == [rows[number - 2].run_id, rows[0].run_id, str(number)]
        assert store.lease_of(row.run_id) is None
        assert store.last_segment(row.run_id) == rows[-1].run_id
    assert [row.run_id for row in store.list_runs(segments=False).rows] == [rows[-1].run_id]
    assert store.integrity_problems() == []


@pytest.mark.parametrize("url", ["memory://", "sqlite"])
def test_a_run_goes_on_as_another_until_one_does_not(url, config, tmp_path):
    plan = counting()
    with open_store(url if url == "memory://" else f"sqlite:///{tmp_path}/runs.db") as store:
        result = machine.run(plan, input={"n": 0}, config=config, store=store)
        rows = chain(store)
        linked(store, rows)
        assert len(rows) == LAST + 1
        assert (result.run_id, result.status, result.next_input) == (rows[-1].run_id, "completed", None)
        assert (result.context["n"], result.context["rest"]) == (LAST, LAST)
        for number, row in enumerate(rows):
            found = machine.replay(row.run_id, plan=plan, store=store)
            assert found.identical, found.divergence
            assert machine.verify(row.run_id, store=store).ok
            states = [each.event for each in entries(store, row.run_id)]
            assert [each.state_id for each in states if isinstance(each, StateCompleted)] == [
                "counting.count.up",
                "counting.count.rest",
            ]
            history, _ = run_reader.folded(store, row.run_id)
            assert bool(history.next_inputs) is (number < LAST)
        assert machine.resume(rows[0].run_id, plan=plan, store=store) == result


def test_a_digest_tells_how_a_run_goes_on_but_not_as_which(store):
    plan = Plan("counting")

    @plan.state("count.up")
    def up(ctx):
        return StateOutcome(next_run={"to": ctx["to"], "n": 1}) if "n" not in ctx else None

    digests = []
    for to in (1, 1, 2):
        machine.run(plan, input={"to": to}, store=store, begin_next=to == 1)
        digests.append(run_reader.PastRun.read(chain(store)[-1 if to == 2 else -2].run_id, store).digest)
    assert digests[0] == digests[1] != digests[2]


def test_two_states_that_both_go_on_fail_the_run(store, config):
    plan = Plan("counting")

    @plan.state("count.one")
    def one(ctx):
        return StateOutcome(next_run={"by": "one"})

    @plan.state("count.two")
    def two(ctx):
        return StateOutcome(next_run={"by": "two"})

    @plan.state("count.rest", after=[one, two])
    def rest(ctx):
        ctx["rest"] = True

    result = machine.run(plan, store=store, config=config)
    assert (result.status, result.error.code) == ("failed", Code.SEVERAL_NEXT_RUNS)
    assert result.error.details == {"states": ["counting.count.one", "counting.count.two"]}
    assert result.next_input is None
    assert len(chain(store)) == 1
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def test_only_a_run_that_completes_goes_on(store, config):
    plan = Plan("counting")

    @plan.state("count.up")
    def up(ctx):
        return StateOutcome(next_run={"n": 1})

    @plan.state("count.fails", after=[up])
    def fails(ctx):
        raise ValueError("no")

    result = machine.run(plan, store=store, config=config)
    assert (result.status, result.next_input) == ("failed", None)
    assert len(chain(store)) == 1
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def test_a_state_that_goes_on_may_choose_what_follows_it(store, config):
    plan = Plan("counting")

    @plan.state("count.up")
    def up(ctx):
        if "n" not in ctx:
            return StateOutcome(next_run={"n": 1}, goto="count.yes")
        return StateOutcome(skip=["count.yes"])

    @plan.state("count.yes", after=[up])
    def yes(ctx):
        ctx["took"] = "yes"

    @plan.state("count.no", after=[up])
    def no(ctx):
        ctx["took"] = "no"

    result = machine.run(plan, store=store, config=config)
    first, last = chain(store)
    assert result.context == {"n": 1, "took": "no"}
    assert run_reader.PastRun.read(first.run_id, store).snapshot(
        entries(store, first.run_id)[-1].event.final_snapshot_id
    ).to_dict() == {"took": "yes"}
    for row in (first, last):
        assert machine.replay(row.run_id, plan=plan, store=store).identical


def test_a_skipped_state_says_nothing(store):
    plan = Plan("counting")

    @plan.state("count.up", tags=["report"])
    def up(ctx):
        return StateOutcome(next_run={})

    result = machine.run(plan, store=store, config=RunConfig(skip_tags=["report"]))
    assert (result.status, result.next_input) == ("completed", None)
    assert len(chain(store)) == 1


class NotJson:
    """A value that is not JSON."""


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([1], Code.INVALID_NEXT_RUN),
        ("input", Code.INVALID_NEXT_RUN),
        ({"value": NotJson()}, Code.INVALID_NEXT_RUN),
        ({"value": float("nan")}, Code.INVALID_NEXT_RUN),
        ({1: "value"}, Code.INVALID_NEXT_RUN),
        ({"": "value"}, Code.INVALID_NEXT_RUN),
        ({"two\nlines": 1}, Code.INVALID_NEXT_RUN),
        ({"token": "ghp_" + "a1B2" * 9}, Code.SECRET_IN_CONTEXT),
    ],
)
def test_an_input_that_no_run_can_have_fails_the_attempt(store, given, code, config):
    plan = Plan("counting")

    @plan.state("count.up")
    def up(ctx):
        ctx["wrote"] = True
        return StateOutcome(next_run=given)

    result = machine.run(plan, store=store, config=config)
    assert (result.status, result.error.code, result.error.retryable) == ("failed", code, False)
    assert result.error.message.startswith(("counting.count.up says", "next_run becomes"))
    assert "a1B2" not in result.error.message
    assert len(chain(store)) == 1
    assert not any(isinstance(entry.event, StateCompleted) for entry in entries(store, result.run_id))
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def test_a_secret_that_a_handler_was_given_may_not_be_passed_on(store, monkeypatch):
    monkeypatch.setenv("COUNT_TOKEN", "the quick brown fox")
    plan = Plan("counting")

    @plan.state("count.up")
    async def up(ctx, io):
        token = await io.secret("COUNT_TOKEN")
        return StateOutcome(next_run={"say": f"it is {token}"})

    result = machine.run(plan, store=store)
    assert (result.status, result.error.code) == ("failed", Code.SECRET_IN_CONTEXT)
    assert len(chain(store)) == 1


def test_an_outcome_fails_or_goes_on_and_not_both(store):
    with pytest.raises(StateError) as caught:
        StateOutcome(error="no", next_run={})
    assert caught.value.code == Code.INVALID_OUTCOME
    plan = Plan("counting")

    @plan.state("count.up")
    def up(ctx):
        return StateOutcome(error="no", next_run={})

    result = machine.run(plan, store=store)
    (failed,) = [
        entry.event for entry in entries(store, result.run_id) if isinstance(entry.event, StateFailed)
    ]
    assert failed.error.code == Code.INVALID_OUTCOME


def test_an_attempt_that_fails_after_all_does_not_go_on(store):
    plan = Plan("counting")
    tried = []

    @plan.state("count.up", retry=machine.RetryPolicy(2))
    def up(ctx):
        tried.append(1)
        if len(tried) == 1:
            return StateOutcome(error=machine.Failure("once more", retryable=True))
        return StateOutcome(next_run={"n": 1}) if "n" not in ctx else None

    result = machine.run(plan, store=store)
    assert result.status == "completed"
    linked(store, chain(store))


# -- crashes ---------------------------------------------------------------------------------------------


def test_wherever_a_crash_comes_there_is_one_next_run(config):
    plan = counting(2)
    with CommittedStore() as whole:
        result = machine.run(plan, input={"n": 0}, config=config, store=whole)
        counts = len(whole.appended)
        heads = [row.head_seq for row in chain(whole)]
    for count in range(1, counts + 1):
        with whole.after(count) as left:
            began = chain(left)
            again = machine.resume(began[0].run_id, plan=plan, store=left)
            rows = chain(left)
            linked(left, rows)
            assert len(rows) == len(heads)
            assert [row.run_id for row in rows[: len(began)]] == [row.run_id for row in began]
            assert (again.status, again.context["n"], again.context["rest"]) == ("completed", 2, 2)
            assert all(machine.replay(row.run_id, plan=plan, store=left).identical for row in rows)
    assert result.status == "completed"


def test_the_next_run_is_there_with_the_end_in_one_commit(store):
    """No commit leaves an end without its next run, nor a next run without the end before it."""
    plan = counting(2)
    with CommittedStore() as whole:
        machine.run(plan, input={"n": 0}, store=whole)
        for count in range(1, len(whole.appended) + 1):
            with whole.after(count) as left:
                for row in left.list_runs().rows:
                    assert row.next_run_id is None or left.run_exists(row.next_run_id)
                    ended = row.status == "completed"
                    assert (row.next_run_id is not None) is (ended and row.segment != 3)


class Refusing(MemoryStore):
    """A store that fails the append that would end a run and begin another."""

    def append(self, *args, **more):
        if more.get("begins") is not None:
            raise machine.errors.OtherStoreError("the disk is full", code=Code.STORE_FULL)
        super().append(*args, **more)


def test_a_commit_that_fails_leaves_a_run_to_be_resumed():
    plan = counting(1)
    with Refusing() as store:
        with pytest.raises(machine.errors.OtherStoreError):
            machine.run(plan, input={"n": 0}, store=store)
        (row,) = chain(store)
        assert row.status == "interrupted"
        with MemoryStore(shared_with=store) as sound:
            result = machine.resume(row.run_id, plan=plan, store=sound)
            assert result.context["n"] == 1
            linked(sound, chain(sound))


# -- what passes on --------------------------------------------------------------------------------------


def listening(last: int = 1) -> Plan:
    plan = Plan("counting")

    @plan.state("count.wait")
    async def wait(ctx, io):
        ctx["heard"] = [await io.wait_signal(name) for name in ctx["wants"]]
        if ctx["n"] < last:
            return StateOutcome(next_run={"n": ctx["n"] + 1, "wants": ["late"]})
        return None

    return plan


def test_messages_that_nothing_took_pass_on_in_their_order(store):
    plan = listening(2)
    result = machine.run(plan, input={"n": 0, "wants": ["go"]}, store=store)
    first = result.run_id
    for number in (1, 2):
        machine.signal(first, "late", number, store=store)
    store.post(first, "answer", {"key": "some", "answer": {"approved": True}})
    store.post(first, "note", "of another kind")
    machine.signal(first, "go", 0, store=store)
    result = machine.resume(first, plan=plan, store=store)
    assert (result.status, result.context["heard"]) == ("completed", [2])
    rows = chain(store)
    linked(store, rows)
    inboxes = [[(each.number, each.kind) for each in store.inbox(row.run_id)] for row in rows]
    assert inboxes[1] == [(1, "signal"), (2, "signal"), (3, "note")]
    assert inboxes[2] == [(1, "signal"), (2, "note")]
    assert [each.ts_millis for each in store.inbox(rows[1].run_id)][:2] == [
        each.ts_millis for each in store.inbox(first)
    ][:2]
    for row in rows:
        assert machine.replay(row.run_id, plan=plan, store=store).identical


class PostsLate(MemoryStore):
    """A store in which messages come while the end of a run is being committed."""

    late: list[tuple[str, Any]]

    def append(self, run_id, *args, **more):
        if more.get("begins") is not None and self.late:
            self.post(run_id, *self.late.pop(0))
        super().append(run_id, *args, **more)


def test_a_message_that_comes_at_the_last_moment_passes_on():
    plan = listening()
    with PostsLate() as store:
        store.late = [("signal", {"name": "other", "value": 1}), ("signal", {"name": "late", "value": 2})]
        result = machine.run(plan, input={"n": 0, "wants": []}, store=store)
        assert (result.status, result.context["heard"]) == ("completed", [2])
        assert len(chain(store)) == 2
        linked(store, chain(store))


def test_a_cancel_that_comes_at_the_last_moment_reaches_the_next_run():
    plan = counting(50)
    with PostsLate() as store:
        store.late = [("cancel", {})]
        result = machine.run(plan, input={"n": 0}, store=store)
        assert result.status == "cancelled"
        first, last = chain(store)
        assert (first.status, last.status, result.run_id) == ("completed", "cancelled", last.run_id)


def waiting_plan() -> Plan:
    plan = Plan("counting")

    @plan.state("count.ask")
    async def ask(ctx, io):
        if "n" not in ctx:
            return StateOutcome(next_run={"n": 1})
        ctx["by"] = (await io.approval("Go on?", key="ask")).by
        ctx["paid"] = await io.wait_signal("paid")
        return None

    return plan


def test_commands_to_any_segment_reach_the_last(store):
    plan = waiting_plan()
    result = machine.run(plan, store=store)
    first, last = (row.run_id for row in chain(store))
    assert (result.run_id, result.status) == (last, "suspended")
    given = machine.approve(first, store=store, by="ada")
    assert given.run_id == last
    sent = machine.signal(first, "paid", 7, store=store)
    assert sent.run_id == last
    result = machine.resume(first, plan=plan, store=store)
    assert (result.run_id, result.context["by"], result.context["paid"]) == (last, "ada", 7)
    for run_id in (first, last):
        with pytest.raises(RunError) as caught:
            machine.signal(run_id, "paid", 8, store=store)
        assert caught.value.code == Code.NO_OPEN_WAIT


def test_a_cancel_of_any_segment_ends_the_last(store):
    result = machine.run(waiting_plan(), store=store)
    first, last = (row.run_id for row in chain(store))
    cancelled = machine.cancel(first, store=store)
    assert (cancelled.run_id, cancelled.status) == (last, "cancelled")
    assert result.run_id == last
    with pytest.raises(RunError) as caught:
        machine.cancel(first, store=store)
    assert caught.value.code == Code.INVALID_TRANSITION


def test_an_invocation_key_is_that_of_the_whole_chain(store):
    plan = waiting_plan()
    one = machine.run(plan, store=store, invocation_key="order 7")
    assert machine.run(plan, store=store, invocation_key="order 7") == one
    assert len(chain(store)) == 2
    with pytest.raises(RunError) as caught:
        machine.run(plan, input={"n": 1}, store=store, invocation_key="order 7")
    assert caught.value.code == Code.INVOCATION_CONFLICT
    machine.approve(one.run_id, store=store)
    machine.signal(one.run_id, "paid", 1, store=store)
    assert machine.run(plan, store=store, invocation_key="order 7").status == "completed"


# -- where nothing is begun ----------------------------------------------------------------------------------


def test_a_run_may_be_kept_to_one_segment(store):
    plan = counting()
    result = machine.run(plan, input={"n": 0}, store=store, begin_next=False)
    assert (result.status, result.next_input) == ("completed", {"n": 1})
    (row,) = chain(store)
    assert row.next_run_id is None
    again = machine.resume(result.run_id, plan=plan, store=store)
    assert (again.run_id, again.next_input) == (result.run_id, {"n": 1})
    assert machine.replay(result.run_id, plan=plan, store=store).identical
    ends = [entry.event for entry in entries(store, result.run_id) if isinstance(entry.event, RunCompleted)]
    assert [end.next_input_id is not None for end in ends] == [True]


def test_a_dry_run_says_how_the_run_would_go_on(store):
    dry = machine.dry_run(counting(), input={"n": 0}, store=store)
    assert dry.result.next_input == {"n": 1}
    assert len(chain(store)) == 1


def test_a_run_on_recorded_answers_is_one_segment(store):
    plan = counting()
    machine.run(plan, input={"n": 0}, store=store)
    first = chain(store)[0]
    result = machine.run(plan, input={"n": 0}, store=store, facts_from=first.run_id)
    assert result.next_input == {"n": 1}
    assert result.digest == run_reader.PastRun.read(first.run_id, store).digest


# -- a loop, and no recursion --------------------------------------------------------------------------------


def test_a_long_chain_takes_no_more_memory_and_no_more_stack(store):
    plan = Plan("counting")
    depths, alive = set(), set()

    def counted():
        gc.collect()
        # a stand-in of another test may answer isinstance with an error
        return sum(type(each) in (History, Keeper) for each in gc.get_objects())

    @plan.state("count.up")
    async def up(ctx, io):
        depths.add(len(inspect.stack()))
        alive.add(counted())
        return StateOutcome(next_run={"n": ctx["n"] + 1}) if ctx["n"] < 30 else None

    before = counted()  # those of other tests
    assert machine.run(plan, input={"n": 0}, store=store).context["n"] == 30
    assert len(depths) == 1
    assert max(alive) - before <= 4


def test_a_clock_that_skips_does_not_go_back_in_the_next_run(store):
    plan = Plan("counting")

    @plan.state("count.sleep")
    async def sleep(ctx, io):
        if "then" in ctx:
            ctx["now"] = await io.now()
            return None
        await io.sleep(30 * 86400)
        return StateOutcome(next_run={"then": await io.now()})

    result = machine.run(plan, store=store, clock="skip")
    assert result.context["now"] >= result.context["then"]


def test_the_time_to_wait_is_that_of_all_segments(store, monkeypatch):
    plan = Plan("counting")
    seconds = []

    @plan.state("count.wait")
    async def wait(ctx, io):
        await io.wait_signal("go", key=f"go {ctx['n']}")
        return StateOutcome(next_run={"n": ctx["n"] + 1})

    original = machine.engine.in_process_waits.Patience.__init__

    def noted(self, waiting, *args, **more):
        seconds.append(waiting.seconds)
        original(self, waiting, *args, **more)

    monkeypatch.setattr("machine.engine.in_process_waits.Patience.__init__", noted)
    answers = {"go 0": 1, "go 1": 1}
    assert machine.run(plan, input={"n": 0}, store=store, wait=0.25, answers=answers).status == "suspended"
    assert seconds == [0.25, 0.25, 0.25]  # no time was spent before the last
    machine.signal(chain(store)[0].run_id, "go", 1, store=store)
    assert machine.resume(chain(store)[0].run_id, plan=plan, store=store, wait=0.25).status == "suspended"
    assert len(chain(store)) == 4
