"""What a replay says when today's code does something else than was recorded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import machine
from machine import DomainEvent, Plan, RunConfig, replay, run
from machine.recordings import divergence_text, replay_log
from machine.recordings.json_diff import diff
from machine.stores import MemoryStore
from tests.kills import entries


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
    (calls_swapped, "call_reordered", 6),
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
    assert found.divergence.kind == "call_reordered"


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


class Crash(machine.Reporter):
    """Stop a run after a number of facts of its second state, as a crash does."""

    def __init__(self, facts):
        self.facts = facts

    def entry(self, entry):
        if entry.event.type == "fact_recorded" and entry.event.state_id == "op.step.middle":
            self.facts -= 1
            if self.facts == 0:
                raise RuntimeError("crash")


AFTER_A_RESUME = [
    (argument_changed, 1, "request_changed", "B"),
    (argument_changed, 2, "request_changed", "B"),
    (swallowing, 1, "request_changed", "A"),
    (swallowing, 2, "request_changed", "A"),
    (call_added, 1, "call_added", None),
    (call_added, 2, "call_added", None),
    (call_added_at_the_end, 1, "call_added", None),
    (call_added_at_the_end, 2, "call_added", None),
    (another_namespace, 1, "call_added", None),
    (another_namespace, 2, "call_added", None),
]


@pytest.mark.parametrize(("now", "facts", "kind", "name"), AFTER_A_RESUME)
def test_after_a_resume_a_changed_request_is_told_from_an_added_call(store, now, facts, kind, name):
    run_id = machine.new_run_id()
    with pytest.raises(RuntimeError, match="crash"):
        run(plan_of(recorded), store=store, run_id=run_id, reporter=Crash(facts))
    assert machine.resume(run_id, plan=plan_of(recorded), store=store).status == "completed"
    assert replay(run_id, plan=plan_of(recorded), store=store).identical
    found = replay(run_id, plan=plan_of(now), store=store).divergence
    assert (found.kind, found.attempt) == (kind, 1), found
    events = [entry.event for entry in entries(store, run_id)]
    if name is None:
        assert [event.type for event in events[: found.seq - 1]].count("state_entered") == 3
    else:
        assert events[found.seq - 1].type == "fact_recorded"
        assert found.recorded["request"] == {"name": name}
        assert found.changes


def test_after_a_failure_the_changed_request_is_that_of_the_attempt_itself(store):
    tries = []

    def asks(*names):
        async def middle(ctx, io, rec):
            tries.append(await io.env(names[len(tries)]))
            if len(tries) == 1:
                raise ConnectionError

        return plan_of(
            middle, retry=machine.RetryPolicy(max_attempts=2, backoff=machine.FixedBackoff(delay=0))
        )

    result = run(asks("A", "A"), store=store)
    tries.clear()
    found = replay(result.run_id, plan=asks("A", "B"), store=store).divergence
    assert (found.kind, found.attempt) == ("request_changed", 1)
    assert entries(store, result.run_id)[found.seq - 1].event.attempt == 1


def test_comments_names_and_layout_do_not_move_a_fingerprint():
    from machine.engine.provenance import code_of

    async def one(ctx, io, rec):
        """Say something."""
        # a comment
        ctx["k"] = (1 +
                    2)  # fmt: skip

    async def other(ctx, io, rec):
        ctx["k"] = 1 + 2

    def third(ctx, io, rec):
        ctx["k"] = 1 + 3

    assert code_of(one).fingerprint == code_of(other).fingerprint
    assert code_of(other).fingerprint != code_of(third).fingerprint
    assert code_of(eval("lambda: 1")).fingerprint != code_of(eval("lambda: 2")).fingerprint


def test_a_changed_helper_of_the_same_module_moves_the_fingerprint_of_what_names_it(tmp_path):
    import importlib.util

    from machine.engine.provenance import code_of

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
    assert code_of(before.handler).fingerprint == code_of(same.handler).fingerprint
    assert code_of(before.handler).fingerprint != code_of(after.handler).fingerprint
    assert code_of(before.other).fingerprint == code_of(after.other).fingerprint


def test_two_runs_fed_the_same_facts_have_the_same_digest_whatever_their_order():
    class World(machine.io.transport.BaseTransport):
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


# -- what a replay never does -------------------------------------------------------------------------------------


class Outside(machine.io.transport.BaseTransport):
    """An outside that counts what it was asked, and never waits."""

    def __init__(self):
        self.asked = []

    def is_effect(self, namespace, request):
        return "effect" in request

    async def perform(self, namespace, request):
        self.asked.append(request)
        return request


EFFECTS = {"side_effects": "apply_side_effect", "idempotency": "once"}


async def asks(ctx, io, rec):
    await io.call("world", {"n": 1})
    await io.call("world", {"n": 2}, fact_key="named")
    await io.call("world", {"effect": 1})


async def asks_more(ctx, io, rec):
    await asks(ctx, io, rec)
    await io.call("world", {"n": 3})


async def asks_otherwise(ctx, io, rec):
    await io.call("world", {"effect": 2})


@pytest.mark.parametrize(
    ("now", "identical"),
    [(asks, True), (asks_more, False), (asks_otherwise, False)],
    ids=["the same", "one more", "another"],
)
def test_a_replay_asks_the_outside_nothing_whatever_its_handler_asks(store, now, identical):
    world = Outside()
    result = run(plan_of(asks, **EFFECTS), store=store, transports={"world": world})
    assert len(world.asked) == 3
    found = replay(result.run_id, plan=plan_of(now, **EFFECTS), store=store, transports={"world": world})
    assert (found.identical, len(world.asked)) == (identical, 3)


def test_a_replay_does_not_wait_where_the_run_waited(store, monkeypatch):
    tries = []

    async def handler(ctx, io, rec):
        await io.sleep(0.002)
        tries.append(1)
        if len(tries) % 2:
            raise ValueError("not yet")

    plan = plan_of(handler, retry=machine.RetryPolicy(2, machine.FixedBackoff(0.002)))
    result = run(plan, store=store)
    assert result.status == "completed"
    monkeypatch.setattr("anyio.sleep", None)
    assert replay(result.run_id, plan=plan, store=store).divergence is None


def test_a_replay_takes_as_long_as_it_takes_whatever_the_timeout(store):
    live = []

    async def handler(ctx, io, rec):
        if live:
            await asyncio.sleep(0.6)
        live.append(1)
        ctx["kept"] = await io.env("A")

    plan = plan_of(handler, timeout=0.5)
    result = run(plan, store=store)
    assert result.status == "completed"
    assert replay(result.run_id, plan=plan, store=store).divergence is None


# -- the first difference, and it alone -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "request_", "kind"),
    [("world", {"n": 2}, "request_changed"), ("world.other", {"n": 1}, "call_added")],
    ids=["request", "namespace"],
)
def test_another_call_under_an_explicit_key_is_a_divergence(store, namespace, request_, kind):
    def asking(where, what):
        async def handler(ctx, io, rec):
            ctx["got"] = (await io.call(where, what, fact_key="named")).response

        return handler

    transports = {"world": Outside()}
    result = run(plan_of(asking("world", {"n": 1})), store=store, transports=transports)
    now = plan_of(asking(namespace, request_))
    found = replay(result.run_id, plan=now, store=store, transports=transports).divergence
    assert (found.kind, found.seq) == (kind, 6)


def test_a_failure_with_other_words_is_a_divergence(store):
    def failing(words):
        async def handler(ctx, io, rec):
            raise ValueError(words)

        return handler

    result = run(plan_of(failing("then")), store=store)
    found = replay(result.run_id, plan=plan_of(failing("now")), store=store).divergence
    assert [change.pointer for change in found.changes] == ["/error/message"]


async def failing(ctx, io, rec):
    raise LookupError


@pytest.mark.parametrize(
    ("handler", "last", "kind"),
    [
        (recorded, machine.events.RunCompleted("failed"), "event_differs"),
        (failing, machine.events.RetryScheduled("op.step.middle", 1, 0), "ended_early"),
        # a state that the recorded plan does not have: the recording is none
        (recorded, machine.events.StateSkipped("op.step.other", "skip_tag:x"), "corrupt"),
    ],
    ids=["another end", "no end", "no state"],
)
def test_an_end_that_the_run_does_not_come_to_is_a_divergence(store, handler, last, kind):
    result = run(plan_of(handler), store=store)
    *log, end = store.read_range(result.run_id)
    data = machine.events.seal(end.seq, machine.codec.encode_event(last), result.run_id, 0)
    chain = machine.events.chain_next(log[-1].chain, data)
    with MemoryStore() as other:
        other._contents.artifacts.update(store._contents.artifacts)
        other.append(result.run_id, 0, [*log, machine.stores.StoredEvent(end.seq, data, chain)])
        found = replay(result.run_id, plan=plan_of(handler), store=other).divergence
    assert (found.kind, found.seq) == (kind, end.seq)


@pytest.mark.parametrize("late", [0, 0.05])
def test_a_new_call_is_named_although_another_waits_for_its_turn(store, late):
    async def gathered(ctx, io, rec):
        ctx["both"] = await asyncio.gather(io.env("A"), io.env("B"))

    async def another(ctx, io, rec):
        async def other():
            await asyncio.sleep(late)
            return await io.env("Z")

        ctx["both"] = await asyncio.gather(io.env("B"), other())

    result = run(plan_of(gathered), store=store)
    began = time.monotonic()
    found = replay(result.run_id, plan=plan_of(another), store=store).divergence
    assert (found.kind, found.now) == ("request_changed", {"namespace": "env", "request": {"name": "Z"}})
    assert time.monotonic() - began < 0.9, "whoever waits for a turn is told at once"


def test_the_first_difference_counts_although_the_handler_went_on(store):
    async def goes_on(ctx, io, rec):
        await asyncio.gather(io.env("Z"), return_exceptions=True)
        await io.now()

    result = run(plan_of(recorded), store=store)
    found = replay(result.run_id, plan=plan_of(goes_on), store=store).divergence
    assert (found.kind, found.now) == ("request_changed", {"namespace": "env", "request": {"name": "Z"}})


def test_a_handler_that_tries_again_and_again_cannot_outlive_its_divergence(store):
    async def stubborn(ctx, io, rec):
        for _ in range(1000):
            try:
                ctx["both"] = await io.env("Z")
            except Exception:  # noqa: BLE001 - what such handlers do
                tries.append(1)

    tries = []
    result = run(plan_of(recorded), store=store)
    assert replay(result.run_id, plan=plan_of(stubborn), store=store).divergence.kind == "request_changed"
    assert tries == []


# -- races that need patience -----------------------------------------------------------------------------------


def test_threads_of_a_plain_function_wait_for_their_turn(store):
    class Slow(Outside):
        async def perform(self, namespace, request):
            await asyncio.sleep(request["delay"])
            return request

    def handler(ctx, io, rec):
        def one(delay):
            return io.call("world", {"delay": delay}).response["delay"]

        with ThreadPoolExecutor(2) as threads:
            ctx["delays"] = list(threads.map(one, [0.1, 0]))

    result = run(plan_of(handler), store=store, transports={"world": Slow()})
    assert result.context["delays"] == [0.1, 0]
    found = replay(result.run_id, plan=plan_of(handler), store=store, transports={"world": Slow()})
    assert found.divergence is None


def test_a_handler_that_took_its_time_when_recorded_is_given_it_again(store, monkeypatch):
    class Slow(Outside):
        async def perform(self, namespace, request):
            await asyncio.sleep(0.4)
            return request

    async def handler(ctx, io, rec):
        async def late():
            await asyncio.sleep(0.3)
            return await io.env("A")

        await asyncio.gather(io.call("world", {}), late())

    result = run(plan_of(handler), store=store, transports={"world": Slow()})
    monkeypatch.setattr(replay_log, "STALL_SECONDS", 0.05)
    found = replay(result.run_id, plan=plan_of(handler), store=store, transports={"world": Slow()})
    assert found.divergence is None


def test_damage_that_a_handler_comes_upon_is_said_to_be_damage_whatever_the_handler_makes_of_it(store):
    async def handler(ctx, io, rec):
        with contextlib.suppress(Exception):
            ctx["got"] = (await io.call("world", {"n": 1})).response

    transports = {"world": Outside()}
    result = run(plan_of(handler), store=store, transports=transports)
    del store._contents.artifacts[machine.canonical.artifact_id(b'{"n":1}')]
    divergence = replay(result.run_id, plan=plan_of(handler), store=store, transports=transports).divergence
    assert (divergence.kind, divergence.cause) == ("corrupt", "recording_damaged")
    assert divergence.now["code"] == "artifact_not_found"


def test_a_divergence_that_no_code_explains_names_what_else_has_changed(store, monkeypatch):
    drawn = iter(range(10))

    async def handler(ctx, io, rec):
        ctx["drawn"] = next(drawn)

    result = run(plan_of(handler), store=store)
    alone = replay(result.run_id, plan=plan_of(handler), store=store).divergence
    assert alone.cause == "nothing_changed"
    assert "was" not in alone.cause_text
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    divergence = replay(result.run_id, plan=plan_of(handler), store=store).divergence
    assert divergence.cause_text.endswith("is 3.99.0")


def test_the_lines_of_code_that_changed_are_shown(store):
    async def after(ctx, io, rec):
        a = await io.env("A")
        b = await io.env("B")
        await rec.emit(DomainEvent("noted", {"n": 1}))
        ctx["both"] = [a, b]
        ctx["list"] = [1, {"deep": "y"}]  # as it should be

    result = run(plan_of(recorded), store=store)
    divergence = replay(result.run_id, plan=plan_of(after), store=store).divergence
    assert [line for line in divergence.code if line[0] in "+-"] == [
        "-async def recorded(ctx, io, rec):",
        "+async def after(ctx, io, rec):",
        '-    ctx["list"] = [1, {"deep": "..."}]',  # a text that is no longer there was not kept
        '+    ctx["list"] = [1, {"deep": "y"}]',
    ]
    assert any('+    ctx["list"] = [1, {"deep": "y"}]' in line for line in divergence_text.lines(divergence))


def test_no_text_in_the_source_of_a_handler_is_kept(store):
    async def handler(ctx, io, rec):
        """Know the hunter-1."""
        name = "x"
        ctx["n"] = len(f"hunter-2 {name!r:>4} hunter-3")  # hunter-4
        ctx["m"] = len(r"""hunter-5
        hunter-6""") + len(b"hunter-7")

    run(plan_of(handler), store=store)
    held = b"".join(data for _, data in store._contents.artifacts.values())
    assert b"async def handler" in held
    assert b"hunter" not in held
