"""What a replay says when today's code does something else than was recorded."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

import machine
from machine import DomainEvent, Plan, RunConfig, replay, run
from machine.replay import log as replay_log
from machine.replay.pointer import diff
from machine.stores import MemoryStore


def plan_of(middle, **options):
    """Return a plan of three states whose middle one is given."""
    plan = Plan("op")

    @plan.state("step.before")
    async def before(ctx, io, rec):
        ctx["before"] = await io.now()

    second = plan.state("step.middle", after=[before], **options)(middle)

    @plan.state("step.after", after=[second])
    async def after(ctx, io, rec):
        ctx["after"] = await io.env("HOME")

    return plan


async def recorded(ctx, io, rec):
    a = await io.env("A")
    b = await io.env("B")
    await rec.emit(DomainEvent("noted", {"n": 1}))
    ctx["both"] = [a, b]
    ctx["list"] = [1, {"deep": "x"}]


async def argument_changed(ctx, io, rec):
    a = await io.env("A")
    b = await io.env("C")
    await rec.emit(DomainEvent("noted", {"n": 1}))
    ctx["both"] = [a, b]


async def call_added(ctx, io, rec):
    a = await io.env("A")
    b = await io.env("B")
    await io.now()
    ctx["both"] = [a, b]


async def call_added_at_the_end(ctx, io, rec):
    await recorded(ctx, io, rec)
    await io.env("D")


async def call_removed(ctx, io, rec):
    a = await io.env("A")
    await rec.emit(DomainEvent("noted", {"n": 1}))
    ctx["both"] = [a, None]


async def last_call_removed_and_done(ctx, io, rec):
    ctx["both"] = [await io.env("A"), None]


async def calls_swapped(ctx, io, rec):
    b = await io.env("B")
    a = await io.env("A")
    await rec.emit(DomainEvent("noted", {"n": 1}))
    ctx["both"] = [a, b]


async def swallowing(ctx, io, rec):
    try:
        await io.env("Z")
    except BaseException:  # noqa: BLE001 - the worst a handler can do
        ctx["both"] = ["swallowed", None]


async def value_changed(ctx, io, rec):
    await recorded(ctx, io, rec)
    ctx["list"] = [1, {"deep": "y"}]


async def key_added(ctx, io, rec):
    await recorded(ctx, io, rec)
    ctx["new"] = 1


async def raising(ctx, io, rec):
    await recorded(ctx, io, rec)
    raise ValueError("new")


async def event_changed(ctx, io, rec):
    a = await io.env("A")
    b = await io.env("B")
    await rec.emit(DomainEvent("noted", {"n": 2}))
    ctx["both"] = [a, b]


async def event_removed(ctx, io, rec):
    ctx["both"] = [await io.env("A"), await io.env("B")]
    ctx["list"] = [1, {"deep": "x"}]


async def another_namespace(ctx, io, rec):
    await io.now()


CASES = [
    (argument_changed, "request_changed", 7),
    (call_added, "call_added", 8),
    (call_added_at_the_end, "call_added", 9),
    (call_removed, "call_missing", 7),
    (last_call_removed_and_done, "call_missing", 7),
    (calls_swapped, "call_missing", 6),
    (swallowing, "request_changed", 6),
    (value_changed, "snapshot_differs", 9),
    (key_added, "snapshot_differs", 9),
    (raising, "event_differs", 9),
    (event_changed, "event_differs", 8),
    (event_removed, "event_differs", 8),
    (another_namespace, "call_added", 6),
]


@pytest.mark.parametrize(("now", "kind", "seq"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_changed_handler_is_caught_with_its_kind_seq_state_and_cause(store, now, kind, seq):
    result = run(plan_of(recorded), store=store)
    began = time.monotonic()
    found = replay(result.run_id, plan=plan_of(now), store=store)
    assert time.monotonic() - began < 3
    assert not found.identical
    divergence = found.divergence
    assert (divergence.kind, divergence.seq) == (kind, seq), divergence
    assert (divergence.state_id, divergence.attempt) == ("op.step.middle", 0)
    assert divergence.cause == "state_code_changed"
    assert "op.step.middle" in divergence.cause_text
    json.dumps(found.to_json())


def test_the_same_code_is_identical(store):
    result = run(plan_of(recorded), store=store)
    found = replay(result.run_id, plan=plan_of(recorded), store=store)
    assert (found.identical, found.digest, found.events) == (True, result.digest, result.head_seq)


def test_a_swap_of_calls_that_race_is_no_difference(store):
    async def gathered(ctx, io, rec):
        ctx["both"] = await asyncio.gather(io.env("A"), io.env("B"))

    async def swapped(ctx, io, rec):
        b, a = await asyncio.gather(io.env("B"), io.env("A"))
        ctx["both"] = [a, b]

    result = run(plan_of(gathered), store=store)
    assert replay(result.run_id, plan=plan_of(swapped), store=store).identical


def test_a_race_that_lost_a_call_is_a_divergence_and_not_a_hang(store):
    async def gathered(ctx, io, rec):
        ctx["both"] = await asyncio.gather(io.env("A"), io.env("B"))

    async def one_less(ctx, io, rec):
        ctx["both"] = await asyncio.gather(io.env("B"), asyncio.sleep(0))

    result = run(plan_of(gathered), store=store)
    began = time.monotonic()
    found = replay(result.run_id, plan=plan_of(one_less), store=store)
    assert found.divergence.kind == "call_missing"
    assert time.monotonic() - began < 5


def test_a_call_once_given_up_that_is_now_waited_for_is_a_divergence_and_not_a_hang(store):
    async def gives_up(ctx, io, rec):
        task = asyncio.create_task(io.sleep(30))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def waits(ctx, io, rec):
        await io.sleep(30)

    result = run(plan_of(gives_up), store=store)
    assert replay(result.run_id, plan=plan_of(gives_up), store=store).identical
    began = time.monotonic()
    found = replay(result.run_id, plan=plan_of(waits), store=store)
    assert not found.identical
    assert time.monotonic() - began < 5


def test_a_plain_function_that_calls_in_another_order_is_a_divergence(store):
    def plain(ctx, io, rec):
        ctx["both"] = [io.env("A"), io.env("B")]

    def swapped(ctx, io, rec):
        ctx["both"] = [io.env("B"), io.env("A")]

    result = run(plan_of(plain), store=store)
    assert replay(result.run_id, plan=plan_of(plain), store=store).identical
    found = replay(result.run_id, plan=plan_of(swapped), store=store)
    assert found.divergence.kind == "call_missing"


def test_a_changed_request_shows_both_sides_and_the_leaf(store):
    result = run(plan_of(recorded), store=store)
    divergence = replay(result.run_id, plan=plan_of(argument_changed), store=store).divergence
    assert divergence.recorded == {"namespace": "env", "request": {"name": "B"}}
    assert divergence.now == {"namespace": "env", "request": {"name": "C"}}
    assert [change.pointer for change in divergence.changes] == ["/request/name"]


def test_a_changed_context_shows_the_leaf_that_differs(store):
    result = run(plan_of(recorded), store=store)
    divergence = replay(result.run_id, plan=plan_of(value_changed), store=store).divergence
    assert [(change.pointer, change.recorded, change.now) for change in divergence.changes] == [
        ("/list/1/deep", "x", "y")
    ]
    assert divergence.recorded == {"list": [1, {"deep": "x"}]}


def test_a_changed_upstream_state_is_named_as_the_cause(store):
    def plan_with(value):
        plan = Plan("op")
        if value:

            @plan.state("step.first")
            async def first(ctx, io, rec):
                ctx["v"] = 1
                del ctx["v"]
        else:

            @plan.state("step.first")
            async def first(ctx, io, rec):
                pass

        @plan.state("step.second", after=[first])
        async def second(ctx, io, rec):
            ctx["drawn"] = next(numbers)

        return plan

    numbers = iter(range(10))
    result = run(plan_with(value=True), store=store)
    same = replay(result.run_id, plan=plan_with(value=True), store=store).divergence
    assert (same.state_id, same.cause) == ("op.step.second", "nothing_changed")
    changed = replay(result.run_id, plan=plan_with(value=False), store=store).divergence
    assert (changed.state_id, changed.cause) == ("op.step.second", "upstream_code_changed")


def test_a_changed_plan_is_shown_as_a_difference_of_graphs(store):
    result = run(plan_of(recorded), store=store)
    found = replay(result.run_id, plan=plan_of(recorded, tags=["report"]), store=store).divergence
    assert (found.kind, found.seq, found.cause) == ("plan_changed", 1, "plan_changed")
    assert [change.pointer for change in found.changes] == ["/states/op.step.middle/tags/0"]


def test_a_run_that_failed_replays_to_the_same_failure_or_says_so(store):
    async def fails(ctx, io, rec):
        raise ValueError("then")

    async def works(ctx, io, rec):
        pass

    result = run(plan_of(fails), store=store)
    assert replay(result.run_id, plan=plan_of(fails), store=store).identical
    found = replay(result.run_id, plan=plan_of(works), store=store).divergence
    assert (found.kind, found.state_id) == ("event_differs", "op.step.middle")


def test_comments_names_and_layout_do_not_move_a_fingerprint():
    from machine.engine.provenance import code_fingerprint

    async def one(ctx, io, rec):
        """Say something."""
        # a comment
        ctx["k"] = (1 +
                    2)  # fmt: skip

    async def other(ctx, io, rec):
        ctx["k"] = 1 + 2

    def third(ctx, io, rec):
        ctx["k"] = 1 + 3

    assert code_fingerprint(one) == code_fingerprint(other)
    assert code_fingerprint(other) != code_fingerprint(third)
    assert code_fingerprint(eval("lambda: 1")) != code_fingerprint(eval("lambda: 2"))


def test_a_changed_helper_of_the_same_module_moves_the_fingerprint_of_what_names_it(tmp_path):
    import importlib.util

    from machine.engine.provenance import code_fingerprint

    def loaded(number, constant):
        path = tmp_path / f"helpers_{number}.py"
        path.write_text(
            "def used(n):\n    return inner(n)\n\n"
            f"def inner(n):\n    return used(n) if n else {constant}\n\n"
            "def handler(ctx, io, rec):\n    ctx['n'] = used(0)\n\n"
            "def other(ctx, io, rec):\n    ctx['n'] = 0\n"
        )
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    before, same, after = loaded(1, 5), loaded(2, 5), loaded(3, 6)
    assert code_fingerprint(before.handler) == code_fingerprint(same.handler)
    assert code_fingerprint(before.handler) != code_fingerprint(after.handler)
    assert code_fingerprint(before.other) == code_fingerprint(after.other)


def test_two_runs_fed_the_same_facts_have_the_same_digest_whatever_their_order():
    class World(machine.io.base_transport.BaseTransport):
        def __init__(self, delays):
            self.delays = delays

        async def perform(self, namespace, request):
            await asyncio.sleep(self.delays[request["n"]])
            return {"answer": request["n"] * 2}

    async def sequential(ctx, io, rec):
        ctx["all"] = [(await io.call("world", {"n": n})).response["answer"] for n in range(3)]

    digests = set()
    for delays in ([0, 0, 0], [0.02, 0.01, 0]):
        with MemoryStore() as store:
            plan = Plan("op")
            plan.state("step.only")(sequential)
            digests.add(run(plan, store=store, transports={"world": World(delays)}).digest)
    assert len(digests) == 1


def test_another_input_or_configuration_is_another_digest(store):
    plan = Plan("op")
    plan.state("step.only")(lambda ctx, io, rec: None)
    digests = [
        run(plan, store=store).digest,
        run(plan, store=store, input={"k": 1}).digest,
        run(plan, store=store, config=RunConfig(durability="facts")).digest,
    ]
    assert len(set(digests)) == 3
    assert run(plan, store=store).digest == digests[0]


def test_a_diff_names_leaves_by_json_pointer():
    old = {"a/b": [1, 2, {"~": 1}], "same": 1, "gone": 1, "n": 1}
    new = {"a/b": [1, 3, {"~": 2}, 4], "same": 1, "come": 2, "n": True}
    assert [(change.pointer, change.kind) for change in diff(old, new)] == [
        ("/a~1b/1", "changed"),
        ("/a~1b/2/~0", "changed"),
        ("/a~1b/3", "added"),
        ("/come", "added"),
        ("/gone", "removed"),
        ("/n", "changed"),
    ]
    assert diff(old, old) == []


def test_a_handler_that_swallows_a_divergence_and_goes_on_is_stopped(store):
    async def calls(ctx, io, rec):
        await io.env("A")

    async def stubborn(ctx, io, rec):
        while True:
            await asyncio.gather(io.env("B"), return_exceptions=True)

    result = run(plan_of(calls), store=store)
    began = time.monotonic()
    found = replay(result.run_id, plan=plan_of(stubborn), store=store).divergence
    assert (found.kind, found.state_id) == ("request_changed", "op.step.middle")
    assert time.monotonic() - began < 5


def test_a_handler_that_waits_for_something_that_never_comes_is_a_divergence(store, monkeypatch):
    monkeypatch.setattr(replay_log, "PATIENCE_SECONDS", 0.3)

    async def calls(ctx, io, rec):
        await io.env("A")

    async def waits(ctx, io, rec):
        await io.env("A")
        await asyncio.Event().wait()

    result = run(plan_of(calls), store=store)
    found = replay(result.run_id, plan=plan_of(waits), store=store).divergence
    assert (found.kind, found.state_id) == ("event_differs", "op.step.middle")
