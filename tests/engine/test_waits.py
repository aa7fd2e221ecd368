"""Handlers that wait: what puts an attempt away, what lets it go on, and what a replay makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import machine
from machine import Approval, Plan, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader, start_and_resume
from machine.errors import Code, OtherIoError, StateError, StepError, UsageError, WaitTimeoutError
from machine.events import FactRecorded, RunSuspended, WaitBegun
from machine.io import parked_tasks
from machine.stores import MemoryStore, open_store
from machine.waits import ApprovalWait

YES = {"approved": True, "by": "ada", "comment": "fine", "value": {"most": 3}}


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(parked_tasks, "WAIT_GRACE", 0.05)
    monkeypatch.setattr(parked_tasks, "_LOOK_SECONDS", 0.01)


@pytest.fixture(params=[None, 2], ids=["sequential", "concurrent"])
def config(request):
    return RunConfig() if request.param is None else RunConfig(execution_mode=FanOutJoin(request.param))


def plan_of(handler: Any, **options: Any) -> Plan:
    plan = Plan("waits")
    plan.state("step.wait", **options)(handler)
    return plan


def events(store: Any, run_id: str, kind: type | None = None) -> list[Any]:
    found = [entry.event for entry, _ in run_reader.entries(store, run_id)]
    return found if kind is None else [event for event in found if isinstance(event, kind)]


def approve(store: Any, result: Any, key: str | None = None, **answer: Any) -> None:
    key = key or result.waits[0].key
    store.post(result.run_id, "answer", {"key": key, "answer": {**YES, **answer}})


def signal(store: Any, result: Any, name: str, value: Any) -> None:
    store.post(result.run_id, "signal", {"name": name, "value": value})


def replayed(plan: Plan, store: Any, result: Any) -> None:
    found = machine.replay(result.run_id, plan=plan, store=store)
    assert found.identical, found.divergence
    assert (found.digest, found.status, found.events) == (result.digest, result.status, result.head_seq)


def test_a_handler_waits_for_an_approval_and_goes_on_with_it(tmp_path, config):
    calls = []

    async def handler(ctx, io):
        ctx["before"] = await io.now()
        calls.append("before")
        decision = await io.approval("Refund?", data={"amount": 30}, key="refund")
        ctx["decision"] = [decision.approved, decision.by, decision.comment, decision.value]
        ctx["after"] = await io.now()

    plan = plan_of(handler)
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        result = machine.run(plan, store=store, config=config)
        assert (result.status, result.waits) == ("suspended", (ApprovalWait("refund", "waits.step.wait"),))
        assert store.lease_of(result.run_id) is None
        replayed(plan, store, result)
        assert machine.resume(result.run_id, plan=plan, store=store) == result
        approve(store, result)
        result = machine.resume(result.run_id, plan=plan, store=store)
        assert result.status == "completed"
        assert result.context["decision"] == [True, "ada", "fine", {"most": 3}]
        assert result.context["before"] <= result.context["after"]
        replayed(plan, store, result)
        assert len(events(store, result.run_id, WaitBegun)) == 1
    assert calls == ["before"] * 5  # with the look at a suspended attempt before it goes on


def test_a_plain_handler_waits_too_and_its_finally_blocks_run(store):
    ended = []

    def handler(ctx, io):
        try:
            decision = io.approval("Go on?")
        finally:
            ended.append(1)
        ctx["by"] = decision.by

    plan = plan_of(handler)
    result = machine.run(plan, store=store)
    assert (result.status, ended) == ("suspended", [1])
    approve(store, result)
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert (result.context, ended) == ({"by": "ada"}, [1, 1, 1])
    replayed(plan, store, result)


def test_except_exception_does_not_swallow_the_end_of_an_attempt_that_waits(store):
    async def handler(ctx, io):
        try:
            await io.approval("Go on?")
        except Exception:  # noqa: BLE001 - what handlers do
            ctx["wrong"] = True

    result = machine.run(plan_of(handler), store=store)
    assert result.status == "suspended"


def test_whatever_a_handler_makes_of_it_its_attempt_is_suspended(store):
    refused = []

    async def handler(ctx, io, rec):
        try:
            ctx["by"] = (await io.approval("Go on?")).by
        except BaseException:
            if "by" in ctx:
                raise
            for use in (io.now, lambda: rec.emit(machine.DomainEvent("seen"))):
                try:
                    await use()
                except BaseException as exc:  # noqa: BLE001 - the worst that a handler does
                    refused.append(type(exc).__name__)
            raise ValueError("made of it") from None

    plan = plan_of(handler)
    result = machine.run(plan, store=store)
    assert (result.status, refused) == ("suspended", ["PutAway", "PutAway"])
    approve(store, result)
    assert machine.resume(result.run_id, plan=plan, store=store).context == {"by": "ada"}


def test_a_signal_that_came_first_is_there_when_it_is_waited_for(store):
    plan = Plan("waits")

    @plan.state("step.ask")
    async def ask(ctx, io):
        await io.approval("Go on?", key="go")

    @plan.state("step.hear", after=[ask])
    async def hear(ctx, io):
        ctx["heard"] = [await io.wait_signal("paid"), await io.wait_signal("paid")]

    result = machine.run(plan, store=store)
    signal(store, result, "paid", 1)
    signal(store, result, "lost", 0)
    signal(store, result, "paid", 2)
    approve(store, result)
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.context == {"heard": [1, 2]}
    assert not events(store, result.run_id, RunSuspended)[1:]
    replayed(plan, store, result)


def test_a_time_limit_that_runs_out_is_an_error_of_its_own(store):
    store.clock = lambda: now[0]
    now = [1_000]

    async def handler(ctx, io):
        try:
            await io.approval("Go on?", timeout=60)
        except WaitTimeoutError as exc:
            ctx["late"] = exc.code
            ctx["again"] = exc.info.retryable

    plan = plan_of(handler)
    result = machine.run(plan, store=store)
    assert result.waits[0].due_ms == 61_000
    now[0] = 60_999
    assert machine.resume(result.run_id, plan=plan, store=store).status == "suspended"
    now[0] = 61_000
    approve(store, result)
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.context == {"late": "wait_timed_out", "again": False}
    replayed(plan, store, result)


def test_a_long_sleep_puts_the_attempt_away_and_a_short_one_does_not(store):
    store.clock = lambda: now[0]
    now = [1_000]

    async def handler(ctx, io):
        await io.sleep(0.001)
        await io.sleep(3600)
        await io.sleep_until(0)
        ctx["now"] = await io.now()

    plan = plan_of(handler)
    result = machine.run(plan, store=store)
    assert result.waits[0].due_ms == 3_601_000
    now[0] = 10**13
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.context == {"now": 10**13}
    namespaces = [fact.namespace for fact in events(store, result.run_id, FactRecorded)]
    assert namespaces == ["clock.sleep", "wait.timer", "wait.timer", "clock.now"]
    replayed(plan, store, result)


def test_racing_waits_go_on_in_the_order_of_their_answers(store):
    async def handler(ctx, io):
        order = []

        async def wait(key):
            order.append((await io.approval("Go on?", key=key)).value)
            order.append(await io.uuid() and key)

        await asyncio.gather(*map(wait, "abc"))
        ctx["order"] = order

    plan = plan_of(handler)
    result = machine.run(plan, store=store)
    assert [wait.key for wait in result.waits] == ["a", "b", "c"]
    approve(store, result, "b", value=1)
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert [wait.key for wait in result.waits] == ["a", "c"]
    replayed(plan, store, result)
    approve(store, result, "c", value=2)
    approve(store, result, "a", value=3)
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert (result.status, result.error) == ("completed", None)
    assert result.context["order"] == [1, "b", 2, 3, "c", "a"]
    replayed(plan, store, result)


BAD = {
    "no text": (lambda io: io.approval(3), OtherIoError, Code.IO_INVALID_REQUEST),
    "an empty prompt": (lambda io: io.approval(""), OtherIoError, Code.IO_INVALID_REQUEST),
    "no JSON": (lambda io: io.approval("?", data={1}), machine.errors.CanonicalError, Code.NOT_JSON),
    "no time": (lambda io: io.approval("?", timeout=0), OtherIoError, Code.IO_INVALID_REQUEST),
    "infinite": (lambda io: io.wait_signal("a", timeout=float("inf")), OtherIoError, Code.IO_INVALID_REQUEST),
    "a reserved key": (lambda io: io.approval("?", key="@a"), machine.errors.IdError, Code.INVALID_ID),
    "a long name": (lambda io: io.wait_signal("a" * 257), OtherIoError, Code.IO_INVALID_REQUEST),
    "a bad correlation": (
        lambda io: io.wait_signal("a", correlation=""),
        OtherIoError,
        Code.IO_INVALID_REQUEST,
    ),
    "negative": (lambda io: io.sleep(-1), OtherIoError, Code.IO_INVALID_REQUEST),
    "10,000 years": (lambda io: io.sleep_until(400_000_000_000_000), OtherIoError, Code.IO_INVALID_REQUEST),
    "no float": (lambda io: io.sleep_until(10**400), OtherIoError, Code.IO_INVALID_REQUEST),
    "a length that is no float": (lambda io: io.sleep(10**400), OtherIoError, Code.IO_INVALID_REQUEST),
    "no number": (lambda io: io.sleep_until(float("nan")), OtherIoError, Code.IO_INVALID_REQUEST),
    "a transport's namespace": (
        lambda io: io.call("wait.approval", {}),
        OtherIoError,
        Code.IO_UNKNOWN_NAMESPACE,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_wait_is_refused_and_nothing_is_written(store, name):
    call, kind, code = BAD[name]

    async def handler(ctx, io):
        with pytest.raises(kind) as refused:
            await call(io)
        ctx["code"] = refused.value.code

    result = machine.run(plan_of(handler), store=store)
    assert result.context == {"code": code}
    assert len(events(store, result.run_id)) == 4


async def waits_in_step(io):
    await io.approval("?")


def test_a_wait_in_a_step_or_with_an_open_stream_is_refused(store, tmp_path):
    (tmp_path / "data").write_bytes(bytes(100_000))

    async def handler(ctx, io):
        found = []
        with pytest.raises(StepError) as refused:
            await io.step(waits_in_step, io, ignore_args="io")
        found.append(refused.value.code)
        async with io.open_file(tmp_path / "data", piece_bytes=10_000):
            with pytest.raises(StateError) as refused:
                await io.approval("?")
        found.append(refused.value.code)
        ctx["codes"] = found

    result = machine.run(plan_of(handler), store=store)
    assert result.context == {"codes": [Code.WAIT_NOT_HERE] * 2}


def test_the_answer_is_a_value():
    assert Approval(approved=True) == Approval(approved=True, by=None, comment=None, value=None)
    assert machine.results.Approval is Approval


@pytest.fixture
def store():
    with MemoryStore() as opened:
        yield opened


def test_a_sibling_goes_on_while_a_state_waits_and_the_answer_is_heard_meanwhile(store):
    plan = Plan("waits")
    go_on = asyncio.Event()

    @plan.state("step.ask")
    async def ask(ctx, io):
        ctx["by"] = (await io.approval("Go on?", key="go")).by
        go_on.set()

    @plan.state("step.work")
    async def work(ctx, io):
        ctx["began"] = await io.now()
        if io.performs:  # it ends only after the other state has, which is the test
            store.post(posted[0], "answer", {"key": "go", "answer": YES})
            await asyncio.wait_for(go_on.wait(), 20)

    posted = [str(machine.new_run_id())]
    config = RunConfig(execution_mode=FanOutJoin(2))
    result = machine.run(plan, store=store, config=config, run_id=posted[0])
    assert (result.status, result.context["by"]) == ("completed", "ada")
    assert not events(store, result.run_id, RunSuspended)
    replayed(plan, store, result)


def test_a_driver_waits_in_its_process_as_long_as_it_is_asked_to(store):
    plan = plan_of(asks)

    async def main():
        async with asyncio.TaskGroup() as group:
            run_id = str(machine.new_run_id())
            running = group.create_task(machine.aio.run(plan, store=store, run_id=run_id, wait=None))
            while not store.run_exists(run_id) or not events(store, run_id, WaitBegun):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
            assert store.lease_of(run_id) is not None
            store.post(run_id, "answer", {"key": "go", "answer": YES})
        return running.result()

    result = asyncio.run(main())
    assert result.context == {"by": "ada"}
    assert not events(store, result.run_id, RunSuspended)
    assert machine.run(plan, store=store, wait=0.05).status == "suspended"


async def asks(ctx, io):
    ctx["by"] = (await io.approval("Go on?", key="go")).by


def test_a_test_needs_no_patience(store, config):
    async def handler(ctx, io):
        ctx["began"] = await io.now()
        await io.sleep(90 * 86400)
        ctx["approved"] = [
            (await io.approval("?", key="one")).approved,
            (await io.approval("?", key="two")).comment,
        ]
        ctx["paid"] = await io.wait_signal("paid")
        with pytest.raises(WaitTimeoutError):
            await io.wait_signal("never", timeout=86400)
        ctx["ended"] = await io.now()

    plan = plan_of(handler)
    answers = {"one": True, "two": {"approved": False, "comment": "no"}, "paid": [1]}
    result = machine.run(plan, store=store, config=config, clock="skip", answers=answers)
    assert (result.status, result.error) == ("completed", None)
    assert result.context["approved"] == [True, "no"]
    assert result.context["paid"] == [1]
    assert result.context["ended"] >= result.context["began"] + 91 * 86400 * 1000
    assert not events(store, result.run_id, RunSuspended)
    replayed(plan, store, result)


def test_an_answer_in_advance_may_name_the_state(store):
    result = machine.run(
        plan_of(asks), store=store, answers={"waits.step.wait": {"approved": True, "by": "bo"}}
    )
    assert result.context == {"by": "bo"}


@pytest.mark.parametrize(
    "options",
    [
        {"wait": -1},
        {"wait": True},
        {"wait": float("nan")},
        {"clock": "fast"},
        {"answers": [1]},
        {"answers": {"go": {1}}},
        {"answers": {"go": "AKIA" + "IOSFODNN7EXAMPLE"}},
    ],
)
def test_a_bad_way_to_wait_is_refused_before_anything_is_written(store, options):
    with pytest.raises(machine.MachineError) as refused:
        machine.run(plan_of(asks), store=store, **options)
    assert isinstance(refused.value, UsageError | machine.errors.CanonicalError)
    assert not store.list_runs().rows


@pytest.mark.parametrize("given", ["yes", {"approved": 1}, {"by": "ada"}, {"approved": True, "at": 1}])
def test_a_bad_answer_in_advance_leaves_the_run_as_it_is(store, given):
    with pytest.raises(UsageError):
        machine.run(plan_of(asks), store=store, answers={"go": given})
    (row,) = store.list_runs().rows
    assert machine.resume(row.run_id, plan=plan_of(asks), store=store).status == "suspended"


def test_a_wait_in_a_transaction_is_refused_and_after_it_is_not(store, tmp_path):
    import sqlite3

    plan = Plan("waits", clients=["sqlite3"])
    path = str(tmp_path / "data.db")
    with sqlite3.connect(path) as made:
        made.execute("create table seen (n)")

    @plan.state("step.wait", side_effects="apply_side_effect", idempotency="seen")
    def handler(ctx, io):
        connection = sqlite3.connect(path)
        connection.execute("insert into seen values (1)")
        with pytest.raises(StateError) as refused:
            io.approval("?", key="go")
        connection.commit()
        ctx["by"] = io.approval("?", key="go").by
        connection.execute("insert into seen values (2)")
        connection.commit()
        ctx["code"] = refused.value.code
        ctx["seen"] = len(connection.execute("select n from seen").fetchall())
        connection.close()

    result = machine.run(plan, store=store)
    assert result.status == "suspended", result.error
    approve(store, result, "go")
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert (result.status, result.error) == ("completed", None)
    assert result.context == {"by": "ada", "code": Code.WAIT_NOT_HERE, "seen": 2}
    replayed(plan, store, result)


def test_a_wait_in_a_reconcile_function_is_refused(store, scripted):
    found = []

    async def look(ctx, io, effect):
        with pytest.raises(StateError) as refused:
            await io.approval("?")
        found.append(refused.value.code)
        return {"done": True}

    def crash(request):
        raise KeyboardInterrupt

    plan = Plan("waits", transports={"mail": scripted(crash, effect=True)})

    @plan.state(
        "step.wait",
        side_effects="apply_side_effect",
        idempotency="k",
        reconcile=look,
        on_uncertain="reconcile",
    )
    async def handler(ctx, io):
        await io.call("mail", {})

    with pytest.raises(KeyboardInterrupt):
        machine.run(plan, store=store)
    (row,) = store.list_runs().rows
    machine.resume(row.run_id, plan=plan, store=store)
    assert found == [Code.WAIT_NOT_HERE]


def test_a_secret_in_a_question_is_not_stored(store, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "tok-4f9a8e7d6c5b4a39f1")

    async def handler(ctx, io):
        token = await io.secret("API_TOKEN")
        await io.approval(f"Use {token}?", data={"password": "hunter2-correct-horse-9"})

    plan = plan_of(handler)
    result = machine.run(plan, store=store)
    assert result.status == "suspended"
    stored = b"".join(data for _, data in store._contents.artifacts.values())
    assert b"tok-4f9a8e7d6c5b4a39f1" not in stored
    assert b"hunter2-correct-horse-9" not in stored
    replayed(plan, store, result)
    approve(store, result)
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.status == "completed", result.error
    replayed(plan, store, result)


def test_a_signal_by_correlation_is_taken_once(store):
    async def handler(ctx, io):
        ctx["paid"] = await io.wait_signal("paid", correlation=ctx["order"])

    plan = plan_of(handler)
    first, second = (machine.run(plan, store=store, input={"order": "7"}) for _ in range(2))
    store.post_signal("paid", "8", "no")
    store.post_signal("paid", "7", 1)
    first = machine.resume(first.run_id, plan=plan, store=store)
    second = machine.resume(second.run_id, plan=plan, store=store)
    assert (first.status, first.context["paid"], second.status) == ("completed", 1, "suspended")
    store.post_signal("paid", "7", 2)
    second = machine.resume(second.run_id, plan=plan, store=store)
    assert second.context["paid"] == 2
    replayed(plan, store, second)


def test_time_never_goes_back_behind_an_answer(store, monkeypatch):
    store.clock = lambda: 10**13

    async def handler(ctx, io):
        await io.sleep(61)
        ctx["now"] = await io.now()

    plan = plan_of(handler)
    result = machine.run(plan, store=store, clock="skip")
    assert result.context["now"] >= 10**13 + 61_000
    times = [entry.ts_millis for entry, _ in run_reader.entries(store, result.run_id)]
    assert times == sorted(times)


def test_a_run_that_waits_in_its_process_can_be_cancelled(store, config):
    async def main():
        run_id = str(machine.new_run_id())
        running = asyncio.create_task(
            machine.aio.run(plan_of(asks), store=store, run_id=run_id, wait=None, config=config)
        )
        while not store.run_exists(run_id) or not events(store, run_id, WaitBegun):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        await machine.aio.cancel(run_id, store=store)
        return await running

    assert asyncio.run(main()).status == "cancelled"


def counted(calls, word):
    calls.append(word)
    return word


def test_streams_steps_and_errors_before_a_wait_are_given_again_and_not_made(store, tmp_path, config):
    path, calls = tmp_path / "data", []
    path.write_bytes(bytes(range(256)) * 400)

    async def handler(ctx, io, rec):
        ctx["word"] = await io.step(counted, calls, "one", ignore_args="calls")
        async with io.open_file(path, piece_bytes=20_000) as file:
            ctx["size"] = sum([len(piece) async for piece in file])
        with pytest.raises(OtherIoError):
            await io.read_file(tmp_path / "missing")
        await rec.emit(machine.DomainEvent("noted", {"n": 1}))
        ctx["by"] = (await io.approval("?", key="go")).by
        ctx["again"] = await io.step(counted, calls, "two", ignore_args="calls")

    plan = plan_of(handler)
    result = machine.run(plan, store=store, config=config)
    assert (result.status, calls) == ("suspended", ["one"])
    path.unlink()
    (tmp_path / "missing").write_text("here now")
    approve(store, result, "go")
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert (result.status, result.error, calls) == ("completed", None, ["one", "two"])
    assert result.context["size"] == 102_400
    replayed(plan, store, result)


def test_a_driver_that_cannot_replay_does_not_go_on(store):
    result = machine.run(plan_of(asks), store=store)
    approve(store, result, "go")
    with pytest.raises(UsageError, match="needs a replay"):
        asyncio.run(start_and_resume.resume(result.run_id, plan=plan_of(asks), store=store))
    assert machine.resume(result.run_id, plan=plan_of(asks), store=store).status == "completed"


class Unused(machine.Reporter):
    """A reporter that notes which answers no wait has taken."""

    def __init__(self):
        self.said = []

    def unused_answers(self, names, waits):
        self.said.append((names, waits))


def of_two(io_calls=2):
    async def handler(ctx, io):
        ctx["by"] = (await io.approval("Refund?", key="refund")).by
        if io_calls > 1:
            ctx["paid"] = await io.wait_signal("paid")

    return plan_of(handler)


def test_an_answer_under_a_wrong_key_is_reported_with_the_keys_that_there_were(store, caplog):
    seen = Unused()
    result = machine.run(of_two(), store=store, answers={"refnud": True}, reporter=seen)
    assert (result.status, seen.said) == ("suspended", [(["refnud"], ["refund"])])
    machine.run(of_two(), store=store, answers={"refund": True, "paied": 1})
    assert caplog.messages == ["nothing in the run has taken the answer 'paied': it waited for refund, paid"]


def test_an_answer_that_an_earlier_driver_has_used_is_not_reported(store):
    seen, answers = Unused(), {"refund": True}
    result = machine.run(of_two(), store=store, answers=answers, reporter=seen)
    signal(store, result, "paid", 1)
    result = machine.resume(result.run_id, plan=of_two(), store=store, answers=answers, reporter=seen)
    assert (result.status, seen.said) == ("completed", [])


def test_an_answer_by_the_id_of_its_state_is_not_reported(store):
    seen = Unused()
    machine.run(of_two(1), store=store, answers={"waits.step.wait": True}, reporter=seen)
    assert seen.said == []


def test_a_secret_in_an_answer_in_advance_is_refused_as_an_answer(store):
    with pytest.raises(UsageError, match="an answer may hold no secret") as refused:
        machine.run(
            of_two(), store=store, answers={"paid": {"key": "ghp_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5"}}
        )
    assert refused.value.code == Code.SECRET_IN_ANSWER
    assert store.list_runs().rows == []
