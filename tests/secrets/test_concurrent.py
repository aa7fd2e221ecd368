"""Secrets of concurrent states: what a state stores depends on what it could know, not on which was first."""

import asyncio

import pytest
from campaign import FULL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machine import DomainEvent, MachineError, Plan, RunConfig, open_store, replay, resume, run, schedules
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.events import DomainEventRecorded, FactRecorded, StateEntered, StateFailed
from machine.secrets.store_key import open_keys
from tests.crashes import left_after
from tests.secrets.engine_world import KEY, Outside, elsewhere, stored

CONCURRENT = RunConfig(execution_mode=FanOutJoin(4, on_failure="finish"))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY", KEY)


def says(what, when):
    """Return a plan in which a state says what another, which it does not follow, reads as a secret."""
    plan, first, second = Plan("says"), asyncio.Event(), asyncio.Event()

    async def after_the_other():
        """Return after the other state, in a live run; a replay makes one after the other."""
        first.set()
        for _ in range(200):
            if second.is_set():
                return
            await asyncio.sleep(0)

    @plan.state("a.reads", side_effects="read_only_io")
    async def reads(ctx, io, rec):
        if when == "before":
            await after_the_other()
        await io.secret("KEY")
        second.set()
        ctx["read"] = True

    @plan.state("b.says", side_effects="read_only_io")
    async def speaks(ctx, io, rec):
        if when == "after":
            await after_the_other()
        try:
            if what == "event":
                await rec.emit(DomainEvent("said", {"text": f"it is {KEY}"}))
            elif what == "context":
                ctx["said"] = f"it is {KEY}"
            elif what == "request":
                await io.call("api", {"text": f"it is {KEY}"})
            else:
                raise RuntimeError(f"it is {KEY}")
        finally:
            second.set()

    return plan


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["event", "context", "error", "request"])
def test_what_another_state_knows_as_a_secret_is_stored_alike(tmp_path, what, when):
    store, transports = open_store("memory://"), {"api": Outside(lambda _: {})}
    plan = says(what, when)
    result = run(plan, store=store, config=CONCURRENT, transports=transports)
    found = schedules(result.run_id, plan=plan, store=store, count=5)
    assert found.identical, found.divergence
    for there in (store, elsewhere(store, result.run_id, tmp_path)):
        again = replay(result.run_id, plan=plan, store=there)
        assert again.identical, again.divergence
    plan = says(what, "after" if when == "before" else "before")
    assert run(plan, store=store, config=CONCURRENT, transports=transports).digest == result.digest


VALUES = [f"val-{number}-4f9a8e7d6c5b" for number in range(3)]
ACTS = st.tuples(st.sampled_from(["read", "event", "echo", "request"]), st.integers(0, 2), st.integers(0, 4))
STATES = st.lists(
    st.tuples(st.lists(ACTS, min_size=1, max_size=4), st.sets(st.integers(0, 3)), st.booleans()),
    min_size=2,
    max_size=5,
)


def drawn_plan(states, live):
    """Return a plan of drawn states; each act waits some turns of the event loop, while `live` holds anything."""
    plan, ids = Plan("drawn"), []
    for number, (acts, after, fails) in enumerate(states):

        async def handler(ctx, io, rec, acts=acts, number=number, fails=fails):
            for act, value, turns in acts:
                for _ in range(turns * bool(live)):
                    await asyncio.sleep(0)
                text = f"it is {VALUES[value]}"
                if act == "read":
                    await io.secret(f"KEY{value}")
                elif act == "event":
                    await rec.emit(DomainEvent("said", {"text": text}))
                elif act == "echo":
                    await io.call("api", {"say": value})
                else:
                    try:
                        await io.call("api", {"text": text})
                    except MachineError as exc:
                        ctx[f"refused{number}"] = exc.code
            if fails:
                raise RuntimeError(f"not {VALUES[number % 3]}")

        follows = [ids[at] for at in sorted(after) if at < number]
        plan.state(f"s.n{number}", after=follows, side_effects="read_only_io")(handler)
        ids.append(f"s.n{number}")
    return plan


def last_said(store, run_id):
    """Return what the last attempt of each state emitted, and its error; nothing where a crash cut it."""
    said = {}
    for entry, _ in run_reader.entries(store, run_id):
        event = entry.event
        if isinstance(event, StateEntered):
            said[event.state_id] = []
        elif isinstance(event, DomainEventRecorded):
            said[event.state_id].append(event.payload)
        elif isinstance(event, StateFailed):
            said[event.state_id].append(event.error)
            if event.cut:
                del said[event.state_id]
    return said


@settings(
    max_examples=200 if FULL else 15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(states=STATES, cut=st.floats(0, 1))
def test_any_schedule_is_replayed_in_any_other_and_a_cut_run_comes_to_what_was_whole(
    monkeypatch, states, cut
):
    for number, value in enumerate(VALUES):
        monkeypatch.setenv(f"KEY{number}", value)
    store, live = open_store("memory://"), {"live": True}
    transports = {
        "api": Outside(lambda request: {"said": VALUES[request["say"]] if "say" in request else ""})
    }
    plan = drawn_plan(states, live)
    result = run(plan, store=store, config=CONCURRENT, transports=transports)
    length = 1 + int(cut * (result.head_seq - 2))
    left = left_after(store, result.run_id, length)
    open_keys(store).share(result.run_id, left)
    resumed = resume(left, plan=plan, store=store, transports=transports)
    live.clear()
    for run_id in (result.run_id, left):
        found = schedules(run_id, plan=plan, store=store, count=3)
        assert found.identical, found.divergence
    if not any(act == "echo" for acts, _, _ in states for act, _, _ in acts):  # an answer is an input
        said, after = last_said(store, result.run_id), last_said(store, left)
        assert {state: after[state] for state in said.keys() & after} == {
            state: said[state] for state in said.keys() & after
        }
        if result.status == "completed":  # once one has failed, which others are begun is a matter of pace
            assert (resumed.context, after.keys() - said) == (result.context, set())


def test_a_secret_that_states_before_it_have_read_is_in_nothing_that_a_state_stores():
    store, plan = open_store("memory://"), Plan("follows")

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        await io.secret("KEY")

    plan.state("b.between", after=[read])(lambda ctx, io, rec: None)

    @plan.state("c.say", after=["b.between"], side_effects="read_only_io")
    async def say(ctx, io, rec):
        await rec.emit(DomainEvent("said", {"text": KEY}))
        raise RuntimeError(f"it is {KEY}")

    @plan.state("d.beside", side_effects="read_only_io")
    async def beside(ctx, io, rec):
        await rec.emit(DomainEvent("said", {"text": "it is another"}))

    result = run(plan, store=store, config=CONCURRENT)
    assert KEY.encode() not in stored(store, result.run_id)
    assert schedules(result.run_id, plan=plan, store=store, count=5).identical


TOKENS = [f"tok-{number}9f8e7d6c5b4a3f2e" for number in range(3)]
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["read", "login", "pass", "whose", "echo", "own", "literal", "event"]),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=4,
)
SIDE_BY_SIDE = st.lists(st.tuples(CALLS, st.sets(st.integers(0, 3))), min_size=2, max_size=4)


def answer_of(request):
    """Answer with secrets: each token under its own name, in what repeats it, and in places of its own."""
    match request:
        case {"login": number}:
            return {"access_token": TOKENS[number], "said": [f"it is {TOKENS[number]}", {"id": number}]}
        case {"whose": number}:
            return {"user": f"u{number}", "api_key": VALUES[number], "refresh_token": TOKENS[number]}
        case {"echo": number}:
            return {"text": f"it is {TOKENS[number]}"}
        case {"own": number}:
            return {"text": f"it is {VALUES[number]}", "api_key": f"{VALUES[number]}-{TOKENS[number]}"}
    return {}


def paced_plan(states, turns):
    """Return a plan in which each call waits as many turns of the event loop as `turns` says next."""
    plan, ids = Plan("paced"), []
    for number, (calls, after) in enumerate(states):

        async def handler(ctx, io, rec, calls=calls, number=number):
            token = "none yet"
            for call, value in calls:
                for _ in range(turns.pop() if turns else 0):
                    await asyncio.sleep(0)
                if call == "read":
                    await io.secret(f"KEY{value}")
                elif call == "own":  # what another reads with io.secret is replaced as soon as it is known
                    await io.secret(f"KEY{value}")
                    token = (await io.call("api", {call: value, "of": number})).response["api_key"]
                elif call == "pass":
                    headers = {"authorization": f"Bearer {token}"}
                    await io.call("api", {"headers": headers, "text": f"with {token}"})
                elif call == "event":
                    await rec.emit(DomainEvent("said", {"text": f"it is {token}"}))
                elif call == "literal":
                    try:
                        await io.call("api", {"text": f"it is __secret_KEY{value}__"})
                    except MachineError as exc:
                        ctx[f"refused{number}"] = exc.code
                else:
                    answer = (await io.call("api", {call: value, "of": number})).response
                    token = answer.get("access_token") or answer.get("refresh_token") or token

        follows = [ids[at] for at in sorted(after) if at < number]
        plan.state(f"s.n{number}", after=follows, side_effects="read_only_io")(handler)
        ids.append(f"s.n{number}")
    return plan


def facts_of(store, run_id):
    """Return what a run has of its calls, by state, in any order."""
    events = [entry.event for entry, _ in run_reader.entries(store, run_id)]
    return {
        (each.state_id, each.namespace, each.request_digest, each.outcome)
        for each in events
        if isinstance(each, FactRecorded)
    }


@settings(
    max_examples=200 if FULL else 15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(states=SIDE_BY_SIDE, paces=st.lists(st.lists(st.integers(0, 40), max_size=16), min_size=3, max_size=3))
def test_a_run_has_one_digest_at_any_pace_and_after_a_cut_at_every_event_the_same_calls(
    monkeypatch, tmp_path_factory, states, paces
):
    for number, value in enumerate(VALUES):
        monkeypatch.setenv(f"KEY{number}", value)
    store, transports = open_store("memory://"), {"api": Outside(answer_of)}
    results = []
    for pace in paces:
        plan = paced_plan(states, list(pace))
        results.append(run(plan, store=store, config=CONCURRENT, transports=transports))
    assert len({result.digest for result in results}) == 1
    plan = paced_plan(states, [])
    assert schedules(results[0].run_id, plan=plan, store=store, count=3).identical
    whole = results[0]
    again = replay(
        whole.run_id, plan=plan, store=elsewhere(store, whole.run_id, tmp_path_factory.mktemp("a"))
    )
    assert again.identical, again.divergence
    for length in range(2, whole.head_seq - 1):
        left = left_after(store, whole.run_id, length)
        open_keys(store).share(whole.run_id, left)
        resumed = resume(left, plan=plan, store=store, transports=transports)
        assert resumed.context == whole.context
        assert facts_of(store, left) == facts_of(store, whole.run_id), length
        assert schedules(left, plan=plan, store=store, count=2).identical
