"""Clients of aiohttp, unmodified: each request is a call of `http`, live and replayed alike."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import threading
from pathlib import Path

import pytest
from clients.kit import proven, serving

from machine import MachineError, Plan, RunConfig, open_store, replay, run

aiohttp = pytest.importorskip("aiohttp")

PLAN = Path(__file__).with_name("aiohttp_plan.py")


def bare(given):
    """Return what the handlers of the plan write when nothing records them."""
    spec = importlib.util.spec_from_file_location("bare", PLAN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = dict(given)

    async def handlers():
        for handler in (module.read, module.errors, module.write, module.stream):
            await handler(context, None, None)

    asyncio.run(handlers())
    return context


def test_a_program_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path):
    with serving() as server, socket.create_server(("127.0.0.1", 0)) as unused:
        given = {"url": server.url, "closed": f"http://127.0.0.1:{unused.getsockname()[1]}/"}
        unused.close()
        expected = bare(given)
        context = proven(
            PLAN,
            tmp_path,
            given,
            kills=[{"FactRecorded": 4}, {"EffectIntended": 2}],
            arrivals=server.asked.copy,
            stop=server.stop,
        )
    assert context == expected
    assert [name for name, *_ in context["errors"]] == [
        "ServerDisconnectedError",
        "ClientOSError",
        "TimeoutError",
        "SocketTimeoutError",
        "ClientResponseError",
        "ClientConnectorError",
        "TooManyRedirects",
    ]
    assert server.keys == ["pages", "stream"] * (len(server.keys) // 2)


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


@pytest.fixture
def server():
    with serving() as started:
        yield started


@pytest.fixture
def record(store, server):
    """Give a function that runs a handler and replays it without the server; it returns the result."""

    def recorded(handler, *, clients=("aiohttp",), status="completed", **meta):
        plan = Plan("client", clients=list(clients))
        plan.state("a.only", **{"side_effects": "read_only_io", **meta})(handler)
        result = run(plan, store=store)
        assert result.status == status, result.error
        server.stop()
        again = replay(result.run_id, plan=plan, store=store)
        assert again.identical, again.divergence
        return result

    return recorded


def test_a_session_of_io_is_recorded_whatever_the_plan_says(record, server):
    async def handler(ctx, io, rec):
        async with io.aiohttp_session(base_url=server.url, headers={"x-own": "1"}) as session:
            ctx["path"] = (await (await session.get("/echo")).json())["path"]
            ctx["kind"] = type(session).__name__

    assert dict(record(handler, clients=()).context) == {"path": "/echo", "kind": "ClientSession"}
    assert server.requests[0][2]["x-own"] == "1"


def test_an_endless_answer_is_closed_where_its_reader_leaves_it(record, server):
    closed = threading.Event()

    def endless(answer):
        answer.send_response(200)
        answer.send_header("transfer-encoding", "chunked")
        answer.end_headers()
        try:
            while not answer.server.stopping.wait(0.01):
                answer.wfile.write(b"6\r\nline \n\r\n")
                answer.wfile.flush()
        except OSError:
            closed.set()

    server.routes["endless"] = endless

    async def handler(ctx, io, rec):
        async with aiohttp.ClientSession(server.url) as session:
            async with session.get("/endless") as answer:
                ctx["lines"] = [(await answer.content.readline()).decode() for _ in range(3)]
            left = await session.get("/endless")
            ctx["more"] = (await left.content.readexactly(6)).decode()
            left.close()
            if io.performs:
                await asyncio.to_thread(closed.wait, 5)

    assert dict(record(handler).context) == {"lines": ["line \n"] * 3, "more": "line \n"}
    assert closed.is_set()


def test_a_redirect_to_another_origin_leaves_secrets_behind(record, server, monkeypatch):
    monkeypatch.setenv("API_KEY", "the-real-key-1")
    with serving() as other:
        server.routes["away"] = lambda answer: answer.say(302, b"", {"location": f"{other.url}/echo"})

        async def handler(ctx, io, rec):
            headers = {"x-api-key": await io.secret("API_KEY"), "x-plain": "1"}
            away = f"{server.url}/away"
            async with aiohttp.ClientSession(headers=headers) as session, session.get(away) as answer:
                ctx["status"] = answer.status

        assert record(handler).context["status"] == 200
    assert server.requests[0][2]["x-api-key"] == "the-real-key-1"
    assert other.requests[0][2]["x-plain"] == "1"
    assert "x-api-key" not in other.requests[0][2]


def test_a_plain_handler_may_run_a_loop_of_its_own(record, server):
    async def fetched():
        async with aiohttp.ClientSession(server.url) as session:
            async with session.get("/chunks") as answer:
                size = len(await answer.read())
            async with session.post("/echo", json={"a": 1}) as answer:
                return [size, (await answer.json())["body"]]

    def handler(ctx, io, rec):
        ctx["found"] = asyncio.run(fetched())

    found = record(handler, side_effects="apply_side_effect", idempotency="once").context["found"]
    assert found == [8000, '{"a": 1}']
    assert server.keys == ["once"]


def test_a_session_is_of_no_use_after_its_attempt(record, server):
    left = []

    async def handler(ctx, io, rec):
        left.append(io.aiohttp_session(connector=aiohttp.TCPConnector(force_close=True)))
        async with left[-1].get(f"{server.url}/echo") as answer:
            ctx["status"] = answer.status

    record(handler)

    async def late():
        with pytest.raises(MachineError) as caught:
            await left[0].get(f"{server.url}/echo")
        await left[0].close()
        return caught.value.code

    assert asyncio.run(late()) == "attempt_closed"


def test_a_websocket_of_aiohttp_is_refused_by_name(record, server):
    async def handler(ctx, io, rec):
        async with aiohttp.ClientSession() as session:
            await session.ws_connect(f"{server.url}/echo")

    result = record(handler, status="failed")
    assert "use the package websockets" in str(result.error)
    assert server.requests == []


def test_the_boundary_of_a_form_is_no_randomness_of_the_handler(store, server):
    async def handler(ctx, io, rec):
        form = aiohttp.FormData()
        form.add_field("file", b"text", filename="a.txt")
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.url}/echo", data=form) as answer,
        ):
            ctx["status"] = answer.status

    plan = Plan("client", clients=["aiohttp"])
    plan.state("a.only", side_effects="apply_side_effect", idempotency="form")(handler)
    result = run(plan, store=store, config=RunConfig(undeclared_io="error"))
    assert result.status == "completed", result.error
