"""The options of steps: effects and their keys, timeouts, retries, fresh calls, other processes."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import anyio
import pytest

import machine
from machine import Plan, RetryPolicy, RunConfig, dry_run, fork, open_store, replay, resume, run
from machine.engine.run_reader import PastRun
from machine.error_codes import Code
from machine.errors import StepError, UsageError
from machine.events import EffectIntended, FactError, FactRecorded
from machine.io.step_processes import StepProcess
from tests.io import functions_of_steps as functions

TWICE = RunConfig(retry_policy=RetryPolicy(max_attempts=2))
EFFECT = {"side_effects": "apply_side_effect", "idempotency": "key-1"}


@pytest.fixture
def calls():
    functions.CALLS.clear()
    yield functions.CALLS
    functions.CALLS.clear()


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


def plan_of(handler, **meta):
    plan = Plan("steps")
    plan.state("a.one", **{"side_effects": "read_only_io", **meta})(handler)
    return plan


def entries(store, run_id):
    return PastRun.read(run_id, store).entries


def facts(store, run_id):
    return [entry for entry in entries(store, run_id) if isinstance(entry.event, FactRecorded)]


# -- effects -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "blocking"])
def test_an_effect_has_its_intent_first_and_gets_the_key(store, calls, kind):
    if kind == "async":

        async def handler(ctx, io):
            ctx["said"] = [await io.step(functions.charge, 5), await functions.charge_async(5)]
    else:

        def handler(ctx):
            ctx["said"] = [functions.charge(5), functions.charge(5)]

    plan = plan_of(handler, **EFFECT)
    result = run(plan, store=store)
    if kind == "async":  # a second, different effect under one key
        assert result.error.code == Code.IDEMPOTENCY_KEY_REUSED
        return
    assert result.context == {"said": ["charged 5"] * 2}
    assert calls == [(5, "key-1")] * 2
    found = [type(entry.event) for entry in entries(store, result.run_id)]
    assert found[2:6] == [EffectIntended, FactRecorded, EffectIntended, FactRecorded]
    intent = entries(store, result.run_id)[2].event
    assert (intent.namespace, intent.idempotency_key) == ("step", "key-1")
    assert replay(result.run_id, plan=plan, store=store).identical
    assert len(calls) == 2


def test_an_effect_needs_a_state_that_declares_it(store, calls):
    async def handler(ctx, io):
        await io.step(functions.charge, 5)

    result = run(plan_of(handler), store=store)
    assert result.error.code == Code.SIDE_EFFECT_NOT_DECLARED
    assert calls == []


def test_a_key_of_the_calls_own_is_an_argument(store, calls):
    async def handler(ctx, io):
        for amount in (1, 2):
            await io.step(functions.charge, amount, kwargs={"idempotency_key": f"own-{amount}"})

    plan = plan_of(handler, **EFFECT)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    assert calls == [(1, "own-1"), (2, "own-2")]
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_effect_without_the_parameter_does_not_use_the_key_up(store, calls):
    tries = []

    async def handler(ctx, io):
        await io.step(functions.same, 1, effect=True)
        await io.step(functions.charge, 5)
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError

    plan = plan_of(handler, **EFFECT)
    result = run(plan, store=store, config=TWICE)
    assert result.status == "completed", result.error
    assert calls == ["same", (5, "key-1")], "an effect that is known to have happened was repeated"
    intents = [
        entry.event for entry in entries(store, result.run_id) if isinstance(entry.event, EffectIntended)
    ]
    assert [intent.idempotency_key for intent in intents] == ["", "key-1"]


def test_an_effect_whose_result_cannot_be_stored_has_happened(store, calls):
    async def handler(ctx, io):
        try:
            await io.step(functions.unstorable_charge, effect=True)
        except StepError as exc:
            ctx["code"], ctx["text"], ctx["retryable"] = exc.code, str(exc), exc.retryable
        if not calls[1:]:
            calls.append("failed once")
            raise RuntimeError

    plan = plan_of(handler, **EFFECT)
    result = run(plan, store=store, config=TWICE)
    assert result.status == "completed", result.error
    assert calls == ["charged", "failed once"]
    assert result.context["code"] == Code.STEP_RESULT_LOST
    assert "happened, and its result is lost" in result.context["text"]
    assert not result.context["retryable"]
    assert len(facts(store, result.run_id)) == 1
    assert facts(store, result.run_id)[0].event.outcome.final


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fresh": True}, "effect and fresh do not go together"),
        ({"timeout": 1}, "with timeout the effect .* could happen twice"),
        ({"retry_on": OSError}, "with retry_on the effect .* could happen twice"),
        ({"on": "process"}, "with on the effect .* could happen twice"),
    ],
)
def test_an_effect_that_could_happen_twice_is_refused(options, says):
    with pytest.raises(UsageError, match=says) as raised:
        machine.step(functions.same, effect=True, name="x", **options)
    assert raised.value.code == Code.INVALID_STEP


def test_a_reconcile_function_gives_what_the_function_would_have_returned(store, calls):
    def reconcile(ctx, io, effect):
        assert effect.namespace == "step"
        assert effect.request["args"] == {"amount": 5}
        assert effect.idempotency_key == "key-1"
        return effect.happened("charged 5, says the receiver")

    async def handler(ctx, io):
        ctx["said"] = await io.step(
            _crashing if not calls else functions.charge, 5, effect=True, name="charge"
        )

    def _crashing(amount, *, idempotency_key):
        functions.CALLS.append("crashed")
        raise KeyboardInterrupt

    plan = plan_of(handler, **EFFECT, on_uncertain="reconcile", reconcile=reconcile)
    with pytest.raises(KeyboardInterrupt):
        run(plan, store=store, run_id=(run_id := machine.new_run_id()))
    result = resume(run_id, plan=plan, store=store)
    assert result.context == {"said": "charged 5, says the receiver"}
    assert calls == ["crashed"]
    assert replay(run_id, plan=plan, store=store).identical


# -- kept results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fresh", "times"), [(False, 1), (True, 2)])
def test_a_success_is_kept_over_failed_attempts_unless_fresh(store, calls, fresh, times):
    failed = []

    async def handler(ctx, io):
        ctx["a"] = await io.step(functions.same, 1, fresh=fresh)
        if not failed:
            failed.append(1)
            raise RuntimeError

    plan = plan_of(handler)
    result = run(plan, store=store, config=TWICE)
    assert result.status == "completed"
    assert len(calls) == times
    failed.clear()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_failed_step_is_called_again_in_the_next_attempt(store, calls):
    functions.Flaky.left = 1

    async def handler(ctx, io):
        ctx["a"] = await io.step(functions.flaky)

    plan = plan_of(handler)
    result = run(plan, store=store, config=TWICE)
    assert result.context == {"a": "there"}
    assert len(calls) == 2
    assert replay(result.run_id, plan=plan, store=store).identical


# -- its own tries -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", [False, True])
def test_its_own_tries_are_one_fact_with_their_count(store, calls, here, monkeypatch):
    monkeypatch.setattr("machine.io.step_transport._FIRST_PAUSE", 0.0)
    functions.Flaky.left = 2
    flaky = machine.step(functions.flaky, retry_on=ConnectionError)

    async def handler(ctx, io):
        ctx["a"] = flaky() if here else await io.step(functions.flaky, retry_on=[ConnectionError])

    plan = plan_of(handler)
    result = run(plan, store=store)
    assert result.context == {"a": "there"}
    assert len(calls) == 3
    (fact,) = facts(store, result.run_id)
    assert fact.info["tries"] == "3"
    assert replay(result.run_id, plan=plan, store=store).identical


def test_its_tries_end_and_other_exceptions_are_not_tried_again(store, calls, monkeypatch):
    monkeypatch.setattr("machine.io.step_transport._FIRST_PAUSE", 0.0)
    functions.Flaky.left = 9

    async def handler(ctx, io):
        for options in ({"retry_on": ConnectionError, "tries": 2}, {"retry_on": KeyError}):
            with pytest.raises(ConnectionError, match="not yet"):
                await io.step(functions.flaky, **options)

    result = run(plan_of(handler), store=store)
    assert result.status == "completed", result.error
    assert len(calls) == 3


# -- timeouts ----------------------------------------------------------------------------------------------------


def test_an_async_step_is_cancelled_at_its_timeout(store, calls):
    ended = []

    async def slow():
        try:
            await anyio.sleep(60)
        finally:
            ended.append(1)

    async def handler(ctx, io):
        with pytest.raises(StepError, match=r"slow did not end within 0\.01 seconds") as raised:
            await io.step(slow, name="slow", timeout=0.01, ignore_args=["ended"])
        ctx["code"], ctx["retryable"] = raised.value.code, raised.value.retryable

    plan = plan_of(handler)
    result = run(plan, store=store)
    assert result.context == {"code": Code.STEP_TIMEOUT, "retryable": True}
    assert ended == [1]
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("here", [False, True])
def test_the_next_attempt_waits_for_the_thread_of_a_plain_step(store, calls, here):
    """No two attempts of a state run the function at once, in this process."""
    release, running, most = threading.Event(), [], []

    def slow():
        running.append(1)
        most.append(len(running))
        release.wait(30)
        running.pop()
        return "done"

    decorated = machine.step(slow, name="slow", timeout=0.01, ignore_args=["running", "most", "release"])

    async def handler(ctx, io):
        if most:
            assert not running
        else:
            asyncio.get_running_loop().call_later(0.1, release.set)
        ctx["said"] = decorated() if here else await io.step(decorated)

    result = run(plan_of(handler), store=store, config=TWICE)
    assert result.context == {"said": "done"}
    assert most == [1, 1]


def test_a_cut_attempt_leaves_its_thread_to_end_before_the_next(store, calls):
    release, running = threading.Event(), []

    def slow():
        running.append(1)
        release.wait(30)
        running.pop()
        return len(calls)

    async def handler(ctx, io):
        calls.append("attempt")
        assert not running
        if len(calls) == 1:
            threading.Timer(0.2, release.set).start()
        ctx["said"] = await io.step(slow, name="slow", ignore_args=["running", "release", "calls"])

    plan = plan_of(handler, timeout=0.05)
    result = run(
        plan, store=store, config=RunConfig(retry_policy=RetryPolicy(max_attempts=3), undeclared_io="allow")
    )
    assert result.status == "completed", result.error
    assert result.context == {"said": 2}


@pytest.mark.parametrize("by", ["its task", "a command"])
def test_a_run_that_waits_for_a_thread_can_be_cancelled(store, calls, by):
    release = threading.Event()

    def slow():
        calls.append("slow")
        release.wait(30)

    async def handler(ctx, io):
        await io.step(slow, name="slow", ignore_args=["calls", "release"])

    class Attempts(machine.Reporter):
        def entry(self, entry):
            if entry.event.type == "state_entered" and entry.event.attempt == 1:
                self.waits.set()

    plan = plan_of(handler, timeout=0.05)
    run_id = machine.new_run_id()

    async def cancelled():
        reporter = Attempts()
        reporter.waits = asyncio.Event()
        config = RunConfig(retry_policy=RetryPolicy(max_attempts=9))
        run = machine.aio.run(plan, store=store, run_id=run_id, config=config, reporter=reporter)
        task = asyncio.create_task(run)
        await reporter.waits.wait()
        await asyncio.sleep(0)
        if by == "a command":
            await machine.aio.cancel(run_id, store=store)
            return (await task).status
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        return (await machine.aio.cancel(run_id, store=store)).status

    try:
        assert asyncio.run(cancelled()) == "cancelled"
    finally:
        release.set()
    assert calls == ["slow"]


# -- other processes ---------------------------------------------------------------------------------------------


def test_a_function_in_another_process(store, calls):
    async def handler(ctx, io):
        one, two = (
            await io.step(functions.in_process, 4, on="process"),
            await io.step(functions.in_process, 5, on="process"),
        )
        with pytest.raises(functions.OwnError, match="there"):
            await io.step(functions.raises_in_process, on="process")
        point = await io.step(functions.point, 3, on="process")
        ctx["found"] = [one[1], two[1], point.x]
        ctx["pids"] = [one[0], two[0]]

    plan = plan_of(handler)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    assert result.context["found"] == [4, 5, 3]
    assert os.getpid() not in result.context["pids"]
    assert len(set(result.context["pids"])) == 1, "an idle process was not used again"
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_process_that_dies_fails_its_step(store, calls):
    async def handler(ctx, io):
        with pytest.raises(StepError, match=r"the process that ran .*:dies died") as raised:
            await io.step(functions.dies, on="process")
        ctx["retryable"] = raised.value.retryable
        ctx["next"] = (await io.step(functions.in_process, 1, on="process"))[1]

    result = run(plan_of(handler), store=store)
    assert result.context == {"retryable": True, "next": 1}


def test_a_process_is_killed_at_the_timeout_of_its_step(store, calls, tmp_path):
    async def handler(ctx, io):
        with pytest.raises(StepError, match="did not end within 3 seconds"):
            await io.step(functions.hangs_in_process, str(tmp_path / "pid"), on="process", timeout=3)

    result = run(plan_of(handler), store=store, config=RunConfig(undeclared_io="allow"))
    assert result.status == "completed", result.error
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_ends_with_the_one_that_started_it():
    process = StepProcess()
    try:
        process._process.stdin.close()  # as the system does it at the end of a process
        assert process._process.wait(timeout=60) == 1
    finally:
        process.kill()


def test_a_local_function_cannot_go_to_another_process(store):
    def local():
        return 1

    with pytest.raises(UsageError, match="cannot be imported by another process"):
        machine.step(local, name="local", on="process")


# -- the rest of the house ---------------------------------------------------------------------------------------


def test_a_fork_answers_from_its_past_and_takes_another_result(store, calls):
    async def handler(ctx, io):
        ctx["a"] = await io.step(functions.same, (1, 2))

    plan = Plan("steps")

    @plan.state("a.one", side_effects="read_only_io")
    async def one(ctx, io):
        ctx["a"] = list(await io.step(functions.same, (1, 2)))

    @plan.state("a.two")
    def two(ctx):
        ctx["sum"] = sum(ctx["a"])

    result = run(plan, store=store)
    (fact,) = facts(store, result.run_id)
    again = fork(result.run_id, plan=plan, store=store, at=fact.seq)
    assert again.result.context == {"a": [1, 2], "sum": 3}
    other = fork(result.run_id, plan=plan, store=store, at=fact.seq, set_facts={fact.event.key: [5, 6]})
    assert other.result.context == {"a": [5, 6], "sum": 11}
    assert calls == ["same"]


def test_a_dry_run_calls_steps_that_only_read_and_shows_an_effect(store, calls):
    plan = Plan("steps")

    @plan.state("a.one", side_effects="read_only_io")
    async def one(ctx, io):
        ctx["a"] = await io.step(functions.same, 4)

    @plan.state("a.two", **EFFECT)
    async def two(ctx, io):
        await io.step(functions.charge, ctx["a"])

    found = dry_run(plan, store=store)
    (effect,) = found.effects
    assert calls == ["same"]
    assert effect.namespace == "step"
    assert effect.request["args"] == {"amount": 4}


def test_a_dry_run_calls_no_function_that_may_do_anything_in_a_state_with_effects(store, calls):
    async def handler(ctx, io):
        await io.step(functions.charge, await io.step(functions.same, 4))

    found = dry_run(plan_of(handler, **EFFECT), store=store)
    (effect,) = found.effects
    assert effect.request["function"] == "tests.io.functions_of_steps:same"
    assert (found.states[0].action, calls) == ("known after apply", [])


def test_secrets_in_arguments_and_results_are_redacted(tmp_path, calls, monkeypatch):
    monkeypatch.setenv("PASS_PHRASE", "correct-horse-battery-91")

    async def handler(ctx, io):
        phrase = await io.secret("PASS_PHRASE")
        said = await io.step(functions.same, {"phrase": phrase})
        ctx["right"] = said["phrase"] == phrase
        with pytest.raises(ValueError, match="PASS_PHRASE"):
            await io.step(_reveals, phrase, name="reveals")

    plan = plan_of(handler)
    url = f"sqlite:///{tmp_path}/runs.db"
    with open_store(url) as store:
        result = run(plan, store=store)
        assert result.status == "completed", result.error
        assert result.context == {"right": True}
        assert replay(result.run_id, plan=plan, store=store).identical
    for path in tmp_path.iterdir():
        assert b"correct-horse" not in path.read_bytes()


def _reveals(phrase):
    raise ValueError(f"it was {phrase}")


def test_the_error_of_a_step_is_a_fact_of_the_kind_step(store, calls):
    async def handler(ctx, io):
        with pytest.raises(StepError):
            await io.step(functions.fails, "unkeepable")

    result = run(plan_of(handler), store=store)
    (fact,) = facts(store, result.run_id)
    assert isinstance(fact.event.outcome, FactError)
    assert fact.event.outcome.kind == "step"


def test_an_interrupted_attempt_pays_for_nothing_twice(store, calls):
    async def handler(ctx, io):
        ctx["a"] = await io.step(functions.same, 1)
        if len(calls) == 1:
            calls.append("stop")
            raise KeyboardInterrupt
        ctx["b"] = await io.step(functions.same, 2)

    plan = plan_of(handler)
    run_id = machine.new_run_id()
    with pytest.raises(KeyboardInterrupt):
        run(plan, store=store, run_id=run_id)
    result = resume(run_id, plan=plan, store=store)
    assert result.context == {"a": 1, "b": 2}
    assert calls == ["same", "stop", "same"]
    assert replay(run_id, plan=plan, store=store).identical
