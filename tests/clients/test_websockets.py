"""Clients of websockets, unmodified: each message is a call of `websocket`, live and replayed alike."""

from __future__ import annotations

import asyncio
import http
import importlib.util
import socket
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from clients.kit import proven

from machine import Plan, RetryPolicy, approve, open_store, replay, resume, run
from machine.errors import StateError

websockets = pytest.importorskip("websockets", "17")
connect = pytest.importorskip("websockets.asyncio.client").connect
sync_connect = pytest.importorskip("websockets.sync.client").connect
sync_server = pytest.importorskip("websockets.sync.server")

PLAN = Path(__file__).with_name("websockets_plan.py")


class Server:
    """A server of WebSockets: `messages` counts what it has received."""

    def __init__(self):
        self.messages = Counter()
        self.stopping = threading.Event()
        self.server = sync_server.serve(
            self.handle,
            "127.0.0.1",
            0,
            process_request=self.admit,
            subprotocols=["tea"],
            select_subprotocol=self.select,
        )
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"ws://127.0.0.1:{self.server.socket.getsockname()[1]}"

    def select(self, connection, offered):
        return "tea" if "tea" in offered else None

    def admit(self, connection, request):
        if request.path == "/slow":
            self.stopping.wait(5)
        if request.path == "/forbidden":
            return connection.respond(http.HTTPStatus.FORBIDDEN, "not you")
        if request.path == "/moved":
            answer = connection.respond(http.HTTPStatus.FOUND, "")
            answer.headers["Location"] = "/count"
            return answer
        return None

    def handle(self, connection):
        with suppress(websockets.exceptions.ConnectionClosed):
            getattr(self, connection.request.path.strip("/"))(connection)

    def feed(self, connection):
        for message in connection:
            self.messages["feed", message] += 1
            text = message if isinstance(message, str) else message.decode()
            for number in range(2):
                connection.send(f"{text} {number}")

    def echo(self, connection):
        for message in connection:
            self.messages["echo", message] += 1
            connection.send(message.upper())

    def count(self, connection):
        for number in range(3):
            connection.send(str(number))
        connection.close(1000, "done")

    def failing(self, connection):
        connection.send("0")
        connection.close(1011, "broken")

    def dropping(self, connection):
        connection.send("0")
        connection.socket.shutdown(socket.SHUT_RDWR)

    def binary(self, connection):
        connection.send(bytes([0, 255]))
        connection.send([b"ab", b"cd"])
        connection.recv()

    def stop(self):
        if not self.stopping.is_set():
            self.stopping.set()
            self.server.shutdown()
            self.thread.join()


@pytest.fixture
def server():
    started = Server()
    yield started
    started.stop()


def bare(given):
    """Return what the handlers of the plan write when nothing records them."""
    spec = importlib.util.spec_from_file_location("bare_websockets", PLAN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = dict(given)
    asyncio.run(module.read(context, None, None))
    module.blocking(context, None, None)
    asyncio.run(module.write(context, None, None))
    module.write_blocking(context, None, None)
    return context


def test_a_program_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path, server):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        given = {"url": server.url, "closed_url": f"ws://127.0.0.1:{unused.getsockname()[1]}"}
    expected = bare(given)
    context = proven(
        PLAN,
        tmp_path,
        given,
        kills=[{"EffectIntended": 1}, {"EffectIntended": 2}],
        arrivals=server.messages.copy,
        stop=server.stop,
    )
    expected["parts"] = context["parts"]  # the frames of a message are not recorded
    assert context == expected
    assert context["count_end"] == [["0", "1", "2"], "ConnectionClosedOK", [1000, "done"], 1000]
    assert context["failing_end"] == [["0"], "ConnectionClosedError", [1011, "broken"], 1011]
    assert context["dropping_end"] == [["0"], "ConnectionClosedError", None, 1006]
    assert context["forbidden"] == [403, "not you"]
    assert context["moved"] == ["0", "tea", 101]


@pytest.fixture
def record(server):
    """Give a function that runs a handler and replays it without the server; it returns the result."""
    with open_store("memory://") as store:

        def recorded(handler, *, status="completed", clients=("websockets",), **meta):
            plan = Plan("client", clients=list(clients))
            plan.state("a.only", **{"side_effects": "read_only_io", **meta})(handler)
            result = run(plan, store=store)
            assert result.status == status, result.error
            server.stop()
            again = replay(result.run_id, plan=plan, store=store)
            assert again.identical, again.divergence
            return result

        yield recorded


def test_sending_is_refused_in_a_state_that_only_reads(record, server):
    async def handler(ctx, io, rec):
        async with connect(f"{server.url}/echo") as echo:
            await echo.send("hello")

    result = record(handler, status="failed")
    assert result.error.code == "side_effect_not_declared"
    assert not server.messages


def test_a_connection_of_io_is_recorded_whatever_the_plan_says(record, server):
    async def handler(ctx, io, rec):
        async with io.websocket(f"{server.url}/feed", reads=True) as feed:
            await feed.send("tea")
            ctx["came"] = await feed.recv()

    assert record(handler, clients=()).context["came"] == "tea 0"
    assert server.messages == {("feed", "tea"): 1}


def test_a_plain_handler_may_run_a_loop_of_its_own(record, server):
    async def counted():
        async with connect(f"{server.url}/count") as counting:
            return [message async for message in counting]

    def handler(ctx, io, rec):
        ctx["count"] = asyncio.run(counted())

    assert record(handler).context["count"] == ["0", "1", "2"]


def test_what_was_sent_is_not_sent_on_a_new_connection(server):
    tries = []

    async def handler(ctx, io, rec):
        for _ in range(2):
            try:
                async with connect(f"{server.url}/echo") as echo:
                    await echo.send("once")
                    tries.append(len(tries))
                    if len(tries) == 1:
                        raise RuntimeError("the attempt fails, its connection goes with it")
                    ctx["came"] = await echo.recv()
            except websockets.exceptions.ConnectionClosedError:
                ctx["lost"] = True

    plan = Plan("client", clients=["websockets"])
    meta = {"side_effects": "apply_side_effect", "idempotency": "once", "retry": RetryPolicy(2)}
    plan.state("a.only", **meta)(handler)
    with open_store("memory://") as store:
        result = run(plan, store=store)
    assert dict(result.context) == {"lost": True, "came": "ONCE"}
    assert server.messages == {("echo", "once"): 2}, "the second is another message of the handler"


async def in_a_recorded_client(url, io):
    async with connect(url) as feed:
        assert await feed.recv() == "0"
        await io.approval("Go on?", key="go")


async def in_a_client_of_io(url, io):
    async with io.websocket(url, reads=True) as feed:
        assert await feed.recv() == "0"
        await io.approval("Go on?", key="go")


def in_a_plain_client(url, io):
    with sync_connect(url) as feed:
        assert feed.recv() == "0"
        io.approval("Go on?", key="go")


@pytest.mark.parametrize("waits", [in_a_recorded_client, in_a_client_of_io, in_a_plain_client])
def test_a_wait_while_a_connection_is_open_is_refused_and_behind_it_the_run_waits(server, waits):
    async def handler(ctx, io):
        with pytest.raises(StateError) as refused:
            await waits(f"{server.url}/count", io)
        ctx["code"] = refused.value.code
        ctx["by"] = (await io.approval("Go on?", key="go")).by

    def plain(ctx, io):
        with pytest.raises(StateError) as refused:
            waits(f"{server.url}/count", io)
        ctx["code"] = refused.value.code
        ctx["by"] = io.approval("Go on?", key="go").by

    plan = Plan("client", clients=["websockets"])
    plan.state("a.only", side_effects="read_only_io")(plain if waits is in_a_plain_client else handler)
    with open_store("memory://") as store:
        result = run(plan, store=store)
        assert (result.status, result.error) == ("suspended", None)
        approve(result.run_id, store=store, by="ada")
        server.stop()  # going on opens no connection again
        result = resume(result.run_id, plan=plan, store=store)
        assert (result.status, result.error) == ("completed", None)
        assert dict(result.context) == {"code": "wait_not_here", "by": "ada"}
        assert replay(result.run_id, plan=plan, store=store).identical
