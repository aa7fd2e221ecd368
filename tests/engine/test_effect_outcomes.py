"""The outcome of an effect is on the disk before anybody is given it."""

from __future__ import annotations

import asyncio
import http.server
import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import machine
from machine import Plan, RunConfig
from machine.config import FanOutJoin, UndeclaredIo
from machine.engine import run_reader
from machine.errors import Code, IoError, OtherIoError, OtherStoreError, StoreError
from machine.events import EffectIntended, FactError, FactRecorded
from machine.stores import MemoryStore, open_store

EFFECT: dict[str, Any] = {"side_effects": "apply_side_effect", "idempotency": "k"}
ALLOW = RunConfig(undeclared_io=UndeclaredIo.ALLOW)


@pytest.fixture(params=["effects", "states", "facts"])
def config(request):
    return RunConfig(durability=request.param, undeclared_io="allow")


@pytest.fixture
def disk(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        yield store


@pytest.fixture
def server():
    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")

        def log_message(self, *args):
            return

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}/"
    serving.shutdown()
    serving.server_close()


def open_effects(store, run_id):
    """Return how many effects of a run the disk knows to be intended, and of how many it knows the outcome."""
    events = [entry.event for entry, _ in run_reader.entries(store, run_id)]
    intended = {event.key for event in events if isinstance(event, EffectIntended)}
    known = {event.key for event in events if isinstance(event, FactRecorded)} & intended
    return len(intended), len(known)


async def by_http(io, url, folder):
    await io.http("POST", url)


async def by_client(io, url, folder):
    async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
        await client.post(url, json={})


async def by_stream(io, url, folder):
    client = httpx.AsyncClient(transport=io.httpx_transport())
    async with client, client.stream("POST", url) as response:
        await anext(response.aiter_raw())


async def by_program(io, url, folder):
    await io.exec(["true"])


async def by_file(io, url, folder):
    await io.write_file(f"{folder}/written", "x")


async def by_transport(io, url, folder):
    await io.call("world", {"n": 1})


async def by_key(io, url, folder):
    await io.call("world", {"n": 1}, "named")


async def by_error(io, url, folder):
    with pytest.raises(IoError):
        await io.call("world", {"fails": True})


async def by_task(io, url, folder):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(io.call, "world", {"n": 1})


WAYS = [by_http, by_client, by_stream, by_program, by_file, by_transport, by_key, by_error, by_task]


def answer(request):
    return OtherIoError("no", code="no_luck") if "fails" in request else {}


@pytest.mark.parametrize("way", WAYS)
def test_the_outcome_is_durable_when_the_call_returns(disk, config, way, server, tmp_path, scripted):
    plan, run_id, seen = Plan("op"), str(machine.new_run_id()), []

    @plan.state("out.pay", **EFFECT)
    async def pay(ctx, io, rec):
        await way(io, server, tmp_path)
        seen.append(open_effects(disk, run_id))

    machine.run(
        plan,
        store=disk,
        run_id=run_id,
        config=config,
        transports={"world": scripted(answer, effect=True)},
    )
    assert seen == [(1, 1)]


PLAIN = {
    "http": lambda io, url, folder: io.http("POST", url),
    "client": lambda io, url, folder: httpx.Client(transport=io.httpx_transport()).post(url),
    "program": lambda io, url, folder: io.exec(["true"]),
    "file": lambda io, url, folder: io.write_file(f"{folder}/written", "x"),
    "transport": lambda io, url, folder: io.call("world", {"n": 1}),
}


@pytest.mark.parametrize("way", PLAIN.values(), ids=PLAIN)
def test_it_is_in_a_plain_handler_too(disk, config, way, server, tmp_path, scripted):
    plan, run_id, seen = Plan("op"), str(machine.new_run_id()), []

    @plan.state("out.pay", **EFFECT)
    def pay(ctx, io, rec):
        way(io, server, tmp_path)
        seen.append(open_effects(disk, run_id))

    machine.run(plan, store=disk, run_id=run_id, config=config, transports={"world": scripted(effect=True)})
    assert seen == [(1, 1)]


class Counting:
    """A store's `append`, counted."""

    def __init__(self, store, monkeypatch):
        self.commits = 0
        append = store.append

        def counted(*args, **more):
            self.commits += 1
            append(*args, **more)

        monkeypatch.setattr(store, "append", counted)


def test_effects_that_return_together_share_a_commit(disk, monkeypatch, scripted):
    plan, run_id, seen = Plan("op"), str(machine.new_run_id()), []
    together = anyio.Event()

    class Together(scripted):
        async def perform(self, namespace, request):
            self.asked.append(request)
            if len(self.asked) == 20:
                together.set()
            await together.wait()
            return {}

    @plan.state("out.pay", side_effects="apply_side_effect", idempotency="k")
    async def pay(ctx, io, rec):
        async def one(n):
            await io.call("world", {"n": n})
            seen.append((open_effects(disk, run_id)[1], count.commits))

        async with anyio.create_task_group() as tasks:
            for n in range(20):
                tasks.start_soon(one, n)

    world = Together(effect=True)
    world.one_effect_per_key = False
    count = Counting(disk, monkeypatch)
    machine.run(plan, store=disk, run_id=run_id, config=ALLOW, transports={"world": world})
    assert [known for known, _ in seen] == [20] * 20
    assert len({commits for _, commits in seen}) == 1
    assert machine.replay(run_id, plan=plan, store=disk, undeclared_io="allow").identical


def test_states_whose_effects_return_together_share_a_commit(disk, monkeypatch, scripted):
    plan, run_id, seen = Plan("op"), str(machine.new_run_id()), []
    together = anyio.Event()

    class Together(scripted):
        async def perform(self, namespace, request):
            self.asked.append(request)
            if len(self.asked) == 5:
                together.set()
            await together.wait()
            return {}

    for number in range(5):

        @plan.state(f"out.pay{number}", **EFFECT)
        async def pay(ctx, io, rec, number=number):
            await io.call("world", {"n": number})
            seen.append((open_effects(disk, run_id), count.commits))

    count = Counting(disk, monkeypatch)
    config = RunConfig(execution_mode=FanOutJoin(5), undeclared_io="allow")
    machine.run(plan, store=disk, run_id=run_id, config=config, transports={"world": Together(effect=True)})
    assert [known for (_, known), _ in seen] == [5] * 5
    assert len({commits for _, commits in seen}) == 1


def test_an_effect_that_was_given_up_is_durable_when_the_handler_goes_on(disk, config, scripted):
    plan, run_id, seen = Plan("op"), str(machine.new_run_id()), []

    @plan.state("out.pay", **EFFECT)
    async def pay(ctx, io, rec):
        with anyio.move_on_after(0.05):
            await io.call("world", {"delay": 60})
        seen.append(open_effects(disk, run_id))

    machine.run(plan, store=disk, run_id=run_id, config=config, transports={"world": scripted(effect=True)})
    assert seen == [(1, 1)]


def test_whoever_is_given_an_outcome_without_having_made_the_call_is_given_a_durable_one(disk, scripted):
    """One task is given up while the outcome of its effect waits for its turn; others ask under its key."""
    plan, run_id, seen = Plan("op"), str(machine.new_run_id()), []

    @plan.state("out.pay", **EFFECT)
    async def pay(ctx, io, rec):
        async def first():
            await io.call("world", {"n": 1}, "key")

        task = asyncio.ensure_future(first())
        for _ in range(100):
            await asyncio.sleep(0)
            if io.get_recorded_fact("key") is not None:
                seen.append(open_effects(disk, run_id))
            if open_effects_in(io) == 1:
                break
        task.cancel()
        await asyncio.wait([task])
        assert io.get_recorded_fact("key") == {}
        seen.append(open_effects(disk, run_id))
        await io.call("world", {"n": 1}, "key")
        seen.append(open_effects(disk, run_id))

    def open_effects_in(io):
        return sum(fact.key == "key" for fact in io._scope.log.history.facts.values())

    world = scripted(lambda request: {}, effect=True)
    machine.run(plan, store=disk, run_id=run_id, config=ALLOW, transports={"world": world})
    assert len(world.asked) == 1
    assert seen == [(1, 1), (1, 1)]


def test_what_reconcile_found_out_is_durable_before_the_handler_is_given_it(disk, config, scripted):
    plan, run_id, seen, cut = Plan("op"), str(machine.new_run_id()), [], ["now"]

    async def asks(ctx, io, effect):
        return effect.happened({"found": True})

    @plan.state("out.pay", on_uncertain="reconcile", reconcile=asks, **EFFECT)
    async def pay(ctx, io, rec):
        assert (await io.call("world", {"n": 1})).response == {"found": True}
        seen.append(open_effects(disk, run_id))

    def dies(request):
        cut.pop()
        raise KeyboardInterrupt

    transports = {"world": scripted(dies, effect=True)}
    with pytest.raises(KeyboardInterrupt):
        machine.run(plan, store=disk, run_id=run_id, config=config, transports=transports)
    assert machine.resume(run_id, plan=plan, store=disk, transports=transports).status == "completed"
    assert seen == [(1, 1)]


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_an_outcome_that_cannot_be_kept_is_not_given_to_the_handler(scripted, config, plain):
    class Failing(MemoryStore):
        fails = False

        def append(self, *args, **more):
            if self.fails:
                raise OtherStoreError("the disk is full", code=Code.STORE_FULL)
            super().append(*args, **more)

    plan, got = Plan("op"), []

    def perform(request):
        store.fails = True
        return {}

    if plain:

        @plan.state("out.pay", **EFFECT)
        def pay_plainly(ctx, io, rec):
            try:
                got.append(io.call("world", {"n": 1}))
            except StoreError as exc:
                got.append(exc.code)

    else:

        @plan.state("out.pay", **EFFECT)
        async def pay(ctx, io, rec):
            try:
                got.append(await io.call("world", {"n": 1}))
            except StoreError as exc:
                got.append(exc.code)

    with Failing() as store:
        with pytest.raises(StoreError):
            machine.run(
                plan, store=store, config=config, transports={"world": scripted(perform, effect=True)}
            )
        assert got == [Code.STORE_FULL]


def test_a_read_does_not_wait_for_the_disk(disk, scripted, monkeypatch):
    plan, seen = Plan("op"), []

    @plan.state("in.read")
    async def read(ctx, io, rec):
        before = count.commits
        await io.call("world", {"n": 1})
        seen.append(count.commits - before)

    count = Counting(disk, monkeypatch)
    machine.run(plan, store=disk, config=ALLOW, transports={"world": scripted()})
    assert seen == [0]


PAYS = """
import os, signal, sys, time
from machine import Plan, RunConfig, open_store, run

plan = Plan("pays")

@plan.state("out.pay", side_effects="apply_side_effect", idempotency="k")
async def pay(ctx, io, rec):
    {call}
    time.sleep(float(sys.argv[2]))
    os.kill(os.getpid(), signal.SIGKILL)

config = RunConfig(durability=sys.argv[1], undeclared_io="allow")
run(plan, store=open_store("sqlite:///runs.db"), run_id=sys.argv[3], config=config)
"""

CALLS = {"program": 'await io.exec(["true"])', "file": 'await io.write_file("written", "x")'}


@pytest.mark.slow
@pytest.mark.parametrize(("call", "delay"), list(itertools.product(CALLS.values(), ["0", "0.03"])))
@pytest.mark.parametrize("durability", ["effects", "states", "facts"])
def test_a_process_killed_right_after_a_call_has_its_outcome(tmp_path, durability, call, delay):
    (tmp_path / "pays.py").write_text(PAYS.replace("{call}", call))
    run_id = str(machine.new_run_id())
    done = subprocess.run(
        [sys.executable, "pays.py", durability, delay, run_id],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(machine.__file__).parents[1])},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        assert open_effects(store, run_id) == (1, 1)


def test_the_error_of_an_effect_is_kept_like_its_success(disk, scripted):
    plan, run_id = Plan("op"), str(machine.new_run_id())

    @plan.state("out.pay", **EFFECT)
    async def pay(ctx, io, rec):
        with pytest.raises(IoError):
            await io.call("world", {"fails": True})
        facts = [e.event for e, _ in run_reader.entries(disk, run_id) if isinstance(e.event, FactRecorded)]
        assert [isinstance(fact.outcome, FactError) for fact in facts] == [True]

    world = {"world": scripted(answer, effect=True)}
    assert machine.run(plan, store=disk, run_id=run_id, config=ALLOW, transports=world).status == "completed"
