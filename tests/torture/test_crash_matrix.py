"""The crash matrix: exhaustive over the examples, and telling of what is unsafe."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from campaign import FULL

from machine import DomainEvent, Plan, RetryPolicy, RunConfig, SecretPolicy, new_run_id
from machine.errors import UsageError
from machine.testing import crash_matrix
from machine.torture import FAULTS, Fault
from machine.torture.faulty_store import TorturedStore
from machine.torture.simulated_io import Script, SimulatedIo
from machine.torture.simulated_process import Watch, live

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Git and HTTP as on a machine where nobody has configured anything."""
    for name in list(os.environ):
        if name.startswith("GIT_") or name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


# each cell is a run, a crash, a resume and two replays: usually the examples and the small plans share the faults
PRICES, REPORT = (FAULTS, FAULTS) if FULL else (FAULTS[::3], FAULTS[1::3])


def is_exhaustive(matrix, faults):
    """Say whether every event was struck by each of the faults."""
    struck = {(cell.boundary, cell.fault) for cell in matrix.cells if cell.boundary}
    every = set(itertools.product(matrix.boundaries, faults))
    ends = [(boundary.first_seq, boundary.last_seq) for boundary in matrix.boundaries]
    no_gap = all(first == last + 1 for (_, last), (first, _) in itertools.pairwise([(0, 0), *ends]))
    last = matrix.boundaries[-1].event
    return struck == every and no_gap and last == "run_completed"


REFUND = FAULTS if FULL else FAULTS[2::6]


@pytest.mark.slow
def test_the_refund_is_safe_everywhere_whatever_it_waits_for():
    refund = load("refund")
    answers = {"refund-approval": {"approved": True, "by": "ada"}, "settled": {"at": "today"}}
    with refund.bank() as server:
        given = {"base_url": server.address, "order": 7, "amount": 240_00}
        matrix = crash_matrix(refund.plan, input=given, faults=REFUND, clock="skip", answers=answers)
        assert len(server.refunds) == 1
    assert matrix.safe, matrix.render()
    assert matrix.status == "completed"
    assert is_exhaustive(matrix, REFUND)


@pytest.mark.slow
@pytest.mark.long
def test_the_price_watch_is_safe_everywhere(tmp_path):
    prices, requests = load("price_watch"), []

    class Counting(prices.QuoteHandler):
        def do_GET(self):  # noqa: N802 - the name the server calls
            requests.append(self.path)
            super().do_GET()

    prices.QuoteHandler = Counting
    out = tmp_path / "prices.md"
    given = {"symbols": ["ETH", "BTC", "SOL"], "alert_below": {"ETH": "9999"}, "out": str(out)}
    with prices.quote_server() as base_url:
        matrix = crash_matrix(prices.plan, input={**given, "base_url": base_url}, faults=PRICES)
    assert matrix.safe, matrix.render()
    assert matrix.status == "completed"
    assert is_exhaustive(matrix, PRICES)
    assert len(requests) == 5, "the first run asks, a busy answer and a retry included; no other does"
    assert out.exists()


@pytest.mark.slow
@pytest.mark.long
def test_the_repository_report_is_safe_everywhere(tmp_path):
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "LICENSE").write_text("Permission is hereby granted, free of charge")
    (repo / "README.md").write_text("# Title\n")
    for args in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run(["git", *who, "-C", str(repo), *args], check=True)
    out = tmp_path / "report.md"
    seen = []

    def watch_file(done, total):
        seen.append((done, total, out.exists()))
        out.unlink(missing_ok=True)

    given = {"repo": str(repo), "out": str(out)}
    matrix = crash_matrix(load("repo_report").plan, input=given, faults=REPORT, progress=watch_file)
    assert matrix.safe, matrix.render()
    assert is_exhaustive(matrix, REPORT)
    assert [done for done, _, _ in seen] == list(range(1, seen[0][1] + 1))
    assert [there for _, _, there in seen] == [True] + [False] * (len(seen) - 1), "written by the first run"


def test_every_kind_of_event_is_a_boundary(small, world):
    matrix = crash_matrix(small, transports=world, faults=["killed_after_append"])
    assert matrix.safe, matrix.render()
    assert matrix.render() == f"{len(matrix.boundaries)} boundaries x 1 faults: all safe"
    assert {boundary.event for boundary in matrix.boundaries} == {
        "run_started",
        "state_entered",
        "fact_recorded",
        "effect_intended",
        "domain_event",
        "state_completed",
        "state_failed",
        "retry_scheduled",
        "run_completed",
    }
    (pair,) = [each for each in matrix.boundaries if each.event == "domain_event"]
    assert pair.last_seq == pair.first_seq + 1, "emit_many is one append"


@pytest.mark.slow
@pytest.mark.long
def test_the_outside_is_touched_by_the_first_run_alone(small, world):
    matrix = crash_matrix(small, transports=world, faults=["fsync_lost"])
    assert len(matrix.cells) == len(matrix.boundaries) + 1
    assert len(world["world"].asked) == 10


@pytest.mark.slow
def test_a_run_that_fails_is_tortured_like_any_other(outside):
    plan = Plan("fails", version="1")

    @plan.state("only.one")
    async def one(ctx, io, rec):
        await io.call("world", {"flaky": 1})

    matrix = crash_matrix(plan, transports={"world": outside()})
    assert (matrix.status, matrix.safe) == ("failed", True), matrix.render()


@pytest.fixture
def sends():
    """Give a plan of one state, which fails once after its effect."""
    plan = Plan("sends", version="1")

    @plan.state("write.effect", side_effects="apply_side_effect", idempotency="order/1", retry=RetryPolicy(2))
    async def effect(ctx, io, rec):
        ctx["effect"] = (await io.call("world", {"do": 1})).response
        ctx["after"] = (await io.call("world", {"after": 1})).response

    return plan


@pytest.mark.slow
@pytest.mark.long
def test_an_effect_whose_receiver_cannot_tell_is_unsafe_between_intent_and_fact(sends, outside):
    receiver = outside(keyed=False)
    receiver.one_effect_per_key = False
    matrix = crash_matrix(sends, transports={"world": receiver}, faults=[Fault.KILLED_AFTER_APPEND])
    assert matrix.safe, "the effect has not left yet, or its fact is there"
    matrix = crash_matrix(sends, transports={"world": outside(keyed=False)}, faults=["killed_before_append"])
    assert matrix.safe, "where a transport says one effect per key, the call brings its own"
    receiver.busy = {"after"}
    matrix = crash_matrix(sends, transports={"world": receiver}, faults=["killed_before_append"])
    assert matrix.unsafe
    assert {cell.boundary.state_id for cell in matrix.unsafe} == {"sends.write.effect"}
    assert {cell.reason for cell in matrix.unsafe} == {
        "an effect of world was sent twice, and its receiver cannot tell"
    }
    receiver.busy = {"after"}
    matrix = crash_matrix(
        sends, transports={"world": receiver}, faults=["killed_before_append"], idempotent=["world"]
    )
    assert matrix.safe, "whoever says that twice is the same as once is believed"


def test_the_table_names_event_state_fault_and_reason(sends, outside):
    receiver = outside(keyed=False)
    receiver.one_effect_per_key = False
    matrix = crash_matrix(sends, transports={"world": receiver}, faults=["enospc"], stop_at_first=True)
    head, columns, *lines = matrix.render().splitlines()
    boundaries = len(matrix.boundaries)
    assert (
        head
        == f"{boundaries} boundaries x 1 faults: 1 unsafe, {boundaries + 1 - len(matrix.cells)} not tried"
    )
    assert columns.split() == ["SEQ", "EVENT", "STATE", "FAULT", "REASON"]
    (line,) = lines
    assert "fact_recorded" in line
    assert "sends.write.effect" in line
    assert "ENOSPC" in line
    assert line.endswith("its receiver cannot tell")


def test_a_plan_that_differs_by_itself_is_not_judged():
    plan, numbers = Plan("random", version="1"), itertools.count()

    @plan.state("only.one")
    async def one(ctx, io, rec):
        ctx["number"] = next(numbers)

    matrix = crash_matrix(plan)
    (cell,) = matrix.unsafe
    assert (cell.boundary, cell.fault) == (None, None)
    assert cell.reason == "replay: the context differs in number"
    assert matrix.render().startswith("no boundary was struck: the run itself does not repeat\n")


def test_a_handler_that_does_otherwise_after_a_crash_is_found():
    plan, lives = Plan("fickle", version="1"), set()

    @plan.state("first.one")
    async def one(ctx, io, rec):
        ctx["one"] = await io.now()

    @plan.state("second.two", after=[one])
    async def two(ctx, io, rec):
        # what a cut attempt left behind in a file or a module is the usual way to get this wrong
        await rec.emit(DomainEvent("seen", {"again": len(lives)}))
        ctx["two"] = await io.now()
        lives.clear()

    @plan.state("third.three", after=[two])
    async def three(ctx, io, rec):
        lives.add("three")
        ctx["three"] = await io.now()
        lives.clear()

    safe = crash_matrix(plan, faults=["killed_before_append"])
    assert safe.safe, safe.render()

    leaky = Plan("leaky", version="1")

    @leaky.state("only.one")
    async def leak(ctx, io, rec):
        again = "begun" in lives
        lives.add("begun")
        ctx["at"] = await io.now()
        ctx["again"] = again
        lives.clear()

    unsafe = crash_matrix(leaky, faults=["killed_before_append"])
    assert "the final context is another" in {cell.reason for cell in unsafe.unsafe}


@pytest.mark.slow
@pytest.mark.long
def test_calls_that_race_are_no_difference(outside):
    plan = Plan("races", version="1")

    @plan.state("only.one")
    async def one(ctx, io, rec):
        import asyncio

        both = await asyncio.gather(io.call("world", {"n": 1}), io.call("world", {"n": 2}))
        ctx["both"] = [each.response for each in both]

    matrix = crash_matrix(plan, transports={"world": outside()})
    assert matrix.safe, matrix.render()


def test_a_call_that_was_given_up_is_given_up_again(outside):
    plan = Plan("gives_up", version="1")

    @plan.state("only.one")
    async def one(ctx, io, rec):
        import asyncio

        slow = asyncio.ensure_future(io.sleep(3600))
        ctx["fast"] = (await io.call("world", {"n": 1})).response
        slow.cancel()
        await asyncio.wait([slow])

    matrix = crash_matrix(plan, transports={"world": outside()}, faults=["killed_after_append", "fsync_lost"])
    assert matrix.safe, matrix.render()


def test_a_matrix_as_json_is_json(small, world):
    matrix = crash_matrix(small, transports=world, faults=["torn_write"])
    told = json.loads(json.dumps(matrix.to_json()))
    assert (told["op_id"], told["status"], told["safe"]) == ("small", "completed", True)
    assert (told["faults"], len(told["boundaries"])) == (["torn_write"], 28)
    assert told["cells"][1] == {
        "boundary": {
            "number": 1,
            "first_seq": 1,
            "last_seq": 1,
            "event": "run_started",
            "state_id": None,
        },
        "fault": "torn_write",
        "safe": True,
        "reason": None,
    }


def test_torture_needs_neither_pytest_nor_hypothesis():
    probe = "import sys, machine.testing; print({'pytest', 'hypothesis'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert said.stdout == "set()\n"


def test_a_fault_that_is_none_is_refused(small):
    with pytest.raises(UsageError, match="no fault 'flood'"):
        crash_matrix(small, faults=["flood"])


def test_a_run_with_child_runs_is_refused_as_what_it_is():
    child, parent = Plan("child", version="1"), Plan("parent", version="1")

    @child.state("a.one")
    async def one(ctx, io):
        ctx["now"] = await io.now()

    @parent.state("a.begin")
    async def begin(ctx, io):
        ctx["status"] = (await io.run_child(child)).status

    with pytest.raises(UsageError, match="begins a child run, and a matrix is of one run"):
        crash_matrix(parent)
    assert crash_matrix(child, faults=["killed_after_append"]).safe


def test_the_waits_between_attempts_take_no_time(small):
    import anyio

    watch = Watch(SimulatedIo(Script({}, {}, str(new_run_id()), None), small.graph, {}))

    async def wait():
        watch.waiting("small.read.flaky", 86_400.0)
        await anyio.sleep(86_400.0)
        return "a day later"

    assert live(wait, watch) == "a day later"


def test_effects_that_race_are_safe_when_the_process_dies_as_a_call_has_returned(outside):
    """A call that has an outcome but waits for its turn has not returned."""
    plan = Plan("races", version="1")

    @plan.state("write.all", side_effects="apply_side_effect", idempotency="k")
    async def write(ctx, io, rec):
        async def one(n):
            await io.call("world", {"do": n})
            await rec.emit(DomainEvent("done", {"n": n}))

        async with anyio.create_task_group() as tasks:
            for n in range(3):
                tasks.start_soon(one, n)

    @plan.state("write.plain", after=[write], side_effects="apply_side_effect", idempotency="p")
    def plain(ctx, io, rec):
        io.call("world", {"do": "a"})
        io.call("world", {"do": "b"})

    matrix = crash_matrix(plan, transports={"world": outside(keyed=False)}, faults=["killed_after_return"])
    effects = [cell for cell in matrix.cells if cell.boundary and cell.boundary.event == "fact_recorded"]
    assert len(effects) == 5
    # whose intent is on the disk and whose outcome nobody has is sent again: this receiver knows no keys
    unsafe = {cell.boundary.event for cell in matrix.unsafe}
    assert "fact_recorded" not in unsafe, matrix.render()


@pytest.mark.slow
def test_a_run_with_secrets_is_safe_everywhere_and_none_is_stored(outside, monkeypatch):
    """What is asked of the outside is told apart by its true values, and answered with them."""
    key, tokens, true, left = "the-real-key-1x9", [], "true-9a8b7c6d5e4f", set()
    monkeypatch.setenv("SHOP_KEY", key)

    class Shop(outside):
        async def perform(self, namespace, request):
            answer = await super().perform(namespace, request)
            if "login" in request:
                assert request["headers"] == {"x-api-key": key}
                tokens.append(f"tok-5f1d7c0b9e4a{request['login']}")
                return {"access_token": tokens[-1], "id_token": true}
            return answer

    plan, close = Plan("signed", version="1"), TorturedStore.close

    @plan.state("read.all", side_effects="read_only_io", retry=RetryPolicy(3))
    async def read(ctx, io, rec):
        given = await io.secret("SHOP_KEY")
        for number in range(2):
            login = {"login": number, "headers": {"x-api-key": given}}
            token = (await io.call("world", login)).response["access_token"]
            headers = {"authorization": f"Bearer {token}"}
            ctx[f"n{number}"] = (await io.call("world", {"headers": headers})).response
        assert token == f"tok-5f1d7c0b9e4a{number}"
        await io.call("world", {"flaky": given})

    @plan.state("write.effect", after=[read], side_effects="apply_side_effect", idempotency="order/1")
    async def write(ctx, io, rec):
        given = await io.secret("SHOP_KEY")
        login = (await io.call("world", {"login": 2, "headers": {"x-api-key": given}})).response
        sent = {"do": 1, "headers": {"authorization": f"Bearer {login['id_token']}"}}
        ctx["sent"] = (await io.call("world", sent)).response

    def closing(store):
        for file in store._place.parent.glob("*.db*"):
            left.update(value for value in (key, true, *tokens) if value.encode() in file.read_bytes())
        close(store)

    monkeypatch.setattr(TorturedStore, "close", closing)
    config = RunConfig(secrets=SecretPolicy(stand_ins={"id_token": "an-invented-token"}))
    world = Shop()
    faults = FAULTS if FULL else [Fault.KILLED_BEFORE_APPEND]
    matrix = crash_matrix(plan, transports={"world": world}, config=config, faults=faults)
    assert matrix.safe, matrix.render()
    assert is_exhaustive(matrix, faults)
    sent = [request["headers"]["authorization"] for request in world.asked if "do" in request]
    assert sent == [f"Bearer {true}"]
    assert not left
