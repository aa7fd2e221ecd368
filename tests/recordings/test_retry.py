"""A failed run is retried as a new one, with the present code and nothing that was paid for made again."""

from __future__ import annotations

import threading

import anyio
import pytest

import machine
from machine import Plan, RunConfig, replay, run, verify
from machine.codec import decode_entry
from machine.config import FanOutJoin
from machine.engine.retry_chain import latest_retry
from machine.errors import Code, NotFoundError, PlanError, RunError, UsageError
from machine.io.transport import BaseTransport
from machine.limits import Limits
from machine.stores import MemoryStore, open_store

MODES = pytest.mark.parametrize("mode", [None, FanOutJoin(3)], ids=["sequential", "concurrent"])
STATES = 12


def config_of(mode, **more):
    return RunConfig(**more) if mode is None else RunConfig(execution_mode=mode, **more)


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


class World(BaseTransport):
    """A world in which every read and every effect is counted; one of them may be down."""

    one_effect_per_key = True

    def __init__(self):
        self.read, self.sent, self.down = [], [], None

    def is_effect(self, namespace, request):
        return "effect" in request

    is_certain_effect = is_effect

    def with_idempotency_key(self, namespace, request, key):
        return {"key": key, **request}

    async def perform(self, namespace, request):
        if self.down is not None and self.down == request.get("read"):
            raise machine.errors.TransportError("it is down")
        (self.sent if "effect" in request else self.read).append(request.get("read") or request["effect"])
        return len(self.read)


def steps(world, failing=None, *, chain=True, version="1", more=()):
    """Return a plan of 12 states, each with a read and an effect, and two cleanup states; one fails in between."""
    plan = Plan("steps", version=version, transports={"world": world})
    before = []
    for number in range(STATES):

        def work(number=number):
            async def handle(ctx, io):
                ctx[f"read{number}"] = (await io.call("world", {"read": f"r{number}"})).response
                await io.call("world", {"effect": f"e{number}"})
                if number == failing:
                    raise ValueError(f"step {number} fails")
                ctx[f"done{number}"] = True

            return handle

        after = before[-1:] if chain or number % 3 else before[:1]
        declared = {"side_effects": "apply_side_effect", "idempotency": f"key-{number}", "after": after}
        before.append(plan.state(f"work.s{number}", **declared)(work()))
    for name, wants in (("undo", "on_failure"), ("close", "always")):

        def clean(name=name):
            async def handle(ctx, io):
                await io.call("world", {"effect": name})

            return handle

        plan.state(f"end.{name}", run=wants, side_effects="apply_side_effect", idempotency=name)(clean())
    return plan


def identical(store, run_id, plan):
    assert verify(run_id, store=store).problems == ()
    found = replay(run_id, plan=plan, store=store)
    assert found.divergence is None
    return found.digest


def events(store, run_id):
    return [decode_entry(event.seq, event.data) for event in store.read_range(run_id)]


@MODES
@pytest.mark.parametrize("failing", range(STATES))
def test_a_retry_completes_and_makes_no_read_and_no_effect_twice(store, mode, failing):
    world = World()
    broken = steps(world, failing, chain=mode is None)
    first = run(broken, store=store, config=config_of(mode))
    assert first.status == "failed"
    assert world.sent.count("undo") == world.sent.count("close") == 1
    identical(store, first.run_id, broken)

    mended = steps(world, chain=mode is None)
    again = machine.retry(first.run_id, plan=mended, store=store)
    assert (again.result.status, again.parent_run_id) == ("completed", first.run_id)
    assert sorted(world.read) == sorted(f"r{number}" for number in range(STATES))
    work = [f"e{number}" for number in range(STATES)]
    assert sorted(world.sent) == sorted([*work, "undo", "close", "close"])  # each run cleans up after itself
    assert all(again.result.context[f"done{number}"] for number in range(STATES))
    identical(store, again.run_id, mended)
    identical(store, first.run_id, broken)
    assert latest_retry(store, first.run_id) == again.run_id


@MODES
def test_a_call_that_failed_is_made_again(store, mode):
    world = World()
    plan = Plan("op", transports={"world": world})

    @plan.state("a.first")
    async def first(ctx, io):
        ctx["first"] = (await io.call("world", {"read": "one"})).response

    @plan.state("a.second", after=[first])
    async def second(ctx, io):
        ctx["second"] = (await io.call("world", {"read": "two"})).response

    world.down = "two"
    failed = run(plan, store=store, config=config_of(mode))
    world.down = None
    again = machine.retry(failed.run_id, plan=plan, store=store)
    assert again.result.context == {"first": 1, "second": 2}
    assert world.read == ["one", "two"]
    identical(store, again.run_id, plan)


def test_what_other_states_completed_after_the_failure_is_shared_too(store):
    world, seen = World(), anyio.Event()
    fails = [True]
    plan = Plan("op", transports={"world": world})

    @plan.state("a.fails")
    async def failing(ctx):
        seen.set()
        if fails:
            raise ValueError("no")

    @plan.state("a.slow", side_effects="apply_side_effect", idempotency="slow")
    async def slow(ctx, io):
        await seen.wait()
        await anyio.sleep(0.01)
        ctx["slow"] = (await io.call("world", {"effect": "slow"})).response

    failed = run(plan, store=store, config=config_of(FanOutJoin(2)))
    kinds = [(e.event.type, getattr(e.event, "state_id", None)) for e in events(store, failed.run_id)]
    assert kinds.index(("state_failed", "op.a.fails")) < kinds.index(("state_completed", "op.a.slow"))
    fails.clear()
    again = machine.retry(failed.run_id, plan=plan, store=store)
    assert (again.result.status, world.sent) == ("completed", ["slow"])
    assert "op.a.slow" in again.copied
    identical(store, again.run_id, plan)


@MODES
def test_from_an_earlier_state_the_code_runs_again_on_the_recorded_answers(store, mode):
    world = World()
    broken = steps(world, 6)
    first = run(broken, store=store, config=config_of(mode))
    mended = steps(world)
    again = machine.retry(first.run_id, plan=mended, store=store, from_state="work.s3")
    assert again.result.status == "completed"
    assert set(again.copied) == {f"steps.work.s{number}" for number in range(3)}
    assert {f"steps.work.s{number}" for number in range(3, STATES)} <= set(again.ran)
    assert sorted(world.read) == sorted(f"r{number}" for number in range(STATES))
    assert [world.sent.count(f"e{number}") for number in range(STATES)] == [1] * STATES
    identical(store, again.run_id, mended)


def test_a_retry_that_fails_is_what_is_retried_next(store):
    world = World()
    first = run(steps(world, 3), store=store)
    second = machine.retry(first.run_id, plan=steps(world, 5), store=store)
    assert second.result.status == "failed"
    third = machine.retry(first.run_id, plan=steps(world), store=store)
    assert (third.result.status, third.parent_run_id) == ("completed", second.run_id)
    assert [world.sent.count(f"e{number}") for number in range(STATES)] == [1] * STATES
    assert latest_retry(store, first.run_id) == third.run_id


def test_a_run_that_is_not_there_cannot_be_retried(store):
    with pytest.raises(NotFoundError):
        machine.retry(str(machine.new_run_id()), plan=steps(World()), store=store)


def test_a_run_that_did_not_fail_is_not_retried(store):
    world = World()
    plan = steps(world)
    done = run(plan, store=store).run_id
    rows = store.list_runs().rows
    with pytest.raises(RunError) as refused:
        machine.retry(done, plan=plan, store=store)
    assert refused.value.code == Code.NOT_FAILED
    assert store.list_runs().rows == rows


def test_a_run_whose_retry_completed_is_not_retried_again(store):
    world = World()
    first = run(steps(world, 3), store=store)
    second = machine.retry(first.run_id, plan=steps(world), store=store)
    with pytest.raises(RunError) as refused:
        machine.retry(first.run_id, plan=steps(world), store=store)
    assert refused.value.code == Code.RETRIED_ALREADY
    assert refused.value.info.details["retry"] == second.run_id


def test_of_two_retries_at_once_one_is_made(tmp_path):
    """Both see a failed run without a retry; the store lets one of them begin."""
    url = f"sqlite:///{tmp_path}/runs.db"
    world = World()
    with open_store(url) as store:
        first = run(steps(world, 3), store=store)
    ready, results = threading.Barrier(2), []

    def retrying():
        with open_store(url) as store:
            ready.wait(10)
            try:
                results.append(machine.retry(first.run_id, plan=steps(world), store=store).result.status)
            except RunError as exc:
                results.append(exc.code)

    threads = [threading.Thread(target=retrying) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, results)) == ["completed", "retried_already"]
    assert [world.sent.count(f"e{number}") for number in range(STATES)] == [1] * STATES


def test_a_retry_that_another_process_has_just_begun_is_refused_and_writes_nothing(store, monkeypatch):
    world = World()
    first = run(steps(world, 3), store=store)
    seen = machine.recordings.retry.latest_retry
    found = [first.run_id]  # what the other process has done since is not seen at the first look
    monkeypatch.setattr(
        machine.recordings.retry, "latest_retry", lambda *args: found.pop() if found else seen(*args)
    )
    other = machine.recordings.fork.branched

    async def meanwhile(shared, **options):
        monkeypatch.setattr(machine.recordings.retry, "branched", other)
        await other(shared, **options)
        return await other(shared, **options)

    monkeypatch.setattr(machine.recordings.retry, "branched", meanwhile)
    with pytest.raises(RunError) as refused:
        machine.retry(first.run_id, plan=steps(world), store=store)
    assert refused.value.code == Code.RETRIED_ALREADY
    assert len(store.list_runs().rows) == 2


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [
        ("work.s9", UsageError, Code.INVALID_FORK_POINT),
        ("end.undo", UsageError, Code.INVALID_FORK_POINT),
        ("work.none", PlanError, Code.RECOVERY_STATE_NOT_IN_PLAN),
    ],
    ids=["not begun", "cleanup", "unknown"],
)
def test_a_state_from_which_nothing_can_be_run_again_is_refused(store, name, error, code):
    world = World()
    first = run(steps(world, 3), store=store)
    with pytest.raises(error) as refused:
        machine.retry(first.run_id, plan=steps(world), store=store, from_state=name)
    assert refused.value.code == code
    assert len(store.list_runs().rows) == 1


def test_a_plan_that_lost_the_failed_state_is_refused(store):
    world = World()
    first = run(steps(world, 3), store=store)
    other = Plan("steps", transports={"world": world})
    other.state("work.other")(lambda ctx: None)
    with pytest.raises(PlanError) as refused:
        machine.retry(first.run_id, plan=other, store=store)
    assert refused.value.code == Code.RECOVERY_STATE_NOT_IN_PLAN
    assert len(store.list_runs().rows) == 1


def test_a_conflict_is_retried_from_a_state(store):
    def plan_of(key):
        plan = Plan("op")
        plan.state("a.one")(lambda ctx: ctx.__setitem__("x", 1))
        plan.state("a.two")(lambda ctx: ctx.__setitem__(key, 2))
        return plan

    failed = run(plan_of("x"), store=store, config=config_of(FanOutJoin(2)))
    with pytest.raises(RunError) as refused:
        machine.retry(failed.run_id, plan=plan_of("y"), store=store)
    assert refused.value.code == Code.NOT_FAILED
    again = machine.retry(failed.run_id, plan=plan_of("y"), store=store, from_state="a.two")
    assert again.result.context == {"x": 1, "y": 2}
    identical(store, again.run_id, plan_of("y"))


def test_a_start_under_the_key_of_a_failed_run_gets_its_latest_retry(store):
    world = World()
    first = run(steps(world, 3), store=store, invocation_key="order-7")
    assert run(steps(world, 3), store=store, invocation_key="order-7").run_id == first.run_id
    again = machine.retry(first.run_id, plan=steps(world), store=store)
    attached = run(steps(world), store=store, invocation_key="order-7")
    assert (attached.run_id, attached.status) == (again.run_id, "completed")


@MODES
def test_a_run_that_used_up_a_limit_is_retried_with_another(store, mode):
    world = World()
    plan = steps(world)
    config = config_of(mode, limits=Limits(attempts=4))
    first = run(plan, store=store, config=config)
    assert first.status == "limit_exceeded"
    again = machine.retry(first.run_id, plan=plan, store=store, limits=Limits(attempts=100))
    assert again.result.status == "completed"
    assert [world.sent.count(f"e{number}") for number in range(STATES)] == [1] * STATES
    identical(store, again.run_id, plan)


@MODES
def test_a_retry_can_be_resumed_and_forked_with_other_facts(store, mode):
    """The cleanup of a run is done anew where a fork makes a state run again that failed."""
    world = World()
    broken = steps(world, 3)
    first = run(broken, store=store, config=config_of(mode))
    fact = next(e for e in events(store, first.run_id) if e.event.type == "fact_recorded")
    forked = machine.fork(
        first.run_id,
        plan=broken,
        store=store,
        at=store.head_seq(first.run_id),
        set_facts={str(fact.seq): 99},
    )
    assert (forked.result.status, forked.result.context["read0"]) == ("failed", 99)
    assert world.sent.count("undo") == 1  # a shared effect is never sent again
    identical(store, forked.run_id, broken)
