"""`io.poll`: a job of another system is submitted once, whatever happens, and asked for until it has ended."""

from __future__ import annotations

import functools
import time
from collections import Counter

import pytest
from crashes import CommittedStore

import machine
from machine import Plan, RetryPolicy, RunConfig, open_store
from machine.engine.run_reader import entries
from machine.errors import Code, OtherIoError, WaitTimeoutError
from machine.events import FactRecorded, WaitBegun

HOUR = 3600.0


class Jobs:
    """A system that runs jobs, each for some checks; the same key is the same job."""

    def __init__(self):
        self.submitted = Counter()
        self.checks = 0
        self.long = 3

    def begin(self, long):
        self.submitted.clear()
        self.checks, self.long = 0, long


jobs = Jobs()


def submit(order, idempotency_key):
    jobs.submitted[idempotency_key] += 1
    return {"job": f"{order}-{idempotency_key}"}


async def check(job):
    jobs.checks += 1
    return f"result of {job['job']}" if jobs.checks >= jobs.long else None


def hours_from_now(hours):
    """Return the time so many hours from now, and a little more."""
    return time.time_ns() // 1_000_000 + hours * 3_600_001 + 10_000


async def fails_once(job):
    """Fail at the second check, and count as one all the same."""
    found = await check(job)
    if jobs.checks == 2:
        raise ConnectionError("not now")
    return found


@pytest.fixture
def store():
    with open_store("memory://") as store:
        yield store


def polls(*, every=HOUR, key="k", **options):
    plan = Plan("polls")

    @plan.state("ask.job", side_effects="apply_side_effect", idempotency=lambda ctx: key, **options)
    async def job(ctx, io):
        ctx["result"] = await io.poll(submit, check, every=every, args=["tea"])
        ctx["now"] = await io.now() > 0

    return plan


def count(store, run_id, kind, namespace):
    log = [entry.event for entry, _ in entries(store, run_id)]
    return sum(isinstance(event, kind) and event.namespace == namespace for event in log)


@pytest.mark.parametrize(("every", "wait"), [(HOUR, "wait.timer"), (0.001, "clock.sleep")])
def test_a_job_is_submitted_once_and_checked_until_it_has_ended(store, every, wait):
    jobs.begin(3)
    plan = polls(every=every)
    result = machine.run(plan, store=store, clock="skip")
    assert result.context == {"result": "result of tea-k", "now": True}
    assert (jobs.submitted, jobs.checks) == ({"k": 1}, 3)
    assert count(store, result.run_id, FactRecorded, wait) == 2
    assert machine.replay(result.run_id, plan=plan, store=store).identical
    assert (jobs.submitted, jobs.checks) == ({"k": 1}, 3)


def test_a_run_is_put_away_between_two_checks_that_are_far_apart(store):
    jobs.begin(3)
    plan = polls()
    result = machine.run(plan, store=store)
    (wait,) = result.waits
    assert (result.status, wait.type, jobs.checks) == ("suspended", "timer", 1)
    assert store.lease_of(result.run_id) is None
    assert count(store, result.run_id, WaitBegun, "wait.timer") == 1
    for checks in (2, 3):
        store.clock = functools.partial(hours_from_now, checks - 1)
        result = machine.resume(result.run_id, plan=plan, store=store)
        assert jobs.checks == checks
    assert (result.status, jobs.submitted) == ("completed", {"k": 1})


def test_whatever_commit_a_crash_follows_the_job_is_submitted_once_and_no_check_is_lost():
    jobs.begin(4)
    plan = polls()
    with CommittedStore() as whole:
        expected = machine.run(plan, store=whole, clock="skip")
        assert expected.status == "completed"
    for length in range(1, len(whole.appended)):
        with whole.after(length) as store:
            known = count(store, expected.run_id, FactRecorded, "step")
            jobs.begin(max(4 - max(known - 1, 0), 1))  # the job goes on elsewhere
            result = machine.resume(expected.run_id, plan=plan, store=store)
            for hours in range(1, 5):
                if result.status == "suspended":
                    store.clock = functools.partial(hours_from_now, hours)
                    result = machine.resume(expected.run_id, plan=plan, store=store)
            assert result.context == expected.context, length
            assert jobs.submitted == ({} if known else {"k": 1}), length
            assert count(store, expected.run_id, FactRecorded, "step") == 5, length
            assert machine.replay(expected.run_id, plan=plan, store=store).identical


def test_an_attempt_after_a_failure_goes_on_with_the_job(store):
    jobs.begin(3)
    plan = Plan("polls")

    @plan.state(
        "ask.job", side_effects="apply_side_effect", idempotency=lambda ctx: "k", retry=RetryPolicy(2)
    )
    async def job(ctx, io):
        ctx["result"] = await io.poll(submit, fails_once, every=HOUR, args=["tea"])

    result = machine.run(plan, store=store, clock="skip")
    assert (result.status, jobs.submitted, jobs.checks) == ("completed", {"k": 1}, 3)
    assert count(store, result.run_id, WaitBegun, "wait.timer") == 1
    assert machine.replay(result.run_id, plan=plan, store=store).identical


def test_a_job_that_takes_too_long_is_an_error_at_a_recorded_time(store):
    jobs.begin(1000)
    plan = Plan("polls")

    @plan.state("ask.job", side_effects="apply_side_effect", idempotency=lambda ctx: "k")
    async def job(ctx, io):
        with pytest.raises(WaitTimeoutError, match="the job had no result within 9000 s"):
            await io.poll(submit, check, every=HOUR, timeout=2.5 * HOUR, args=["tea"])
        ctx["late"] = True

    result = machine.run(plan, store=store, clock="skip")
    assert (result.context, jobs.checks, jobs.submitted) == ({"late": True}, 4, {"k": 1})
    assert machine.replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("options", [{"every": 0}, {"every": "x"}, {"every": 1, "timeout": 0}])
def test_a_time_that_is_none_is_refused_before_anything_is_submitted(store, options):
    jobs.begin(1)
    plan = Plan("polls")

    @plan.state("ask.job", side_effects="apply_side_effect", idempotency=lambda ctx: "k")
    async def job(ctx, io):
        with pytest.raises(OtherIoError) as caught:
            await io.poll(submit, check, args=["tea"], **options)
        ctx["code"] = caught.value.code

    assert machine.run(plan, store=store).context == {"code": Code.IO_INVALID_REQUEST}
    assert jobs.submitted == {}


def test_a_state_that_declares_no_effect_submits_nothing(store):
    jobs.begin(1)
    plan = Plan("polls")

    @plan.state("ask.job")
    async def job(ctx, io):
        await io.poll(submit, check, every=1, args=["tea"])

    result = machine.run(plan, store=store)
    assert (result.error.code, jobs.submitted) == (Code.SIDE_EFFECT_NOT_DECLARED, {})


def test_a_plain_handler_polls_too(store):
    jobs.begin(2)
    plan = Plan("polls")

    @plan.state("ask.job", side_effects="apply_side_effect", idempotency=lambda ctx: "k")
    def job(ctx, io):
        ctx["result"] = io.poll(submit, check, every=HOUR, args=["tea"])

    config = RunConfig(durability="facts")
    assert machine.run(plan, store=store, clock="skip", config=config).context == {
        "result": "result of tea-k"
    }
