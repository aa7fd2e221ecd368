"""Child runs: one child whatever happens, its outcome is a fact, and an end goes down the tree."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from typing import Any

import anyio
import pytest
from crashes import CommittedStore

import machine
from machine import Plan, RetryPolicy, RunConfig
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import Code, OtherIoError, PlanError, WaitTimeoutError
from machine.events import FactRecorded, RunCompleted, StateEntered, WaitBegun
from machine.io import parked_tasks
from machine.results import ChildResult
from machine.stores import MemoryStore
from machine.waits import ChildWait


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(parked_tasks, "WAIT_GRACE", 0.05)
    monkeypatch.setattr(parked_tasks, "_LOOK_SECONDS", 0.01)


@pytest.fixture
def store():
    with MemoryStore() as store:
        yield store


@pytest.fixture(params=[None, 2], ids=["sequential", "concurrent"])
def config(request):
    return RunConfig() if request.param is None else RunConfig(execution_mode=FanOutJoin(request.param))


def plan_of(name: str, handler: Any, **options: Any) -> Plan:
    plan = Plan(name)
    plan.state("step.only", **options)(handler)
    return plan


def events(store: Any, run_id: str, kind: type | None = None) -> list[Any]:
    found = [entry.event for entry, _ in run_reader.entries(store, run_id)]
    return found if kind is None else [event for event in found if isinstance(event, kind)]


def runs(store: Any) -> dict[str, list[Any]]:
    """Return the rows of the runs of a store, by op."""
    found: dict[str, list[Any]] = {}
    for row in reversed(store.list_runs().rows):
        found.setdefault(row.op_id, []).append(row)
    return found


def only(store: Any, op: str) -> Any:
    (row,) = runs(store)[op]
    return row


def approve(store: Any, run_id: str, key: str = "ask") -> None:
    store.post(run_id, "answer", {"key": key, "answer": {"approved": True, "by": "ada"}})


def replayed(plan: Plan, store: Any, result: Any) -> None:
    found = machine.replay(result.run_id, plan=plan, store=store)
    assert found.identical, found.divergence
    assert (found.digest, found.status, found.events) == (result.digest, result.status, result.head_seq)


async def doubles(ctx, io):
    ctx["twice"] = ctx["n"] * 2
    ctx["now"] = await io.now()


async def asks(ctx, io):
    decision = await io.approval("Go on?", key="ask")
    ctx["by"] = decision.by


async def fails(ctx, io):
    raise ValueError("no such price")


def parent_of(*plans: Plan, name: str = "parent", **options: Any) -> Plan:
    """Return a plan that runs some children, one after the other, and keeps what became of them."""

    async def handler(ctx, io):
        for plan in plans:
            child = await io.run_child(plan, {"n": 2}, **options)
            ctx[plan.op_id] = [child.status, dict(child.context), child.run_id]

    return plan_of(name, handler)


def test_a_child_is_a_run_of_its_own_and_its_outcome_is_a_fact(store, config):
    child, seen = plan_of("child", doubles), []

    async def handler(ctx, io):
        seen.append(await io.run_child(child, {"n": 21}))
        ctx["twice"] = seen[-1].context["twice"]

    plan = plan_of("parent", handler)
    result = machine.run(plan, store=store, config=config)
    assert (result.status, result.context) == ("completed", {"twice": 42})
    row = only(store, "child")
    assert seen == [ChildResult("completed", seen[0].context, seen[0].digest, row.run_id)]
    assert row.status == "completed"
    first, started = run_reader.first_entry(store, row.run_id)
    (begun,) = events(store, result.run_id, WaitBegun)
    assert (first.info["parent"], first.info["parent_key"]) == (result.run_id, begun.key)
    assert run_reader.manifest_of(store, started).run_config == config
    own = machine.replay(row.run_id, plan=child, store=store)
    assert (own.identical, own.digest) == (True, seen[0].digest)
    replayed(plan, store, result)
    assert seen == [seen[0]] * 2
    assert machine.verify(result.run_id, store=store).ok
    assert machine.verify(row.run_id, store=store).ok
    assert store.lease_of(row.run_id) is None


def test_the_wait_is_durable_before_the_child_begins_and_its_id_follows_from_it(store):
    seen = []

    async def looks(ctx, io):
        parent = only(store, "parent").run_id
        seen.append([type(event).__name__ for event in events(store, parent)])

    result = machine.run(parent_of(plan_of("child", looks)), store=store)
    assert seen == [["RunStarted", "StateEntered", "WaitBegun"]]
    (entry,) = [e for e, _ in run_reader.entries(store, result.run_id) if isinstance(e.event, WaitBegun)]
    child = entry.info["child"]
    assert child == only(store, "child").run_id
    assert int(child.replace("-", "")[:12], 16) == pytest.approx(entry.ts_millis, abs=1000)
    assert child[14] == "7"


def test_a_plain_handler_has_children_too(store):
    child = plan_of("child", doubles)

    def handler(ctx, io):
        ctx["twice"] = io.run_child(child, {"n": 3}).context["twice"]

    plan = plan_of("parent", handler)
    result = machine.run(plan, store=store)
    assert result.context == {"twice": 6}
    replayed(plan, store, result)


def test_children_run_at_the_same_time_and_replay_in_their_order(store, config):
    both = [asyncio.Event(), asyncio.Event()]

    async def meets(ctx, io):
        mine = both[ctx["n"]]
        mine.set()
        await both[1 - ctx["n"]].wait()
        ctx["met"] = True

    child = plan_of("child", meets)

    async def handler(ctx, io):
        found = []

        async def one(n):
            found.append((n, (await io.run_child(child, {"n": n})).context["met"]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, 0)
            tasks.start_soon(one, 1)
        ctx["found"] = found

    plan = plan_of("parent", handler)

    async def main():
        both[:] = [asyncio.Event(), asyncio.Event()]
        return await machine.aio.run(plan, store=store, config=config)

    result = asyncio.run(main())
    assert sorted(result.context["found"]) == [[0, True], [1, True]]
    assert len(runs(store)["child"]) == 2
    replayed(plan, store, result)


@pytest.mark.parametrize("handler", [doubles, fails], ids=["completes", "fails"])
def test_a_child_ends_as_it_ends_and_its_parent_is_told(store, handler):
    plan = parent_of(plan_of("child", handler))
    result = machine.run(plan, store=store)
    assert result.status == "completed"
    status, context, _ = result.context["child"]
    expected = ("completed", 4) if handler is doubles else ("failed", None)
    assert (status, context.get("twice")) == expected
    replayed(plan, store, result)


def test_the_error_of_a_child_that_failed_is_in_its_result(store):
    child, seen = plan_of("child", fails), []

    async def handler(ctx, io):
        seen.append(await io.run_child(child))
        ctx["code"] = seen[-1].error.code

    plan = plan_of("parent", handler)
    result = machine.run(plan, store=store)
    assert result.context == {"code": Code.HANDLER_ERROR}
    assert "no such price" in seen[0].error.message
    replayed(plan, store, result)
    assert seen[0] == seen[1]


def test_a_child_that_waits_puts_its_parent_away_and_goes_on_with_it(store, config):
    plan = parent_of(plan_of("child", asks))
    result = machine.run(plan, store=store, config=config)
    assert result.status == "suspended"
    (wait,) = result.waits
    assert isinstance(wait, ChildWait)
    child = only(store, "child")
    assert child.status == "suspended"
    assert [store.lease_of(run_id) for run_id in (result.run_id, child.run_id)] == [None, None]
    replayed(plan, store, result)
    head = store.head(result.run_id), store.head(child.run_id)
    assert machine.resume(result.run_id, plan=plan, store=store) == result
    assert (store.head(result.run_id), store.head(child.run_id)) == head, "nothing came, nothing is written"
    approve(store, child.run_id)
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.status == "completed"
    assert result.context["child"][:2] == ["completed", {"n": 2, "by": "ada"}]
    replayed(plan, store, result)
    assert len(runs(store)["child"]) == 1


def test_a_child_of_a_child_of_a_child_waits_and_all_go_on(store, config):
    great = plan_of("great", asks)
    grand = parent_of(great, name="grand")
    middle = parent_of(grand, name="middle")
    plan = parent_of(middle)
    result = machine.run(plan, store=store, config=config)
    assert result.status == "suspended"
    assert {op: row.status for op, (row,) in runs(store).items()} == dict.fromkeys(
        ("parent", "middle", "grand", "great"), "suspended"
    )
    assert machine.resume(result.run_id, plan=plan, store=store) == result
    approve(store, only(store, "great").run_id)
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.status == "completed"
    assert {row.status for (row,) in runs(store).values()} == {"completed"}
    assert result.context["middle"][1]["grand"][1]["great"][1] == {"n": 2, "by": "ada"}
    replayed(plan, store, result)


def test_a_child_that_another_driver_has_ended_tells_its_parent(store):
    child = plan_of("child", asks)
    plan = parent_of(child)
    result = machine.run(plan, store=store)
    run_id = only(store, "child").run_id
    approve(store, run_id)
    assert machine.resume(run_id, plan=child, store=store).status == "completed"
    (message,) = store.inbox(result.run_id)
    key = result.waits[0].key
    assert (message.kind, message.data) == ("child_ended", {"key": key, "run_id": run_id})
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.context["child"] == ["completed", {"n": 2, "by": "ada"}, run_id]
    replayed(plan, store, result)


def test_a_child_that_another_process_drives_is_waited_for(store):
    child = plan_of("child", asks)
    plan = parent_of(child)
    result = machine.run(plan, store=store)
    run_id = only(store, "child").run_id
    approve(store, run_id)
    lease = store.acquire(run_id, "somebody else", 60_000)
    assert machine.resume(result.run_id, plan=plan, store=store) == result
    store.release(lease)
    assert machine.resume(result.run_id, plan=plan, store=store).status == "completed"


def test_a_child_that_is_cancelled_is_a_result(store):
    plan = parent_of(plan_of("child", asks))
    result = machine.run(plan, store=store)
    run_id = only(store, "child").run_id
    assert machine.cancel(run_id, store=store).status == "cancelled"
    assert [message.kind for message in store.inbox(result.run_id)] == ["child_ended"]
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.context["child"][0] == "cancelled"
    replayed(plan, store, result)


def test_a_cancelled_parent_cancels_the_tree_below_it(store):
    plan = parent_of(parent_of(plan_of("grand", asks), name="child"))
    result = machine.run(plan, store=store)
    assert machine.cancel(result.run_id, store=store).status == "cancelled"
    assert {op: row.status for op, (row,) in runs(store).items()} == dict.fromkeys(
        ("parent", "child", "grand"), "cancelled"
    )
    # the tree ends from below: none is left without one who knows of it
    ended = [store.run_row(only(store, op).run_id).updated_ms for op in ("grand", "child", "parent")]
    assert ended == sorted(ended)


def test_a_parent_that_fails_for_good_cancels_its_children_before_its_end(store):
    child = plan_of("child", asks)
    plan = Plan("parent")

    @plan.state("step.waits")
    async def waits(ctx, io):
        await io.run_child(child)

    @plan.state("step.fails")
    async def other(ctx, io):
        await io.wait_signal("go")
        raise ValueError("too bad")

    result = machine.run(plan, store=store, config=RunConfig(execution_mode=FanOutJoin(2)))
    assert result.status == "suspended"
    store.post(result.run_id, "signal", {"name": "go", "value": None})
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.status == "failed"
    assert only(store, "child").status == "cancelled"
    replayed(plan, store, result)


def test_a_child_may_be_left_to_itself(store):
    child = plan_of("child", asks)
    plan = parent_of(child, on_parent_end="leave")
    result = machine.run(plan, store=store)
    assert machine.cancel(result.run_id, store=store).status == "cancelled"
    run_id = only(store, "child").run_id
    assert store.run_row(run_id).status == "suspended"
    approve(store, run_id)
    assert machine.resume(run_id, plan=child, store=store).status == "completed"
    assert store.inbox(result.run_id)[1:] == [], "it has ended, and needs no message"


def test_a_handler_that_gives_a_child_up_cancels_it(store):
    begun = anyio.Event()

    async def endless(ctx, io):
        begun.set()
        await anyio.sleep_forever()

    child = plan_of("child", endless)

    async def handler(ctx, io):
        with anyio.move_on_after(30) as scope:
            async with anyio.create_task_group() as tasks:

                async def watch():
                    await begun.wait()
                    scope.cancel()

                tasks.start_soon(watch)
                await io.run_child(child)
        ctx["gave up"] = scope.cancelled_caught

    result = machine.run(plan_of("parent", handler), store=store)
    assert result.context == {"gave up": True}
    assert only(store, "child").status == "cancelled"
    facts = events(store, result.run_id, FactRecorded)
    assert [fact.given_up for fact in facts] == [True]


def test_an_attempt_after_one_that_went_on_without_its_child_has_another_one(store):
    tries = []

    async def endless(ctx, io):
        if len(tries) == 1:
            begun.set()
            await anyio.sleep_forever()

    child = plan_of("child", endless)

    async def handler(ctx, io):
        tries.append(1)
        with anyio.move_on_after(30) as scope:
            async with anyio.create_task_group() as tasks:

                async def watch():
                    await begun.wait()
                    scope.cancel()
                    raise machine.Failure("again", retryable=True)

                if len(tries) == 1:
                    tasks.start_soon(watch)
                ctx["status"] = (await io.run_child(child)).status

    plan = plan_of("parent", handler, retry=RetryPolicy(2))
    begun = anyio.Event()
    result = machine.run(plan, store=store)
    assert (result.status, result.context) == ("completed", {"status": "completed"})
    assert [row.status for row in runs(store)["child"]] == ["cancelled", "completed"]
    tries.clear()  # and begun is set: in a replay no child does that
    replayed(plan, store, result)
    tries.clear()
    deep = machine.replay(result.run_id, plan=plan, store=store, deep=True)
    assert [each.status for each in deep.children] == ["cancelled", "completed"], (
        "also the one that was replaced"
    )


def test_a_race_with_a_child_that_waits_is_won_and_the_child_cancelled(store):
    child = plan_of("child", asks)

    async def handler(ctx, io):
        async with anyio.create_task_group() as tasks:

            async def signal():
                ctx["signal"] = await io.wait_signal("stop")
                tasks.cancel_scope.cancel()

            tasks.start_soon(signal)
            await io.run_child(child)

    plan = plan_of("parent", handler)
    result = machine.run(plan, store=store)
    assert result.status == "suspended"
    assert sorted(wait.type for wait in result.waits) == ["child", "signal"]
    store.post(result.run_id, "signal", {"name": "stop", "value": 7})
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert (result.status, result.context) == ("completed", {"signal": 7})
    assert only(store, "child").status == "cancelled"
    replayed(plan, store, result)


def test_a_child_that_takes_too_long_is_cancelled(store):
    async def endless(ctx, io):
        await anyio.sleep_forever()

    child = plan_of("child", endless)

    async def handler(ctx, io):
        try:
            await io.run_child(child, timeout=0.05, key="slow")
        except WaitTimeoutError as exc:
            ctx["code"] = exc.code

    plan = plan_of("parent", handler)
    result = machine.run(plan, store=store)
    assert result.context == {"code": Code.WAIT_TIMED_OUT}
    assert only(store, "child").status == "cancelled"
    replayed(plan, store, result)


def test_a_child_that_waits_too_long_is_cancelled(store):
    child = plan_of("child", asks)

    async def handler(ctx, io):
        try:
            await io.run_child(child, timeout=3600)
        except WaitTimeoutError as exc:
            ctx["code"] = exc.code

    plan = plan_of("parent", handler)
    result = machine.run(plan, store=store)
    assert (result.status, result.waits[0].due_ms is not None) == ("suspended", True)
    clock = store.clock
    store.clock = lambda: clock() + 3_600_001
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.context == {"code": Code.WAIT_TIMED_OUT}
    assert only(store, "child").status == "cancelled"
    replayed(plan, store, result)


def test_a_key_names_one_child_over_all_attempts(store):
    tries = []
    child = plan_of("child", doubles)

    async def handler(ctx, io):
        tries.append((await io.run_child(child, {"n": 1}, key="the one")).run_id)
        if len(tries) == 1:
            raise machine.Failure("again", retryable=True)
        tries.append((await io.run_child(child, {"n": 1}, key="the one")).run_id)

    result = machine.run(plan_of("parent", handler, retry=RetryPolicy(2)), store=store)
    assert result.status == "completed"
    assert tries == [only(store, "child").run_id] * 3


def test_a_key_that_is_taken_is_refused(store):
    child = plan_of("child", doubles)

    async def handler(ctx, io):
        await io.run_child(child, {"n": 1}, key="the one")
        await io.run_child(child, {"n": 2}, key="the one")

    result = machine.run(plan_of("parent", handler), store=store)
    assert (result.status, result.error.code) == ("failed", Code.FACT_KEY_CONFLICT)
    assert len(runs(store)["child"]) == 1


def test_the_plan_of_a_child_may_not_change_while_it_waits(store):
    plan = parent_of(plan_of("child", asks))
    result = machine.run(plan, store=store)
    child = only(store, "child").run_id
    approve(store, child)
    changed = Plan("child")
    first = changed.state("step.first")(lambda ctx: None)
    changed.state("step.only", after=[first])(asks)
    heads = store.head(child)
    with pytest.raises(PlanError) as caught:
        machine.resume(result.run_id, plan=parent_of(changed), store=store)
    assert caught.value.code == Code.PLAN_CHANGED
    assert store.head(child) == heads
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.status == "completed", "with the plan that it was begun with it goes on"
    replayed(plan, store, result)


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ("no plan", {}, OtherIoError, Code.IO_INVALID_REQUEST),
    (None, {"input": [1]}, OtherIoError, Code.IO_INVALID_REQUEST),
    (None, {"input": {"x": object()}}, machine.errors.CanonicalError, Code.NOT_JSON),
    (None, {"on_parent_end": "kill"}, OtherIoError, Code.IO_INVALID_REQUEST),
    (None, {"timeout": -1}, OtherIoError, Code.IO_INVALID_REQUEST),
    (None, {"timeout": "soon"}, OtherIoError, Code.IO_INVALID_REQUEST),
    (None, {"key": "@mine"}, machine.errors.IdError, Code.INVALID_ID),
    (Plan("empty"), {}, PlanError, Code.EMPTY_PLAN),
]


@pytest.mark.parametrize(("plan", "options", "error", "code"), BAD)
def test_what_cannot_be_a_child_is_refused_and_nothing_is_begun(store, plan, options, error, code):
    child = plan or plan_of("child", doubles)

    async def handler(ctx, io):
        with pytest.raises(error) as caught:
            await io.run_child(child, **options)
        ctx["code"] = caught.value.code

    result = machine.run(plan_of("parent", handler), store=store)
    assert (result.status, result.context) == ("completed", {"code": code})
    assert [*runs(store)] == ["parent"]
    assert events(store, result.run_id, WaitBegun) == []


def test_the_input_of_a_child_may_hold_no_secret(store, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-live-4f9a8b7c6d5e4f3a2b1c")
    child = plan_of("child", doubles)

    async def handler(ctx, io):
        key = await io.secret("MY_KEY")
        await io.run_child(child, {"key": key})

    plan = plan_of("parent", handler)
    result = machine.run(plan, store=store)
    assert (result.status, result.error.code) == ("failed", Code.SECRET_IN_CONTEXT)
    assert [*runs(store)] == ["parent"]
    replayed(plan, store, result)


def test_a_step_cannot_begin_a_child(store):
    child = plan_of("child", doubles)
    seen = []

    async def handler(ctx, io):
        async def inside():
            seen.append(await io.run_child(child))

        await io.step(inside, name="inside")

    result = machine.run(plan_of("parent", handler), store=store)
    assert result.status == "failed"
    assert (seen, [*runs(store)]) == ([], ["parent"])


def test_a_child_has_the_transports_that_the_caller_gave(store):
    class Fixed(machine.BaseTransport):
        async def perform(self, namespace, request):
            return 7

    async def handler(ctx, io):
        ctx["seen"] = (await io.call("fixed", {})).response

    plan = parent_of(parent_of(plan_of("grand", handler), name="child"))
    result = machine.run(plan, store=store, transports={"fixed": Fixed()})
    assert result.context["child"][1]["grand"][1] == {"n": 2, "seen": 7}


def test_a_dry_run_makes_no_effect_of_a_child(store):
    sent = []

    async def sends(ctx, io):
        await io.step(send, effect=True, name="send")

    async def send(idempotency_key):
        sent.append(idempotency_key)

    child = plan_of("child", sends, side_effects="apply_side_effect", idempotency=lambda ctx: "k")
    found = machine.dry_run(parent_of(child), store=store)
    assert (found.result.status, sent) == ("completed", [])
    assert [(effect.state_id.partition(".")[0], effect.namespace) for effect in found.effects] == [
        ("child", "step")
    ]
    assert only(store, "child").status == "completed"


sent: Counter[str] = Counter()


async def send(idempotency_key):
    sent[idempotency_key] += 1
    return sent[idempotency_key]


def family() -> Plan:
    """Return a plan with a child that has a child: each sends something, and the last one asks for an approval."""

    async def grand(ctx, io):
        ctx["now"] = await io.now() > 0
        await io.step(send, effect=True)
        ctx["by"] = (await io.approval("Go on?", key="ask")).by

    async def child(ctx, io):
        ctx["uuid"] = bool(await io.uuid())
        found = await io.run_child(plan_of("grand", grand, **effects("grand")))
        ctx["grand"] = [found.status, found.context["by"]]

    async def parent(ctx, io):
        await io.step(send, effect=True)
        found = await io.run_child(plan_of("child", child), {"n": 1})
        ctx["child"] = [found.status, found.context["grand"]]

    return plan_of("parent", parent, **effects("parent"))


def effects(key: str) -> dict[str, Any]:
    return {"side_effects": "apply_side_effect", "idempotency": lambda ctx: key}


def driven_to_its_end(plan: Plan, store: Any, run_id: str) -> Any:
    """Resume a run, answering what it asks for, until it has ended."""
    for _ in range(3):
        result = machine.resume(run_id, plan=plan, store=store)
        if result.status != "suspended":
            return result
        approve(store, only(store, "grand").run_id)
    raise AssertionError("it does not end")


def test_whatever_commit_a_crash_follows_the_family_ends_alike_and_each_effect_is_made_once():
    sent.clear()
    plan = family()
    with CommittedStore() as whole:
        first = machine.run(plan, store=whole)
        assert first.status == "suspended"
        expected = driven_to_its_end(plan, whole, first.run_id)
        assert expected.context["child"] == ["completed", ["completed", "ada"]]
        assert sent == {"parent": 1, "grand": 1}
        count, begun = len(whole.appended), [at for at, each in enumerate(whole.appended) if each[1] == 0]
    assert (count, len(begun)) == (count, 3)
    for length in range(1, count):
        sent.clear()
        before = {each[0] for each in whole.appended[:length]}
        with whole.after(length) as store:
            result = driven_to_its_end(plan, store, first.run_id)
            assert (result.status, result.context) == ("completed", expected.context), length
            found = {op: [row.run_id for row in rows] for op, rows in runs(store).items()}
            assert [len(ids) for ids in found.values()] == [1, 1, 1], length
            assert before <= {run_id for ids in found.values() for run_id in ids}
            assert set(sent) <= {"parent", "grand"}
            assert max(sent.values(), default=0) <= 1, (length, sent)
            replayed(plan, store, result)


def test_a_cancel_that_a_crash_interrupts_is_finished_by_the_next_one():
    plan = parent_of(parent_of(plan_of("grand", asks), name="child"))
    with CommittedStore() as whole:
        result = machine.run(plan, store=whole)
        suspended = len(whole.appended)
        assert machine.cancel(result.run_id, store=whole).status == "cancelled"
    ends = [each for each in whole.appended[suspended:] if each[2]]
    assert [run_id for run_id, *_ in ends][-1] == result.run_id
    for length in range(suspended, len(whole.appended)):
        with whole.after(length) as store:
            assert machine.cancel(result.run_id, store=store).status == "cancelled"
            assert {row.status for rows in runs(store).values() for row in rows} == {"cancelled"}


def test_an_attempt_after_a_crash_finds_the_child_that_the_one_before_has_begun():
    child = plan_of("child", doubles)
    plan = parent_of(child)
    with CommittedStore() as whole:
        result = machine.run(plan, store=whole)
        wait = next(at for at, each in enumerate(whole.appended, 1) if each[0] != result.run_id)
        for length in (wait - 1, wait):  # the wait without its child, and with it
            with whole.after(length) as store:
                again = machine.resume(result.run_id, plan=plan, store=store)
                assert again.context["child"][2] == result.context["child"][2]
                assert [event.attempt for event in events(store, result.run_id, StateEntered)] == [0, 1]
                assert len(runs(store)["child"]) == 1
                replayed(plan, store, again)


def test_a_fork_takes_over_the_child_that_its_past_waits_for_and_never_cancels_it(store):
    child = plan_of("child", asks)
    plan = parent_of(child)
    result = machine.run(plan, store=store)
    run_id = only(store, "child").run_id
    fork = machine.fork(result.run_id, plan=plan, at=result.head_seq - 1, store=store)
    assert fork.result.status == "suspended"
    assert only(store, "child").run_id == run_id
    assert machine.cancel(fork.run_id, store=store).status == "cancelled"
    assert store.run_row(run_id).status == "suspended"
    second = machine.fork(result.run_id, plan=plan, at=result.head_seq - 1, store=store)
    approve(store, run_id)
    ended = machine.resume(second.run_id, plan=plan, store=store)
    assert ended.context["child"] == ["completed", {"n": 2, "by": "ada"}, run_id]
    again = machine.resume(result.run_id, plan=plan, store=store)
    assert again.context == ended.context
    replayed(plan, store, ended)


def test_a_suspended_child_is_not_asked_twice_without_a_reason(store):
    """A message that no wait of the child fits does not make the parent go round in circles."""
    plan = parent_of(plan_of("child", asks))
    result = machine.run(plan, store=store)
    store.post(only(store, "child").run_id, "signal", {"name": "nobody waits for it", "value": 1})
    again = machine.resume(result.run_id, plan=plan, store=store)
    assert again.status == "suspended"
    assert again.head_seq <= result.head_seq + 4
    assert events(store, result.run_id, RunCompleted) == []


def test_a_driver_that_stops_stops_the_children_first(store):
    async def endless(ctx, io):
        stopping.set()
        await anyio.sleep_forever()

    plan = parent_of(plan_of("child", endless))
    stopping = anyio.Event()

    async def main():
        nonlocal stopping
        stopping = anyio.Event()
        task = asyncio.ensure_future(machine.aio.run(plan, store=store))
        await stopping.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    child, parent = only(store, "child").run_id, only(store, "parent").run_id
    assert [store.lease_of(run_id) for run_id in (child, parent)] == [None, None]
    for run_id in (child, parent):
        last = events(store, run_id)[-1]
        assert (last.type, last.error.code) == ("state_failed", Code.ATTEMPT_INTERRUPTED)
    result = machine.resume(parent, plan=parent_of(plan_of("child", doubles)), store=store)
    assert result.context["child"][2] == child, "the next attempt waits for the child that was interrupted"
    assert len(runs(store)["child"]) == 1


def test_a_child_knows_nothing_of_the_handler_that_began_it(store):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    async def looks(ctx, io):
        seen.append(variable.get())

    child = plan_of("child", looks)

    async def handler(ctx, io):
        variable.set("the parent's")
        await io.run_child(child)
        seen.append(variable.get())

    machine.run(plan_of("parent", handler), store=store)
    assert seen == ["none", "the parent's"]


def test_a_fork_at_any_event_goes_on_with_a_child(store):
    """Before the wait it has one of its own; after it, that of its past, and with its answer none."""
    plan = parent_of(plan_of("child", doubles))
    whole = machine.run(plan, store=store)
    theirs = only(store, "child").run_id
    seen = []
    for at in range(1, whole.head_seq):
        fork = machine.fork(whole.run_id, plan=plan, at=at, store=store)
        assert fork.result.status == "completed", at
        status, context, run_id = fork.result.context["child"]
        assert (status, context["twice"]) == ("completed", 4)
        seen.append(run_id == theirs)
        replayed(plan, store, fork.result)
    assert seen == sorted(seen)
    assert seen[0] is False
    assert seen[-1] is True


def test_the_outcome_of_a_child_in_another_recording_answers_for_it(store):
    plan = parent_of(plan_of("child", doubles))
    first = machine.run(plan, store=store)
    for options in ({}, {"config": RunConfig(io_mode="replay")}):
        second = machine.run(plan, store=store, facts_from=first.run_id, **options)
        assert (second.status, second.context) == ("completed", first.context)
        replayed(plan, store, second)
    assert len(runs(store)["child"]) == 1
    changed = parent_of(plan_of("child", doubles), timeout=9)
    shut = machine.run(changed, store=store, facts_from=first.run_id, config=RunConfig(io_mode="replay"))
    assert (shut.status, shut.error.code) == ("failed", "missing_fact")
    assert len(runs(store)["child"]) == 1, "where nothing may go outside no child begins"


def test_a_run_that_waits_in_its_process_goes_on_when_its_child_is_answered(store, config):
    plan = parent_of(parent_of(plan_of("grand", asks), name="child"))
    answered = []

    async def main():
        async with anyio.create_task_group() as tasks:

            async def answers():
                while not (rows := store.list_runs(op="grand", status="suspended").rows):  # noqa: ASYNC110 - of a store
                    await anyio.sleep(0.01)
                answered.append(only(store, "parent").status)
                approve(store, rows[0].run_id)

            tasks.start_soon(answers)
            return await machine.aio.run(plan, store=store, config=config, wait=20)

    result = asyncio.run(main())
    assert result.status == "completed"
    assert answered == ["running"], "the parent was never suspended"
    assert result.context["child"][1]["grand"][1]["by"] == "ada"
    replayed(plan, store, result)


def test_times_are_skipped_and_answers_given_in_children_too(store):
    async def waits(ctx, io):
        await io.sleep(86400)
        ctx["by"] = (await io.approval("Go on?", key="ask")).by

    plan = parent_of(parent_of(plan_of("grand", waits), name="child"))
    answers = {"ask": {"approved": True, "by": "the test"}}
    result = machine.run(plan, store=store, clock="skip", answers=answers)
    assert result.status == "completed"
    assert result.context["child"][1]["grand"][1] == {"n": 2, "by": "the test"}
    replayed(plan, store, result)


def test_a_paranoid_run_has_each_child_once(store):
    plan = parent_of(plan_of("child", asks))
    result = machine.run(plan, store=store, config=RunConfig(paranoid=True))
    assert result.status == "suspended"
    approve(store, only(store, "child").run_id)
    result = machine.resume(result.run_id, plan=plan, store=store)
    assert result.status == "completed"
    assert len(runs(store)["child"]) == 1
    replayed(plan, store, result)


def test_a_child_that_cannot_be_driven_stops_its_parent_until_it_can(store):
    """Its transport is missing: that is no outcome of the child, and no death of the parent's driver."""

    class Fixed(machine.BaseTransport):
        async def perform(self, namespace, request):
            return 7

    async def uses(ctx, io):
        await io.approval("Go on?", key="ask")
        ctx["seen"] = (await io.call("fixed", {})).response

    plan = parent_of(plan_of("child", uses))
    result = machine.run(plan, store=store, transports={"fixed": Fixed()})
    approve(store, only(store, "child").run_id)
    for _ in range(4):
        with pytest.raises(machine.errors.UsageError) as caught:
            machine.resume(result.run_id, plan=plan, store=store)
        assert caught.value.code == Code.TRANSPORT_MISSING
    result = machine.resume(result.run_id, plan=plan, store=store, transports={"fixed": Fixed()})
    assert result.context["child"][1] == {"n": 2, "seen": 7}
    assert len(runs(store)["child"]) == 1
    replayed(plan, store, result)
