"""A state with `on_error="skip"` that fails for good is skipped, and the run completes without it."""

from __future__ import annotations

import pytest

import machine
from machine import Plan, RetryPolicy, RunConfig, StateOutcome, replay, resume, run, verify
from machine.codec import decode_entry
from machine.config import FanOutJoin

MODES = pytest.mark.parametrize("mode", [None, FanOutJoin(3)], ids=["sequential", "concurrent"])


def config_of(mode, **more):
    return RunConfig(**more) if mode is None else RunConfig(execution_mode=mode, **more)


def events(store, run_id):
    return [decode_entry(event.seq, event.data) for event in store.read_range(run_id)]


def identical(store, run_id, plan):
    assert verify(run_id, store=store).problems == ()
    assert replay(run_id, plan=plan, store=store).divergence is None


def optional(*, fails=True, after=False):
    """Return a plan with an optional state in its middle, and another that always fails and is optional too."""
    plan = Plan("op")

    @plan.state("a.first")
    def first(ctx):
        ctx["first"] = 1

    @plan.state("b.extra", after=[first], on_error="skip", retry=RetryPolicy(2))
    async def extra(ctx, io):
        ctx["extra"] = await io.now()
        if fails:
            raise machine.Failure("no more", code="sold_out", retryable=True)

    @plan.state("c.next", after=[extra])
    def next_one(ctx):
        ctx["next"] = "extra" in ctx
        if after:
            raise ValueError("no")

    @plan.state("c.other", after=[first], on_error="skip")
    def other(ctx):
        raise ValueError("never")

    return plan


@MODES
def test_the_run_completes_and_says_what_it_went_on_without(store, mode):
    plan = optional()
    result = run(plan, store=store, config=config_of(mode))
    assert (result.status, result.error, result.fork_at) == ("completed", None, None)
    assert set(result.skipped) == {"op.b.extra", "op.c.other"}
    assert result.context == {"first": 1, "next": False}
    told = [e.event for e in events(store, result.run_id)]
    assert [e.state_id for e in told if e.type == "state_entered"].count("op.b.extra") == 2
    reasons = {e.state_id: e.reason for e in told if e.type == "state_skipped"}
    assert reasons == {"op.b.extra": "failed:sold_out", "op.c.other": "failed:handler_error"}
    assert told[-1].skipped == 2
    identical(store, result.run_id, plan)


@MODES
def test_one_that_succeeds_is_not_skipped(store, mode):
    plan = optional(fails=False)
    result = run(plan, store=store, config=config_of(mode))
    assert result.skipped == ("op.c.other",)
    assert result.context["next"] is True
    identical(store, result.run_id, plan)


@MODES
def test_a_run_that_fails_later_has_the_later_error(store, mode):
    plan = optional(after=True)
    result = run(plan, store=store, config=config_of(mode))
    assert (result.status, result.error.message) == ("failed", "ValueError: no")
    assert result.fork_at is not None
    identical(store, result.run_id, plan)


@MODES
def test_a_crash_anywhere_leads_to_the_same_digest(store, crashed_after, mode):
    plan = optional()
    whole = run(plan, store=store, config=config_of(mode))
    for length in range(1, store.head_seq(whole.run_id)):
        prefix = crashed_after(store, whole.run_id, length)
        result = resume(whole.run_id, plan=plan, store=prefix)
        assert (result.status, set(result.skipped)) == ("completed", set(whole.skipped))
        identical(prefix, whole.run_id, plan)


@MODES
def test_it_may_lie_on_a_branch(store, mode):
    plan = Plan("op")

    @plan.state("a.choose")
    def choose(ctx):
        return StateOutcome(goto=["b.left"])

    @plan.state("b.left", after=[choose], on_error="skip")
    def left(ctx):
        raise ValueError("no")

    @plan.state("b.right", after=[choose])
    def right(ctx):
        ctx["right"] = 1

    @plan.state("c.both", after=[left, right])
    def both(ctx):
        ctx["both"] = 1

    result = run(plan, store=store, config=config_of(mode))
    assert (result.status, result.context, result.skipped) == ("completed", {"both": 1}, ("op.b.left",))
    identical(store, result.run_id, plan)


@MODES
def test_one_that_kills_its_driver_is_skipped_at_the_limit(store, crashed_after, mode):
    plan = optional(fails=False)
    whole = run(plan, store=store, config=config_of(mode, recoveries=1))
    at = next(e.seq for e in events(store, whole.run_id) if getattr(e.event, "state_id", "") == "op.b.extra")
    prefix = crashed_after(store, whole.run_id, at)
    result = resume(whole.run_id, plan=plan, store=prefix)
    assert result.status == "completed"
    assert "op.b.extra" in result.skipped
    reasons = [e.event.reason for e in events(prefix, whole.run_id) if e.event.type == "state_skipped"]
    assert "failed:recovery_limit" in reasons
    identical(prefix, whole.run_id, plan)


def test_the_cleanup_of_a_state_that_was_skipped_for_its_failure_runs(store):
    plan = Plan("op")

    @plan.state("a.extra", on_error="skip")
    def extra(ctx):
        raise ValueError("no")

    @plan.state("a.work", after=[extra])
    def work(ctx):
        raise ValueError("neither")

    @plan.state("z.undo", run="on_failure", after=[extra])
    def undo(ctx, failure):
        ctx["undone"] = failure.message

    result = run(plan, store=store)
    assert (result.context, result.skipped) == ({"undone": "ValueError: neither"}, ("op.a.extra",))
    identical(store, result.run_id, plan)
