"""Cleanup states run once, in order, whatever ends the work of a run; none of them changes how it ends."""

from __future__ import annotations

import threading
import time

import anyio
import attrs
import pytest

import machine
from machine import MachineError, Plan, RetryPolicy, RunConfig, replay, resume, run, verify
from machine.codec import decode_entry
from machine.config import FanOutJoin
from machine.errors import Code, PlanError
from machine.io.transport import BaseTransport
from machine.kernel.history import fold
from machine.limits import Limits

MODES = pytest.mark.parametrize("mode", [None, FanOutJoin(3)], ids=["sequential", "concurrent"])
STATES = 12


def config_of(mode):
    return RunConfig() if mode is None else RunConfig(execution_mode=mode)


def events(store, run_id):
    return [decode_entry(event.seq, event.data) for event in store.read_range(run_id)]


def entered(store, run_id):
    return [
        entry.event.state_id.partition(".")[2]
        for entry in events(store, run_id)
        if entry.event.type == "state_entered"
    ]


def identical(store, run_id, plan, **options):
    """Assert that a recording is sound and replays, and return its digest."""
    assert verify(run_id, store=store).problems == ()
    result = replay(run_id, plan=plan, store=store, **options)
    assert result.divergence is None
    return result.digest


def resumed(run_id, plan, store):
    """Resume a run to its end, as an operator who answers what became of effects that nobody knows of."""
    result = resume(run_id, plan=plan, store=store)
    while result.status == "suspended":
        machine.resolve(run_id, result.waits[0].key, store=store, outcome="done")
        result = resume(run_id, plan=plan, store=store)
    return result


class Receiver(BaseTransport):
    """A transport whose calls are counted by key; `answer` says what comes of one."""

    one_effect_per_key = True

    def __init__(self, answer=lambda request: "done"):
        self.answer = answer
        self.received = []

    def is_effect(self, namespace, request):
        return True

    is_certain_effect = is_effect

    def with_idempotency_key(self, namespace, request, key):
        return {"key": key, **request}

    async def perform(self, namespace, request):
        self.received.append(request["key"])
        return self.answer(request)


def steps(failing, receiver=None, *, chain=True):
    """Return a plan of 12 states with effects, of which one fails, and three cleanup states."""
    plan = Plan("steps", transports={"bank": receiver or Receiver()})
    before = []
    for number in range(STATES):

        def work(number=number):
            async def handle(ctx, io):
                ctx[f"at{number}"] = await io.now()
                await io.call("bank", {"do": number})
                if number == failing:
                    raise ValueError(f"step {number} fails")
                ctx[f"done{number}"] = True

            return handle

        follows = before[-1:] if chain or number % 3 else before[:1]
        state = plan.state(
            f"work.s{number}",
            after=follows,
            side_effects="apply_side_effect",
            idempotency=f"do-{number}",
        )(work())
        before.append(state)
    for name, wants in (("undo", "on_failure"), ("close", "always"), ("report", "on_failure")):

        def clean(name=name):
            async def handle(ctx, io, failure):
                ctx[name] = [await io.now() > 0, failure and failure.message]
                await io.call("bank", {"do": name})

            return handle

        plan.state(f"end.{name}", run=wants, side_effects="apply_side_effect", idempotency=f"{name}-key")(
            clean()
        )
    return plan


@MODES
@pytest.mark.parametrize("failing", range(STATES))
def test_cleanup_states_run_once_and_in_order_whichever_state_fails(store, mode, failing):
    receiver = Receiver()
    plan = steps(failing, receiver)
    result = run(plan, store=store, config=config_of(mode))

    assert (result.status, result.error.message) == ("failed", f"ValueError: step {failing} fails")
    assert entered(store, result.run_id) == [
        *(f"work.s{number}" for number in range(failing + 1)),
        *("end.undo", "end.close", "end.report"),
    ]
    assert receiver.received == [
        *(f"do-{number}" for number in range(failing + 1)),
        *("undo-key", "close-key", "report-key"),
    ]
    assert result.context["undo"] == result.context["report"] == [True, f"ValueError: step {failing} fails"]
    assert f"done{failing}" not in result.context
    assert identical(store, result.run_id, plan) == result.digest


@MODES
def test_after_success_only_those_that_always_run_do(store, mode):
    plan = steps(None)
    result = run(plan, store=store, config=config_of(mode))

    assert (result.status, result.error) == ("completed", None)
    assert entered(store, result.run_id)[-2:] == ["work.s11", "end.close"]
    assert result.context["close"] == [True, None]
    skipped = {
        e.event.state_id: e.event.reason
        for e in events(store, result.run_id)
        if e.event.type == "state_skipped"
    }
    assert skipped == {"steps.end.undo": "no_failure", "steps.end.report": "no_failure"}
    identical(store, result.run_id, plan)


@MODES
@pytest.mark.parametrize("failing", [0, 6, None])
def test_a_crash_anywhere_leads_to_the_same_end_with_each_effect_once(store, crashed_after, mode, failing):
    """As after a kill at every event: the cleanup too is done once by key, and its order stays."""
    receiver = Receiver()
    plan = steps(failing, receiver, chain=False)
    whole = run(plan, store=store, config=config_of(mode))
    head, sent = store.head_seq(whole.run_id), sorted(receiver.received)

    for length in range(1, head):
        prefix = crashed_after(store, whole.run_id, length)
        result = resumed(whole.run_id, plan, prefix)
        again = entered(prefix, whole.run_id)
        assert result.status == whole.status
        assert [name for name in dict.fromkeys(again) if name.startswith("end.")] == [
            name for name in entered(store, whole.run_id) if name.startswith("end.")
        ]
        identical(prefix, whole.run_id, plan)
    assert set(receiver.received) == set(sent)


@MODES
def test_the_cleanup_begins_on_what_has_completed(store, mode):
    plan = Plan("op")
    seen = {}

    @plan.state("a.one")
    def one(ctx):
        ctx["one"] = 1

    @plan.state("a.two", after=[one])
    def two(ctx):
        ctx["two"] = 2
        raise ValueError("no")

    @plan.state("a.three", after=[one])
    def three(ctx):
        ctx["three"] = 3

    @plan.state("z.end", run="on_failure")
    def end(ctx):
        seen.update({key: ctx[key] for key in ("one", "two", "three") if key in ctx})
        ctx["one"] = "changed"

    result = run(plan, store=store, config=config_of(mode))
    assert seen == ({"one": 1} if mode is None else {"one": 1, "three": 3})
    assert result.context == {**seen, "one": "changed"}
    identical(store, result.run_id, plan)


def test_of_states_that_conflict_the_later_one_in_the_plan_counts_for_the_cleanup(store):
    plan = Plan("op")

    @plan.state("a.one")
    def one(ctx):
        ctx["x"] = 1

    @plan.state("a.two")
    def two(ctx):
        ctx["x"] = 2

    @plan.state("z.end", run="always")
    def end(ctx, failure):
        ctx["found"] = [ctx["x"], failure.code]

    result = run(plan, store=store, config=config_of(FanOutJoin(2)))
    assert (result.status, result.error.code) == ("failed", Code.CONTEXT_CONFLICT)
    assert result.context["found"] == [2, Code.CONTEXT_CONFLICT]
    identical(store, result.run_id, plan)
    many = machine.schedules(result.run_id, plan=plan, store=store, count=5)
    assert many.identical


@MODES
def test_a_cleanup_state_runs_only_if_one_of_those_it_follows_has_begun(store, mode):
    plan = Plan("op")

    @plan.state("a.one")
    def one(ctx):
        ctx["one"] = 1

    @plan.state("a.two", after=[one])
    def two(ctx):
        raise ValueError("no")

    @plan.state("a.three", after=[two])
    def three(ctx):
        ctx["three"] = 3

    for state in (three, two, one):
        plan.state(f"undo.{state.id.rpartition('.')[2]}", run="on_failure", after=[state])(lambda ctx: None)

    result = run(plan, store=store, config=config_of(mode))
    assert entered(store, result.run_id)[2:] == ["undo.two", "undo.one"]
    skipped = [e.event.reason for e in events(store, result.run_id) if e.event.type == "state_skipped"]
    assert skipped == ["not_begun:op.a.three"]
    identical(store, result.run_id, plan)


@MODES
@pytest.mark.parametrize("fails", [False, True])
def test_the_failure_of_a_cleanup_state_is_told_and_changes_nothing(store, mode, fails):
    plan = Plan("op")

    @plan.state("a.work")
    def work(ctx):
        if fails:
            raise ValueError("no")

    @plan.state("z.one", run="always", retry=machine.RetryPolicy(2))
    def one(ctx):
        ctx["lost"] = 1
        raise RuntimeError("not cleaned")

    @plan.state("z.two", run="always", after=[one])
    def two(ctx):
        ctx["two"] = "lost" in ctx

    result = run(plan, store=store, config=config_of(mode))
    assert result.status == ("failed" if fails else "completed")
    assert result.error.code == (Code.HANDLER_ERROR if fails else Code.CLEANUP_FAILED)
    told = {"code": "handler_error", "message": "RuntimeError: not cleaned"}
    assert result.error.details["cleanup"] == {"op.z.one": told}
    assert result.context == {"two": False}
    assert entered(store, result.run_id) == ["a.work", "z.one", "z.one", "z.two"]
    assert (result.fork_at is None) is not fails
    identical(store, result.run_id, plan)


@MODES
def test_a_timeout_begins_the_cleanup(store, mode):
    plan = Plan("op")

    @plan.state("a.slow", timeout=0.05)
    async def slow(ctx, io):
        await anyio.sleep(30)

    @plan.state("z.end", run="on_failure")
    async def end(ctx, failure):
        ctx["why"] = failure.code

    result = run(plan, store=store, config=config_of(mode))
    assert (result.status, result.context) == ("failed", {"why": Code.STATE_TIMEOUT})
    identical(store, result.run_id, plan)


def waiting(begun, clean):
    """Return a plan whose work waits to be cancelled, and whose cleanup does `clean`."""
    plan = Plan("op")

    @plan.state("a.first")
    def first(ctx):
        ctx["first"] = 1

    @plan.state("a.work", after=[first])
    async def work(ctx, io):
        begun.set()
        await anyio.sleep(30)

    @plan.state("z.end", run="on_failure")
    async def end(ctx, io, failure):
        ctx["why"] = failure.code
        await clean(io)

    @plan.state("z.last", run="always")
    def last(ctx):
        ctx["last"] = True

    return plan


class Driver(threading.Thread):
    """Drives a run in a thread."""

    def __init__(self, drive):
        super().__init__(daemon=True)
        self.drive, self.result = drive, None
        self.start()

    def run(self):
        self.result = self.drive()


@MODES
def test_a_cancel_ends_the_work_and_the_run_is_cleaned_up(store, mode):
    begun = threading.Event()

    async def clean(io):
        await io.now()

    plan = waiting(begun, clean)
    run_id = str(machine.new_run_id())
    driver = Driver(lambda: run(plan, store=store, run_id=run_id, config=config_of(mode)))
    assert begun.wait(10)
    result = machine.cancel(run_id, store=store, timeout=20)
    driver.join(20)

    assert result.status == driver.result.status == "cancelled"
    assert driver.result.context == {"first": 1, "why": Code.RUN_CANCELLED, "last": True}
    identical(store, run_id, plan)


@MODES
def test_one_more_cancel_ends_the_cleanup_too(store, mode):
    begun, cleaning = threading.Event(), threading.Event()

    async def clean(io):
        cleaning.set()
        await anyio.sleep(30)

    plan = waiting(begun, clean)
    run_id = str(machine.new_run_id())
    driver = Driver(lambda: run(plan, store=store, run_id=run_id, config=config_of(mode)))
    assert begun.wait(10)
    store.post(run_id, "cancel", {})
    assert cleaning.wait(10)
    time.sleep(0.01)  # a message of the same millisecond as the beginning of the cleanup is not about it
    result = machine.cancel(run_id, store=store, timeout=20)
    driver.join(20)

    assert result.status == driver.result.status == "cancelled"
    assert entered(store, run_id) == ["a.first", "a.work", "z.end"]
    assert events(store, run_id)[-2].event.error.code == Code.RUN_CANCELLED
    identical(store, run_id, plan)


@MODES
def test_a_cancel_during_the_cleanup_of_a_failed_run_ends_it_failed(store, mode):
    cleaning = threading.Event()
    plan = Plan("op")

    @plan.state("a.work")
    def work(ctx):
        raise ValueError("no")

    @plan.state("z.end", run="on_failure")
    async def end(ctx, io):
        cleaning.set()
        await anyio.sleep(30)

    run_id = str(machine.new_run_id())
    driver = Driver(lambda: run(plan, store=store, run_id=run_id, config=config_of(mode)))
    assert cleaning.wait(10)
    time.sleep(0.01)
    result = machine.cancel(run_id, store=store, timeout=20)
    driver.join(20)
    assert result.status == "failed"
    assert result.error.message == "ValueError: no"
    identical(store, run_id, plan)


@MODES
def test_a_cancelled_run_that_nobody_drives_waits_for_a_driver_to_clean_up(store, crashed_after, mode):
    plan = steps(None)
    whole = run(plan, store=store, config=config_of(mode))
    prefix = crashed_after(store, whole.run_id, 12)  # within the second state or after it

    result = machine.cancel(whole.run_id, store=prefix)
    assert result.status == "running"
    begun = fold(events(prefix, whole.run_id))
    assert begun.cleanup.status == "cancelled"
    again = resumed(whole.run_id, plan, prefix)
    assert again.status == "cancelled"
    assert entered(prefix, whole.run_id)[-3:] == ["end.undo", "end.close", "end.report"]
    identical(prefix, whole.run_id, plan)


def test_a_second_cancel_ends_a_run_that_nobody_drives_without_its_cleanup(store, crashed_after):
    plan = steps(None)
    whole = run(plan, store=store)
    prefix = crashed_after(store, whole.run_id, 12)
    machine.cancel(whole.run_id, store=prefix)
    time.sleep(0.01)
    assert machine.cancel(whole.run_id, store=prefix).status == "cancelled"
    assert "end.undo" not in entered(prefix, whole.run_id)
    identical(prefix, whole.run_id, plan)


@MODES
def test_an_uncertain_effect_is_settled_before_the_cleanup(store, mode):
    receiver = Receiver()

    async def slowly(namespace, request):
        receiver.received.append(request["key"])
        if request["do"] == "pay":
            await anyio.sleep(30)
        return "done"

    receiver.perform = slowly
    plan = Plan("op", transports={"bank": receiver})

    @plan.state("a.pay", side_effects="apply_side_effect", idempotency="pay", timeout=0.05)
    async def pay(ctx, io):
        await io.call("bank", {"do": "pay"})

    @plan.state("z.refund", run="on_failure", side_effects="apply_side_effect", idempotency="refund")
    async def refund(ctx, io, failure):
        ctx["why"] = failure.code
        await io.call("bank", {"do": "refund"})

    result = run(plan, store=store, config=config_of(mode))
    assert result.status == "suspended"
    assert receiver.received == ["pay"]
    (wait,) = result.waits
    machine.resolve(result.run_id, wait.key, store=store, outcome="done")
    result = resume(result.run_id, plan=plan, store=store)
    assert (result.status, receiver.received) == ("failed", ["pay", "refund"])
    identical(store, result.run_id, plan)


def asking(*, fails=True):
    plan = Plan("op")

    @plan.state("a.work")
    def work(ctx):
        if fails:
            raise ValueError("no")

    @plan.state("z.ask", run="always")
    async def ask(ctx, io):
        ctx["allowed"] = (await io.approval("clean up?")).approved

    @plan.state("z.last", run="always")
    def last(ctx):
        ctx["last"] = True

    return plan


@MODES
@pytest.mark.parametrize("fails", [False, True])
def test_a_cleanup_state_may_wait(store, mode, fails):
    plan = asking(fails=fails)
    result = run(plan, store=store, config=config_of(mode))
    assert result.status == "suspended"
    identical(store, result.run_id, plan)
    machine.approve(result.run_id, store=store, by="ada")
    result = resume(result.run_id, plan=plan, store=store)
    assert result.status == ("failed" if fails else "completed")
    assert result.context == {"allowed": True, "last": True}
    identical(store, result.run_id, plan)


@MODES
@pytest.mark.parametrize("fails", [False, True])
def test_a_cleanup_that_waits_can_be_cancelled(store, mode, fails):
    plan = asking(fails=fails)
    run_id = run(plan, store=store, config=config_of(mode)).run_id
    time.sleep(0.01)
    result = machine.cancel(run_id, store=store)
    assert result.status == ("failed" if fails else "completed")
    assert entered(store, run_id) == ["a.work", "z.ask"]
    identical(store, run_id, plan)


@MODES
def test_a_cleanup_state_that_kills_its_driver_is_left_at_the_limit(store, crashed_after, mode):
    plan = Plan("op")

    @plan.state("a.work")
    def work(ctx):
        raise ValueError("no")

    @plan.state("z.kills", run="on_failure")
    def kills(ctx):
        ctx["kills"] = True

    @plan.state("z.last", run="always")
    def last(ctx):
        ctx["last"] = True

    config = config_of(mode)
    config = RunConfig(execution_mode=config.execution_mode, recoveries=1)
    whole = run(plan, store=store, config=config)
    at = next(e.seq for e in events(store, whole.run_id) if getattr(e.event, "state_id", "") == "op.z.kills")
    prefix = crashed_after(store, whole.run_id, at)  # its attempt is open, and its driver dead
    result = resume(whole.run_id, plan=plan, store=prefix)
    assert (result.status, result.context) == ("failed", {"last": True})
    assert result.skipped == ()
    assert list(result.error.details["cleanup"]) == ["op.z.kills"]
    identical(prefix, whole.run_id, plan)


def test_a_paranoid_run_makes_cleanup_attempts_twice_as_well(store):
    numbers = iter(range(100))
    plan = Plan("op")

    @plan.state("a.work")
    def work(ctx):
        raise ValueError("no")

    @plan.state("z.end", run="on_failure")
    def end(ctx, failure):
        ctx["n"] = [next(numbers), failure.code]

    result = run(plan, store=store, config=RunConfig(paranoid=True))
    assert result.error.details["cleanup"]["op.z.end"]["code"] == Code.NOT_DETERMINISTIC
    identical(store, result.run_id, plan)


@pytest.mark.parametrize(
    ("declare", "problem"),
    [
        (lambda plan, a, z: plan.state("b.b", after=[z])(lambda ctx: None), "follows op.z.z"),
        (lambda plan, a, z: plan.state("b.b")(lambda ctx: None), "declared after it"),
        (lambda plan, a, z: plan.state("b.b", run="never")(lambda ctx: None), "must be one of"),
        (lambda plan, a, z: plan.state("b.b", run="always", on_error="skip")(lambda ctx: None), "on_error"),
        (lambda plan, a, z: plan.state("b.b", on_error="stop")(lambda ctx: None), "must be one of"),
        (lambda plan, a, z: plan.state("b.b")(lambda ctx, failure: None), "asks for failure"),
    ],
    ids=["followed", "not last", "no such end", "both", "no such treatment", "failure"],
)
def test_a_plan_with_an_impossible_declaration_is_refused(declare, problem):
    plan = Plan("op")
    a = plan.state("a.a")(lambda ctx: None)
    z = plan.state("z.z", run="always", after=[a])(lambda ctx: None)
    with pytest.raises(PlanError, match=problem):
        declare(plan, a, z) and plan.graph


def test_a_plan_of_cleanup_states_alone_is_refused():
    plan = Plan("op")
    plan.state("z.z", run="always")(lambda ctx: None)
    with pytest.raises(PlanError) as refused:
        _ = plan.graph
    assert refused.value.code == Code.INVALID_CLEANUP


@pytest.mark.parametrize(
    "handler",
    [
        lambda ctx, io, rec, failure: failure.code,
        lambda failure: failure.code,
        lambda ctx, failure, io=None: failure.code,
        lambda ctx, *, failure: failure.code,
        lambda ctx, **given: given["failure"].code,
        lambda a, b, c: "handler_error",
    ],
    ids=["all", "alone", "between", "by name", "whatever", "three"],
)
def test_a_cleanup_handler_takes_what_it_names(store, handler):
    plan, seen = Plan("op"), []

    @plan.state("a.a")
    def a(ctx):
        raise ValueError("no")

    def clean(*args, **kwargs):
        seen.append(handler(*args, **kwargs))

    clean.__signature__ = __import__("inspect").signature(handler)
    plan.state("z.z", run="on_failure")(clean)
    result = run(plan, store=store)
    assert seen == ["handler_error"]
    assert "cleanup" not in (result.error.details or {})


def test_plans_without_cleanup_keep_their_ids():
    plan = Plan("op")
    plan.state("a.a")(lambda ctx: None)
    (state,) = plan.graph.shape()["states"]
    assert "run" not in state["meta"]
    assert "on_error" not in state["meta"]
    explicit = Plan("op")
    explicit.state("a.a", run="on_success", on_error="fail")(lambda ctx: None)
    assert explicit.graph.plan_id == plan.graph.plan_id


def test_machine_error_of_a_state_is_what_the_cleanup_is_given(store):
    plan = Plan("op")

    @plan.state("a.a")
    def a(ctx):
        raise machine.Failure("sold out", code="sold_out", details={"left": 0})

    @plan.state("z.z", run="on_failure")
    def z(ctx, failure):
        assert isinstance(failure, machine.errors.ErrorInfo)
        ctx["failure"] = [failure.code, failure.message, dict(failure.details)]

    result = run(plan, store=store)
    assert result.context == {"failure": ["sold_out", "sold out", {"left": 0}]}
    assert MachineError is machine.errors.MachineError


@MODES
def test_a_limit_that_is_used_up_begins_the_cleanup_and_does_not_bound_it(store, mode):
    receiver = Receiver()
    plan = steps(None, receiver)
    config = RunConfig(execution_mode=config_of(mode).execution_mode, limits=Limits(attempts=3, facts=100))
    result = run(plan, store=store, config=config)
    assert (result.status, result.error.code) == ("limit_exceeded", Code.LIMIT_EXCEEDED)
    assert entered(store, result.run_id) == [
        *(f"work.s{number}" for number in range(3)),
        *("end.undo", "end.close", "end.report"),
    ]
    assert result.context["undo"] == [True, result.error.message]
    identical(store, result.run_id, plan)


@MODES
def test_a_limit_reached_within_an_attempt_interrupts_it_and_then_cleans_up(store, mode):
    receiver = Receiver()
    plan = steps(None, receiver)
    config = RunConfig(execution_mode=config_of(mode).execution_mode, limits=Limits(facts=3))
    result = run(plan, store=store, config=config)
    assert result.status == "limit_exceeded"
    assert entered(store, result.run_id)[-3:] == ["end.undo", "end.close", "end.report"]
    identical(store, result.run_id, plan)


@MODES
def test_one_cancel_does_not_end_a_cleanup_that_waits(store, mode):
    """What began the cleanup is not taken for the cancel that ends it, by nobody who looks later."""
    begun = threading.Event()

    async def clean(io):
        await io.approval("clean up?")

    plan = waiting(begun, clean)
    run_id = str(machine.new_run_id())
    driver = Driver(lambda: run(plan, store=store, run_id=run_id, config=config_of(mode)))
    assert begun.wait(10)
    result = machine.cancel(run_id, store=store, timeout=20)
    driver.join(20)
    assert result.status == driver.result.status == "suspended"
    machine.approve(run_id, store=store)
    assert resume(run_id, plan=plan, store=store).status == "cancelled"
    identical(store, run_id, plan)


def test_a_run_that_goes_on_as_another_is_cleaned_up_first(store):
    plan = Plan("op")

    @plan.state("a.work")
    def work(ctx):
        return machine.StateOutcome(next_run={"n": ctx["n"] + 1} if ctx["n"] < 2 else None)

    @plan.state("z.close", run="always")
    def close(ctx, failure):
        ctx["closed"] = [ctx["n"], failure]

    result = run(plan, store=store, input={"n": 0})
    assert (result.status, result.context) == ("completed", {"n": 2, "closed": [2, None]})
    segments = [row.run_id for row in store.list_runs(limit=10, segments=True).rows]
    assert len(segments) == 3
    for run_id in segments:
        assert entered(store, run_id) == ["a.work", "z.close"]
        identical(store, run_id, plan)


def test_a_cleanup_state_cannot_go_on_as_another_run(store):
    plan = Plan("op")

    @plan.state("a.work")
    def work(ctx):
        ctx["done"] = True

    @plan.state("z.close", run="always")
    def close(ctx):
        return machine.StateOutcome(next_run={})

    result = run(plan, store=store)
    assert (result.status, result.error.code) == ("completed", Code.CLEANUP_FAILED)
    assert "cleanup state" in result.error.details["cleanup"]["op.z.close"]["message"]


def slow_to_clean(mode):
    plan, config = Plan("slow"), attrs.evolve(config_of(mode), limits=Limits(cleanup=0.15))

    @plan.state("a.work")
    def work(ctx):
        raise ValueError("broken")

    @plan.state("z.quick", run="on_failure")
    async def quick(ctx, io):
        ctx["quick"] = await io.now()

    @plan.state("z.slow", run="on_failure", after=[quick], retry=RetryPolicy(3))
    async def slow(ctx, io):
        await io.sleep(40)

    @plan.state("z.last", run="always", after=[slow], timeout=30)
    def last(ctx, io):
        io.sleep(40)

    return plan, config


@MODES
def test_the_cleanup_has_a_limit_of_its_own(store, mode):
    plan, config = slow_to_clean(mode)
    result = run(plan, store=store, config=config)
    assert (result.status, result.error.code) == ("failed", Code.HANDLER_ERROR)
    assert "quick" in result.context
    cut = result.error.details["cleanup"]
    assert {state: error["code"] for state, error in cut.items()} == {
        "slow.z.slow": Code.STATE_TIMEOUT,
        "slow.z.last": Code.STATE_TIMEOUT,
    }
    assert "the cleanup has taken its limit of 0.15 s" in cut["slow.z.last"]["message"]
    assert entered(store, result.run_id) == ["a.work", "z.quick", "z.slow", "z.last"]  # and none is retried
    assert identical(store, result.run_id, plan) == result.digest


@MODES
def test_a_cleanup_within_its_limit_is_left_alone_whatever_the_work_took(store, mode):
    plan, config = Plan("p"), attrs.evolve(config_of(mode), limits=Limits(cleanup=5))

    @plan.state("a.work")
    async def work(ctx, io):
        await anyio.sleep(0.05)

    @plan.state("z.clean", run="always")
    async def clean(ctx, io):
        ctx["clean"] = True

    result = run(plan, store=store, config=attrs.evolve(config, undeclared_io="allow"))
    assert (result.status, result.context) == ("completed", {"clean": True})
    assert identical(store, result.run_id, plan) == result.digest


def test_the_time_of_a_cleanup_goes_on_after_a_crash(store, crashed_after):
    plan, config = slow_to_clean(None)
    whole = run(plan, store=store, config=config)
    for seq in range(1, whole.head_seq):
        left = crashed_after(store, whole.run_id, seq)
        again = resume(whole.run_id, plan=plan, store=left)
        assert (again.status, again.error.code) == ("failed", Code.HANDLER_ERROR)
        assert identical(left, whole.run_id, plan) == again.digest
