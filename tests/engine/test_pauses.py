"""A paused run is put away by a person, or by a state that has failed for good, and goes on in place."""

from __future__ import annotations

import json

import anyio
import pytest

from machine import (
    Failure,
    Plan,
    RetryPolicy,
    RunConfig,
    aio,
    cancel,
    continue_run,
    export_run,
    fork,
    open_bundle,
    pause,
    replay,
    resume,
    run,
    signal,
    verify,
    waiting,
    work,
)
from machine.build_provenance import Target
from machine.codec import decode_entry
from machine.config import FanOutJoin
from machine.errors import PlanError, RunError, UsageError
from machine.events import RunResumed, RunSuspended, StateEntered, StateFailed
from machine.stores.memory import MemoryStore
from machine.target import Loaded
from machine.waits import PauseWait

MODES = {"sequential": RunConfig(), "concurrent": RunConfig(execution_mode=FanOutJoin(3))}


@pytest.fixture(params=MODES)
def config(request):
    return MODES[request.param]


def of(store, run_id, kind):
    entries = (decode_entry(event.seq, event.data) for event in store.read_range(run_id))
    return [entry.event for entry in entries if isinstance(entry.event, kind)]


def attempts_of(store, run_id, state_id):
    return len([event for event in of(store, run_id, StateEntered) if event.state_id == state_id])


def mended(broken, *, retry=None):
    """Return a plan whose second state fails while `broken` holds anything."""
    plan = Plan("op")

    @plan.state("a.first")
    async def first(ctx, io):
        ctx["id"] = str(await io.uuid())

    @plan.state("b.second", after=[first], on_error="pause", **({"retry": retry} if retry else {}))
    async def second(ctx, io):
        ctx["again"] = str(await io.uuid())
        if broken:
            raise Failure("the code is wrong", code="wrong", retryable=True)

    @plan.state("c.third", after=[second])
    async def third(ctx):
        ctx["end"] = ctx["id"]

    return plan


def check_replay(store, run_id, plan):
    replayed = replay(run_id, plan=plan, store=store)
    assert replayed.identical, replayed
    assert verify(run_id, store=store).ok


# -- on_error="pause" -------------------------------------------------------------------------------------------


def test_a_state_that_has_failed_for_good_pauses_the_run_and_goes_on_in_place(config):
    store, broken = MemoryStore(), [1]
    plan = mended(broken, retry=RetryPolicy(2))
    paused = run(plan, store=store, config=config)

    assert (paused.status, paused.waits) == ("suspended", (PauseWait("op.b.second"),))
    assert attempts_of(store, paused.run_id, "op.b.second") == 2
    assert store.lease_of(paused.run_id) is None
    check_replay(store, paused.run_id, plan)
    assert resume(paused.run_id, plan=plan, store=store).status == "suspended"
    assert store.due_runs(store.clock()) == []
    first = of(store, paused.run_id, StateEntered)

    assert continue_run(paused.run_id, store=store).status == "running"
    again = resume(paused.run_id, plan=plan, store=store)
    assert again.waits == (PauseWait("op.b.second"),)
    assert attempts_of(store, paused.run_id, "op.b.second") == 4  # with all its retries

    broken.clear()
    continue_run(paused.run_id, store=store)
    ended = resume(paused.run_id, plan=plan, store=store)

    assert (ended.status, ended.run_id) == ("completed", paused.run_id)
    assert attempts_of(store, paused.run_id, "op.a.first") == 1
    assert of(store, paused.run_id, StateEntered)[: len(first)] == first


def test_the_whole_of_a_run_that_was_paused_replays_identically(config):
    store, broken = MemoryStore(), [1]
    plan = mended(broken)
    result = run(plan, store=store, config=config)
    broken.clear()
    continue_run(result.run_id, store=store)
    ended = resume(result.run_id, plan=plan, store=store)
    assert ended.status == "completed"

    seen = Plan(
        "op"
    )  # the code that failed is gone: the attempt that failed is replayed by the code of its time

    fails = iter([True, False])

    @seen.state("a.first")
    async def first(ctx, io):
        ctx["id"] = str(await io.uuid())

    @seen.state("b.second", after=[first], on_error="pause")
    async def second(ctx, io):
        ctx["again"] = str(await io.uuid())
        if next(fails):
            raise Failure("the code is wrong", code="wrong", retryable=True)

    @seen.state("c.third", after=[second])
    async def third(ctx):
        ctx["end"] = ctx["id"]

    check_replay(store, result.run_id, seen)


def test_other_states_end_before_a_concurrent_run_is_paused():
    store, plan = MemoryStore(), Plan("op")

    @plan.state("a.fails", on_error="pause")
    async def fails():
        raise Failure("no", code="no")

    @plan.state("a.works")
    async def works(ctx, io):
        await io.sleep(0.02)
        ctx["x"] = 1

    result = run(plan, store=store, config=MODES["concurrent"])

    assert result.status == "suspended"
    assert attempts_of(store, result.run_id, "op.a.works") == 1
    assert not [e for e in of(store, result.run_id, StateFailed) if e.state_id == "op.a.works"]
    check_replay(store, result.run_id, plan)


def test_a_pause_goes_before_what_other_states_wait_for():
    store, plan, broken = MemoryStore(), Plan("op"), [1]

    @plan.state("a.fails", on_error="pause")
    async def fails(ctx):
        ctx["x"] = 1
        if broken:
            raise Failure("no", code="no")

    @plan.state("a.waits")
    async def waits(ctx, io):
        ctx["paid"] = await io.wait_signal("paid")

    result = run(plan, store=store, config=MODES["concurrent"])
    assert result.waits == (PauseWait("op.a.fails"),)
    signal(result.run_id, "paid", 7, store=store)
    assert resume(result.run_id, plan=plan, store=store).status == "suspended"
    broken.clear()
    continue_run(result.run_id, store=store)
    ended = resume(result.run_id, plan=plan, store=store)

    assert ended.status == "completed"
    calls = iter([[1], []])

    def once(ctx):  # what the code did in its time
        ctx["x"] = 1
        if next(calls):
            raise Failure("no", code="no")

    again = Plan("op")
    again.state("a.fails", on_error="pause")(once)
    again.state("a.waits")(waits.handler)
    check_replay(store, result.run_id, again)


def test_on_error_is_in_the_plan_only_where_it_is_said():
    plain = Plan("op")
    plain.state("a.b")(lambda ctx: None)
    said = Plan("op")
    said.state("a.b", on_error="fail")(lambda ctx: None)
    paused = Plan("op")
    paused.state("a.b", on_error="pause")(lambda ctx: None)

    assert plain.graph.plan_id == said.graph.plan_id != paused.graph.plan_id
    with pytest.raises(PlanError):
        Plan("op").state("a.b", on_error="stop")(lambda ctx: None)


# -- a person pauses --------------------------------------------------------------------------------------------


class Began:
    """The attempts of a state that have begun, and an event for the first of them."""

    def __init__(self):
        self.attempts = 0
        self.reached = None

    async def wait_once(self):
        """Take long in the first attempt."""
        self.attempts += 1
        if self.attempts == 1:
            self.reached.set()
            await anyio.sleep(60)


def slow(began):
    """Return a plan whose second state takes long, and tells when it has begun."""
    plan = Plan("op")

    @plan.state("a.first")
    async def first(ctx, io):
        ctx["id"] = str(await io.uuid())

    @plan.state("b.slow", after=[first])
    async def second(ctx, io):
        ctx["known"] = str(await io.uuid())
        await began.wait_once()

    return plan


async def paused_while_it_runs(store, config, plan, began):
    """Pause a run in its second state, and return the result of its driver and that of the pause."""
    results = {}
    async with anyio.create_task_group() as group:

        async def drive():
            results["driver"] = await aio.run(plan, store=store, config=config)

        group.start_soon(drive)
        began.reached = anyio.Event()
        await began.reached.wait()
        run_id = store.list_runs().rows[0].run_id
        results["asked"] = await aio.pause(run_id, store=store)
    return results["driver"], results["asked"]


def test_a_run_that_is_driven_is_paused_and_goes_on_with_what_it_has(config):
    store, began = MemoryStore(), Began()
    plan = slow(began)
    driver, asked = anyio.run(paused_while_it_runs, store, config, plan, began)

    assert driver.status == asked.status == "suspended"
    assert driver.waits == (PauseWait(),)
    assert store.lease_of(driver.run_id) is None
    assert store.due_runs(store.clock()) == []
    assert [wait.kind for wait in waiting(store=store)] == ["pause"]
    check_replay(store, driver.run_id, plan)
    assert resume(driver.run_id, plan=plan, store=store).waits == (PauseWait(),)

    assert continue_run(driver.run_id, store=store).status == "running"
    ended = resume(driver.run_id, plan=plan, store=store)
    assert ended.status == "completed"
    check_replay(store, driver.run_id, plan)
    assert attempts_of(store, driver.run_id, "op.a.first") == 1


def waits_for(name="paid"):
    plan = Plan("op")

    @plan.state("a.waits")
    async def waits(ctx, io):
        ctx[name] = await io.wait_signal(name)

    @plan.state("b.after", after=[waits])
    async def after(ctx):
        ctx["done"] = True

    return plan


def test_a_run_that_waits_is_paused_once_it_would_go_on(config):
    store, plan = MemoryStore(), waits_for()
    result = run(plan, store=store, config=config)

    assert not any(isinstance(wait, PauseWait) for wait in pause(result.run_id, store=store).waits)
    signal(result.run_id, "paid", 7, store=store)
    paused = resume(result.run_id, plan=plan, store=store)
    assert (paused.status, paused.waits) == ("suspended", (PauseWait(),))
    check_replay(store, result.run_id, plan)

    continue_run(result.run_id, store=store)
    ended = resume(result.run_id, plan=plan, store=store)
    assert (ended.status, ended.context["paid"]) == ("completed", 7)
    check_replay(store, result.run_id, plan)
    other = MemoryStore()
    never_paused = run(plan, store=other, config=config).run_id
    signal(never_paused, "paid", 7, store=other)
    resume(never_paused, plan=plan, store=other)
    assert len(of(store, result.run_id, RunSuspended)) == len(of(other, never_paused, RunSuspended)) + 1
    assert [e.by for e in of(store, result.run_id, RunResumed)][-1] == "continued"


def test_a_pause_that_nobody_has_read_can_be_taken_back():
    store, plan = MemoryStore(), waits_for()
    result = run(plan, store=store)
    pause(result.run_id, store=store)
    continue_run(result.run_id, store=store)
    signal(result.run_id, "paid", 7, store=store)

    assert resume(result.run_id, plan=plan, store=store).status == "completed"


def test_pausing_twice_and_continuing_a_run_that_is_not_paused():
    store, broken = MemoryStore(), [1]
    plan = mended(broken)
    result = run(plan, store=store)
    before = store.head_seq(result.run_id)

    assert pause(result.run_id, store=store).status == "suspended"
    assert store.head_seq(result.run_id) == before
    continue_run(result.run_id, store=store)
    with pytest.raises(RunError) as caught:
        continue_run(result.run_id, store=store)
    assert caught.value.code == "not_paused"
    broken.clear()
    resume(result.run_id, plan=plan, store=store)
    with pytest.raises(RunError) as caught:
        pause(result.run_id, store=store)
    assert caught.value.code == "invalid_transition"
    with pytest.raises(RunError) as caught:
        continue_run(result.run_id, store=store)
    assert caught.value.code == "not_paused"
    with pytest.raises(UsageError):
        pause(result.run_id, store=store, timeout=float("nan"))


def test_a_run_whose_driver_died_is_paused_where_it_is():
    store, broken = MemoryStore(), [1]
    plan = mended(broken)
    result = run(plan, store=store)
    continue_run(result.run_id, store=store)  # nobody drives it now

    assert pause(result.run_id, store=store).waits == (PauseWait(),)
    broken.clear()
    assert resume(result.run_id, plan=plan, store=store).status == "suspended"
    continue_run(result.run_id, store=store)
    assert resume(result.run_id, plan=plan, store=store).status == "completed"


def test_a_paused_run_can_be_cancelled():
    store = MemoryStore()
    result = run(mended([1]), store=store)

    assert cancel(result.run_id, store=store).status == "cancelled"


def test_a_paused_run_goes_on_with_a_changed_plan_only_where_that_is_allowed():
    store = MemoryStore()
    result = run(mended([1]), store=store)
    other = mended([], retry=RetryPolicy(3))

    continue_run(result.run_id, store=store)
    with pytest.raises(PlanError):
        resume(result.run_id, plan=other, store=store)
    assert resume(result.run_id, plan=other, store=store, allow_plan_change=True).status == "completed"


def test_the_children_of_a_run_are_paused_with_it():
    store = MemoryStore()
    child = waits_for()
    parent = Plan("parent")

    @parent.state("a.b")
    async def begins(ctx, io):
        ctx["child"] = (await io.run_child(child, {})).status

    result = run(parent, store=store)
    of_child = next(row.run_id for row in store.list_runs().rows if row.op_id == "op")
    pause(result.run_id, store=store)
    signal(of_child, "paid", 7, store=store)

    assert resume(of_child, plan=child, store=store).waits == (PauseWait(),)
    continue_run(result.run_id, store=store)
    assert store.run_row(of_child).status == "interrupted"
    assert resume(result.run_id, plan=parent, store=store).status == "completed"


# -- bundles, forks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readable", [False, True])
def test_the_bundle_of_a_paused_run_has_a_version_that_an_older_program_refuses(tmp_path, readable):
    store, broken = MemoryStore(), [1]
    plan = mended(broken)
    result = run(plan, store=store)
    if readable:
        broken.clear()
        continue_run(result.run_id, store=store)
        resume(result.run_id, plan=plan, store=store)
    path = tmp_path / "paused.run"
    data = export_run(result.run_id, path, store=store, readable=readable)

    assert json.loads(data.split(b"\n")[0])["bundle"]["version"] == (7 if readable else 6)
    with open_bundle(path) as bundle:
        assert verify(bundle.run_id, store=bundle.store).ok
        assert export_run(bundle.run_id, store=bundle.store, readable=readable) == data


def test_a_fork_after_a_pause_goes_on(config):
    store, broken = MemoryStore(), [1]
    plan = mended(broken)
    result = run(plan, store=store, config=config)
    broken.clear()
    continue_run(result.run_id, store=store)
    ended = resume(result.run_id, plan=plan, store=store)

    at = ended.head_seq - 2
    forked = fork(result.run_id, at=at, plan=plan, store=store)
    assert forked.result.status == "completed"


def test_every_cut_of_the_log_of_a_paused_run_goes_on():
    whole, broken = MemoryStore(), [1]
    plan = mended(broken)
    result = run(plan, store=whole)
    continue_run(result.run_id, store=whole)
    events = list(whole.read_range(result.run_id))

    for length in range(1, len(events) + 1):
        broken[:] = [1]
        store = MemoryStore()
        for artifact_id, (kind, data) in whole._open().artifacts.items():
            assert store.put(kind, data) == artifact_id
        store.append(result.run_id, 0, events[:length])
        paused = resume(result.run_id, plan=plan, store=store)
        assert paused.status == "suspended", length
        broken.clear()
        continue_run(result.run_id, store=store)
        assert resume(result.run_id, plan=plan, store=store).status == "completed", length
        assert attempts_of(store, result.run_id, "op.a.first") <= 2


def test_a_worker_does_not_drive_a_paused_run_and_takes_it_once_it_goes_on():
    store, broken = MemoryStore(), [1]
    plan = mended(broken)
    paused = run(plan, store=store).run_id
    broken.clear()

    work(["here"], store=store, once=True, load=lambda *_: Loaded(plan, Target("here", ".")))
    assert store.run_row(paused).status == "suspended"
    continue_run(paused, store=store)
    work(["here"], store=store, once=True, load=lambda *_: Loaded(plan, Target("here", ".")))

    assert store.run_row(paused).status == "completed"
