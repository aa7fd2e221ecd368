"""A run that has used up a limit ends, once and for good, at exactly the number of the limit."""

from __future__ import annotations

import json
from types import SimpleNamespace

import anyio
import attrs
import pytest

from machine import (
    Failure,
    Plan,
    RetryPolicy,
    RunConfig,
    approve,
    cancel,
    export_run,
    fork,
    open_bundle,
    replay,
    resume,
    run,
    step,
    verify,
)
from machine.codec import decode_entry
from machine.config import FanOutJoin
from machine.errors import BundleError, ConfigError, MachineError, UsageError
from machine.events import FactRecorded, LimitReached, StateEntered, StateFailed
from machine.kernel.history import fold
from machine.limits import Limits

MODES = {"sequential": RunConfig(), "concurrent": RunConfig(execution_mode=FanOutJoin(1))}


CALLED = []


def work(number):
    CALLED.append(number)
    return number


@step
def marked(number):
    CALLED.append(number)
    return number


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


def limited(mode="sequential", **limits):
    return attrs.evolve(MODES[mode], limits=Limits(**limits))


def entries(store, run_id):
    return [decode_entry(event.seq, event.data) for event in store.read_range(run_id)]


def of(store, run_id, kind):
    return [entry.event for entry in entries(store, run_id) if isinstance(entry.event, kind)]


def chain(length, calls=2):
    """Return a plan of states in a row, each of which makes some calls."""
    plan, before = Plan("op"), []

    for number in range(length):

        @plan.state(f"step.s{number}", after=before[-1:])
        async def state(ctx, io, number=number):
            for call in range(calls):
                await io.call("outside", {"state": number, "call": call})

        before.append(state)
    return plan


def check(store, result, plan, name, value):
    """Check the end of a run that has used up a limit, and that a replay and a resume change nothing."""
    assert (result.status, result.error.code) == ("limit_exceeded", "limit_exceeded")
    assert result.error.details == {"limit": name, "value": value}
    assert of(store, result.run_id, LimitReached) == [LimitReached(name, value)]
    assert verify(result.run_id, store=store).ok
    assert replay(result.run_id, plan=plan, store=store).identical
    again = resume(result.run_id, plan=plan, store=store)
    assert (again.status, again.head_seq, again.digest) == (result.status, result.head_seq, result.digest)


@pytest.mark.parametrize("most", range(1, 8))
def test_the_call_after_the_last_allowed_one_never_leaves(store, scripted, mode, most):
    outside, plan = scripted(), chain(4)
    result = run(plan, store=store, config=limited(mode, facts=most), transports={"outside": outside})
    assert len(outside.asked) == len(of(store, result.run_id, FactRecorded)) == most
    check(store, result, plan, "facts", str(most))
    (failed,) = of(store, result.run_id, StateFailed)
    assert failed.error.code == "limit_exceeded"


def test_a_run_that_needs_no_more_than_its_limits_completes(store, scripted, mode):
    config = limited(mode, facts=8, attempts=4, states=4, wall_seconds=1000)
    result = run(chain(4), store=store, config=config, transports={"outside": scripted()})
    assert result.status == "completed"
    assert not of(store, result.run_id, LimitReached)


@pytest.mark.parametrize("name", ["attempts", "states"])
@pytest.mark.parametrize("most", range(1, 4))
def test_the_state_after_the_last_allowed_one_never_begins(store, scripted, mode, name, most):
    outside, plan = scripted(), chain(4)
    config = limited(mode, **{name: most})
    result = run(plan, store=store, config=config, transports={"outside": outside})
    assert len(of(store, result.run_id, StateEntered)) == most
    check(store, result, plan, name, str(most))


def test_attempts_count_those_that_are_made_again(store, mode):
    plan = Plan("op")

    @plan.state("step.fails", retry=RetryPolicy(10))
    def fails(ctx):
        raise Failure("no", code="no", retryable=True)

    result = run(plan, store=store, config=limited(mode, attempts=3))
    assert len(of(store, result.run_id, StateEntered)) == 3
    check(store, result, plan, "attempts", "3")
    result = run(plan, store=store, config=limited(mode, states=1))
    assert result.status == "failed"


def test_a_handler_cannot_go_on_after_its_limit(store, scripted, mode):
    plan, outside, after = Plan("op"), scripted(), []

    @plan.state("step.stubborn")
    async def stubborn(ctx, io):
        for number in range(3):
            try:
                await io.call("outside", {"number": number})
            except BaseException:  # noqa: BLE001 - as a handler may
                with anyio.CancelScope(shield=True):
                    try:
                        await io.call("outside", {"number": "shielded"})
                    except MachineError as exc:
                        after.append(exc.code)
        ctx["done"] = True

    result = run(plan, store=store, config=limited(mode, facts=1), transports={"outside": outside})
    assert outside.asked == [{"number": 0}]
    assert "limit_exceeded" in after
    check(store, result, plan, "facts", "1")
    assert [event.error.code for event in of(store, result.run_id, StateFailed)] == ["limit_exceeded"]


def test_a_plain_handler_is_stopped_too(store, scripted, mode):
    plan, outside = Plan("op"), scripted()

    @plan.state("step.plain")
    def plain(ctx, io):
        for number in range(3):
            io.call("outside", {"number": number})

    result = run(plan, store=store, config=limited(mode, facts=2), transports={"outside": outside})
    assert len(outside.asked) == 2
    check(store, result, plan, "facts", "2")


def test_steps_and_waits_and_values_are_counted_like_any_call(store):
    plan = Plan("op")
    CALLED.clear()

    @plan.state("step.works")
    async def works(ctx, io):
        await io.step(work, 1)
        await io.record_value("two", 2)
        await io.publish("stream", 3)
        await io.now()
        await io.approval("May I?")

    result = run(plan, store=store, config=limited(facts=4))
    check(store, result, plan, "facts", "4")
    assert CALLED == [1]
    assert not any(entry.event.type == "wait_begun" for entry in entries(store, result.run_id))


def test_a_step_on_the_thread_of_the_event_loop_is_refused_too(store, mode):
    plan = Plan("op")
    CALLED.clear()

    @plan.state("step.works")
    async def works(ctx, io):
        marked(1)
        marked(2)

    result = run(plan, store=store, config=limited(mode, facts=1))
    check(store, result, plan, "facts", "1")
    assert CALLED == [1]


@pytest.mark.parametrize("concurrency", [2, 5])
def test_concurrent_states_exceed_a_limit_by_no_more_than_their_number(store, scripted, concurrency):
    plan, outside = Plan("op"), scripted()
    for number in range(8):

        @plan.state(f"step.s{number}")
        async def state(ctx, io, number=number):
            for call in range(3):
                await io.call("outside", {"state": number, "call": call, "delay": 0.001})

    config = RunConfig(execution_mode=FanOutJoin(concurrency), limits=Limits(facts=7))
    result = run(plan, store=store, config=config, transports={"outside": outside})
    facts = of(store, result.run_id, FactRecorded)
    assert 7 <= len(facts) < 7 + concurrency
    (reached,) = of(store, result.run_id, LimitReached)
    check(store, result, plan, "facts", reached.value)
    config = RunConfig(execution_mode=FanOutJoin(concurrency), limits=Limits(attempts=4))
    result = run(plan, store=store, config=config, transports={"outside": outside})
    (reached,) = of(store, result.run_id, LimitReached)
    assert 4 <= int(reached.value) < 4 + concurrency
    check(store, result, plan, "attempts", reached.value)


def test_time_in_attempts_is_looked_at_where_something_is_recorded(store, scripted, mode, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("machine.engine.wall_clock.time", SimpleNamespace(monotonic=lambda: now[0]))
    plan, outside = Plan("op"), scripted()

    @plan.state("step.slow")
    async def slow(ctx, io):
        now[0] += 3
        await io.call("outside", 1)
        now[0] += 3
        await io.call("outside", 2)

    result = run(plan, store=store, config=limited(mode, wall_seconds=5), transports={"outside": outside})
    assert outside.asked == [1]
    check(store, result, plan, "wall_seconds", "6")
    history = fold(entries(store, result.run_id))
    assert history.usage.wall_ms == 6000


def test_time_between_attempts_does_not_count(store, mode, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("machine.engine.wall_clock.time", SimpleNamespace(monotonic=lambda: now[0]))
    plan = Plan("op")

    @plan.state("step.first")
    async def first(ctx, io):
        now[0] += 1

    @plan.state("step.asks", after=[first])
    async def asks(ctx, io):
        await io.approval("May I?")
        now[0] += 1

    result = run(plan, store=store, config=limited(mode, wall_seconds=4))
    assert result.status == "suspended"
    now[0] += 1000
    approve(result.run_id, store=store)
    result = resume(result.run_id, plan=plan, store=store)
    assert result.status == "completed"
    assert fold(entries(store, result.run_id)).usage.wall_ms == 2000


def test_a_run_that_is_killed_at_any_event_ends_at_the_same_limit(store, scripted, mode, crashed_after):
    outside, plan = scripted(), chain(3)
    options = {"plan": plan, "transports": {"outside": outside}}
    whole = run(store=store, config=limited(mode, facts=3), **options)
    for length in range(1, whole.head_seq):
        outside.asked.clear()
        cut = crashed_after(store, whole.run_id, length)
        known = sum(isinstance(entry.event, FactRecorded) for entry in entries(cut, whole.run_id))
        result = resume(whole.run_id, store=cut, **options)
        assert len(outside.asked) == 3 - known
        if any(isinstance(entry.event, LimitReached) for entry in entries(cut, whole.run_id)[:length]):
            assert result.digest == whole.digest
        check(cut, result, plan, "facts", "3")


def test_a_cancel_of_a_run_that_was_killed_at_its_limit_changes_nothing_about_its_end(
    store, scripted, mode, crashed_after
):
    plan = chain(3)
    whole = run(plan, store=store, config=limited(mode, facts=3), transports={"outside": scripted()})
    seq = next(entry.seq for entry in entries(store, whole.run_id) if isinstance(entry.event, LimitReached))
    cut = crashed_after(store, whole.run_id, seq)
    cancel(whole.run_id, store=cut)
    result = resume(whole.run_id, plan=plan, store=cut)
    check(cut, result, plan, "facts", "3")


def test_a_fork_goes_on_past_a_limit_with_a_larger_one(store, scripted, mode):
    outside, plan = scripted(), chain(3)
    options = {"plan": plan, "store": store, "transports": {"outside": outside}}
    result = run(config=limited(mode, facts=3), **options)
    with pytest.raises(UsageError, match="had used up its limit facts") as caught:
        fork(result.run_id, at=result.head_seq, **options)
    assert caught.value.code == "invalid_fork_point"
    with pytest.raises(ConfigError, match="limit facts is 2, and 3 of it are used already") as caught:
        fork(result.run_id, at=result.fork_at, limits=Limits(facts=2), **options)
    assert caught.value.code == "invalid_limit"
    outside.asked.clear()
    again = fork(result.run_id, at=result.fork_at, limits=Limits(facts=5), **options).result
    assert len(outside.asked) == 2
    check(store, again, plan, "facts", "5")
    outside.asked.clear()
    whole = fork(again.run_id, at=again.fork_at, limits=Limits(), **options).result
    assert (whole.status, len(outside.asked)) == ("completed", 1)
    assert replay(whole.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("readable", [False, True])
def test_a_bundle_of_a_limited_run_has_a_version_of_its_own(store, scripted, mode, tmp_path, readable):
    plan, path = chain(3), tmp_path / "limited.run"
    result = run(plan, store=store, config=limited(mode, facts=3), transports={"outside": scripted()})
    data = export_run(result.run_id, path, store=store, readable=readable)
    assert json.loads(data.split(b"\n")[0])["bundle"]["version"] == (7 if readable else 6)
    with open_bundle(path) as bundle:
        assert replay(result.run_id, plan=plan, store=bundle.store).identical
        assert export_run(result.run_id, store=bundle.store, readable=readable) == data
    forged = data.replace(b'"version":6', b'"version":4').replace(b'"version":7', b'"version":5')
    path.write_bytes(forged)
    with pytest.raises(BundleError):
        open_bundle(path)


def test_a_paranoid_run_reaches_its_limit_too(store, scripted):
    plan = chain(3)
    config = attrs.evolve(limited(facts=3), paranoid=True)
    result = run(plan, store=store, config=config, transports={"outside": scripted()})
    check(store, result, plan, "facts", "3")


@pytest.mark.parametrize("limits", [{"facts": 5}, {"attempts": 3}])
def test_a_run_of_concurrent_states_that_is_killed_at_any_event_is_ended_too(
    store, scripted, crashed_after, limits
):
    plan = Plan("op")
    for number in range(4):

        @plan.state(f"step.s{number}")
        async def state(ctx, io, number=number):
            for call in range(2):
                await io.call("outside", {"state": number, "call": call, "delay": 0.001})

    options = {"plan": plan, "transports": {"outside": scripted()}}
    config = RunConfig(execution_mode=FanOutJoin(3), limits=Limits(**limits))
    whole = run(store=store, config=config, **options)
    for length in range(1, whole.head_seq):
        cut = crashed_after(store, whole.run_id, length)
        assert replay(whole.run_id, plan=plan, store=cut).identical
        result = resume(whole.run_id, store=cut, **options)
        (reached,) = of(cut, whole.run_id, LimitReached)
        check(cut, result, plan, reached.name, reached.value)
