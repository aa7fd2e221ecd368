"""The recording of clients of other libraries: which calls are recorded, by whom, and what is refused."""

from __future__ import annotations

import asyncio
import importlib
import re
import socket
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context

import httpx
import pytest
from clients.kit import serving

import machine
from machine import Plan, open_store, recorded_clients, replay, run
from machine.clients import record
from machine.engine import run_reader
from machine.errors import Code, PlanError, StateError, UsageError
from machine.events import FactRecorded
from machine.io.transport import BaseTransport
from machine.testing import crash_matrix


@pytest.fixture
def server():
    with serving() as found:
        yield found


@pytest.fixture
def store():
    with open_store("memory://") as found:
        yield found


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def one_state(handler, *, clients=("httpx",), **options):
    plan = Plan("one", clients=clients)
    plan.state("a.b", **options)(handler)
    return plan


def facts(store, run_id):
    events = (entry.event for entry, _ in run_reader.entries(store, run_id))
    return [event.namespace for event in events if isinstance(event, FactRecorded)]


# -- what is chosen ------------------------------------------------------------------------------------------


def test_a_plan_names_libraries_or_takes_a_choice():
    assert dict(Plan("one", clients=["httpx"]).clients) == {"httpx": {}}
    chosen = Plan("one", clients=[record("redis", "grpc", reads=["GET"]), "requests"]).clients
    assert dict(chosen) == {"redis": {"reads": ["GET"]}, "grpc": {"reads": ["GET"]}, "requests": {}}


@pytest.mark.parametrize(
    ("clients", "said"),
    [
        (["request"], "did you mean requests"),
        (["smtplib"], "io.step"),
        ("httpx", r"clients=\['httpx'\]"),
        ([3], "no name"),
        ([[3]], "no name"),
        ([httpx], r'no name.*clients=\["httpx"\]'),
        (None, r'a list, not None.*clients=\["requests"\]'),
        ({"httpx": {}}, "a list, not {'httpx'"),
        (["Requests"], "did you mean requests"),
        (["psycopg2"], "in a step"),
        (["PyGithub"], r"with requests: write clients=\['requests'\]"),
        (["openai"], r"with httpx: write clients=\['httpx'\]"),
    ],
)
def test_a_choice_that_is_none_is_refused_when_the_plan_is_made(clients, said):
    with pytest.raises(PlanError) as caught:
        Plan("one", clients=clients)
    assert re.search(said, f"{caught.value} {caught.value.hint}")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("redis", {"read": ["GET"]}, "no option 'read'.*did you mean reads"),
        ("requests", {"reads": ["x"]}, "no option 'reads'.*it has none"),
        ("grpc", {"reads": "/shop/*"}, r"not the text '/shop/\*'.*write reads=\['/shop/\*'\]"),
        ("websockets", {"reads": [3]}, r"a list of texts, not \[3\]"),
        ("grpc", {"keyed": 3}, "a list of texts, not 3"),
    ],
)
def test_an_option_that_a_library_does_not_take_is_refused_at_once(name, options, said):
    with pytest.raises(UsageError) as caught:
        record(name, **options)
    assert re.search(said, f"{caught.value} {caught.value.hint}")


def test_a_library_that_is_not_installed_is_named_before_anything_is_written(store, monkeypatch):
    monkeypatch.setitem(recorded_clients.MODULES, "httpx", "machine.clients.not_there_either")
    monkeypatch.setattr(
        "machine.recorded_clients.import_module", lambda name: __import__("not_installed_library")
    )
    with pytest.raises(UsageError, match="not_installed_library is not installed") as caught:
        run(one_state(lambda ctx, io, rec: None), store=store)
    assert caught.value.code == Code.CLIENT_NOT_INSTALLED
    assert "pip install" in caught.value.hint


# -- which calls are recorded --------------------------------------------------------------------------------


def test_calls_of_a_handler_are_recorded_and_those_of_other_code_are_not(server, store):
    original = httpx.HTTPTransport.handle_request

    def handler(ctx, io, rec):
        ctx["status"] = httpx.get(f"{server.url}/echo").status_code
        outside.submit(httpx.get, f"{server.url}/outside").result()

    with ThreadPoolExecutor(1) as outside:
        outside.submit(int).result()  # so that its thread is no handler's
        plan = one_state(handler)
        result = run(plan, store=store, config=machine.RunConfig(undeclared_io="allow"))
    assert facts(store, result.run_id) == ["http", "http"], (
        "work that a handler gives to a pool is the handler's"
    )
    assert httpx.HTTPTransport.handle_request is original, "the library is left as it was"


def test_a_library_that_the_plan_does_not_name_is_not_recorded(server, store):
    def handler(ctx, io, rec):
        ctx["status"] = httpx.get(f"{server.url}/echo").status_code

    result = run(one_state(handler, clients=()), store=store, config=machine.RunConfig(undeclared_io="allow"))
    assert facts(store, result.run_id) == []


def test_a_client_in_a_step_is_part_of_the_step(server, store):
    async def handler(ctx, io, rec):
        ctx["status"] = await io.step(status_of, f"{server.url}/echo")

    plan = one_state(handler)
    result = run(plan, store=store)
    assert facts(store, result.run_id) == ["step"]
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_transport_of_the_users_own_may_use_a_library_that_is_recorded(server, store):
    class Shop(BaseTransport):
        async def perform(self, namespace, request):
            async with httpx.AsyncClient() as client:
                return (await client.get(server.url + request["path"])).status_code

    async def handler(ctx, io, rec):
        ctx["status"] = (await io.call("shop", {"path": "/echo"})).response

    plan = Plan("one", clients=["httpx"], transports={"shop": Shop()})
    plan.state("a.b")(handler)
    result = run(plan, store=store)
    assert result.context == {"status": 200}
    assert facts(store, result.run_id) == ["shop"]
    assert replay(result.run_id, plan=plan, store=store).identical


def test_the_store_may_use_a_library_that_is_recorded(tmp_path):
    def handler(ctx, io, rec):
        with sqlite3.connect(tmp_path / "own.db") as db:
            ctx["sum"] = db.execute("SELECT 1 + 1").fetchone()[0]

    report = crash_matrix(one_state(handler, clients=["sqlite3"]), faults=["torn_write"])
    assert report.safe, report


def status_of(url):
    return httpx.get(url).status_code


def test_two_plans_that_record_one_library_at_once_do_not_meet(server, store):
    original = httpx.HTTPTransport.handle_request
    both = threading.Barrier(2)

    def handler(ctx, io, rec):
        both.wait(10)
        ctx["paths"] = [httpx.get(f"{server.url}/echo?run={ctx['n']}&i={i}").json()["path"] for i in range(5)]

    plan = one_state(handler)
    with ThreadPoolExecutor(2) as pool, open_store("memory://") as other:
        runs = [
            (each, pool.submit(run, plan, store=each, input={"n": n}))
            for n, each in enumerate((store, other))
        ]
        for n, (each, ended) in enumerate(runs):
            result = ended.result()
            assert result.context["paths"] == [f"/echo?run={n}&i={i}" for i in range(5)]
            assert facts(each, result.run_id) == ["http"] * 5
    assert httpx.HTTPTransport.handle_request is original


def test_a_thread_that_a_handler_starts_is_recorded_and_replayed(server, store):
    def handler(ctx, io, rec):
        found = []
        thread = threading.Thread(target=lambda: found.append(httpx.get(f"{server.url}/gzip").text))
        thread.start()
        thread.join()
        ctx["letters"] = len(found[0])

    plan = one_state(handler)
    result = run(plan, store=store, config=machine.RunConfig(undeclared_io="allow"))
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical
    assert result.context == {"letters": 5000}


# -- what is refused -----------------------------------------------------------------------------------------


def test_a_client_that_no_handler_is_known_to_use_sends_nothing_in_a_replay(server, store):
    async def handler(ctx, io, rec):
        async def ask():
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{server.url}/echo")).status_code

        task = asyncio.get_running_loop().create_task(ask(), context=Context())
        ctx["status"] = await task

    plan = one_state(handler)
    result = run(plan, store=store, config=machine.RunConfig(undeclared_io="allow"))
    assert result.context == {"status": 200}
    sent = server.asked.total()
    divergence = replay(result.run_id, plan=plan, store=store).divergence
    assert "no handler is known" in str(divergence)
    assert server.asked.total() == sent


@pytest.mark.parametrize("kind", ["httpx", "requests"])
def test_a_blocking_client_makes_no_effect_on_the_thread_of_the_event_loop(server, store, kind):
    library = pytest.importorskip(kind)

    async def handler(ctx, io, rec):
        try:
            library.post(f"{server.url}/echo", json={"a": 1}, timeout=5)
        except StateError as error:
            ctx["code"] = error.code

    plan = one_state(handler, clients=[kind], side_effects="apply_side_effect", idempotency="once")
    result = run(plan, store=store)
    assert result.context == {"code": "blocking_effect"}
    assert server.asked.total() == 0
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_put_in_a_state_that_declares_no_effect_is_refused(server, store):
    def handler(ctx, io, rec):
        httpx.put(f"{server.url}/echo")

    result = run(one_state(handler), store=store)
    assert result.error.code == Code.SIDE_EFFECT_NOT_DECLARED
    assert server.asked.total() == 0


def test_a_client_in_a_pure_state_is_refused(server, store):
    def handler(ctx, io, rec):
        httpx.get(f"{server.url}/echo")

    result = run(one_state(handler, side_effects="pure"), store=store)
    assert result.error.code == Code.SIDE_EFFECT_NOT_DECLARED
    assert server.asked.total() == 0


def test_a_client_after_the_end_of_its_attempt_is_refused(server, store):
    begun = []

    async def handler(ctx, io, rec):
        async def later():
            await asyncio.sleep(0.05)
            async with httpx.AsyncClient() as client:
                await client.get(f"{server.url}/late")

        begun.append(asyncio.get_running_loop().create_task(later()))

    async def main():
        result = await machine.aio.run(one_state(handler), store=store)
        await asyncio.gather(*begun, return_exceptions=True)
        return result

    asyncio.run(main())
    (task,) = begun
    assert task.cancelled() or isinstance(task.exception(), StateError)
    assert server.asked.total() == 0


def test_a_session_of_io_after_the_end_of_its_attempt_is_refused(server, store):
    pytest.importorskip("requests")
    kept = []

    def handler(ctx, io, rec):
        session = io.requests_session()
        kept.append(session)
        ctx["status"] = session.get(f"{server.url}/echo").status_code

    plan = one_state(handler, clients=())
    result = run(plan, store=store)
    assert result.context == {"status": 200}
    with pytest.raises(StateError) as caught:
        kept[0].get(f"{server.url}/echo")
    assert caught.value.code == Code.ATTEMPT_CLOSED
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


# -- secrets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["requests", "urllib3", "httpx"])
def test_a_redirect_to_another_origin_takes_no_secret_along(server, store, monkeypatch, kind):
    library = pytest.importorskip(kind)
    monkeypatch.setenv("API_KEY", "the-real-key-of-somebody")

    def handler(ctx, io, rec):
        headers = {"x-api-key": io.secret("API_KEY"), "x-plain": "1"}
        url = f"{server.url}/redirect?to={elsewhere.url}/echo"
        if kind == "urllib3":
            ctx["status"] = library.PoolManager().request("GET", url, headers=headers).status
        elif kind == "httpx":
            ctx["status"] = library.get(url, headers=headers, follow_redirects=True).status_code
        else:
            ctx["status"] = library.get(url, headers=headers, timeout=5).status_code

    with serving() as elsewhere:
        plan = one_state(handler, clients=[kind])
        result = run(plan, store=store)
        assert result.context == {"status": 200}
        (_, _, sent, _), (_, _, arrived, _) = server.requests[0], elsewhere.requests[0]
    names = {name.lower(): value for name, value in arrived.items()}
    assert {name.lower(): value for name, value in sent.items()}["x-api-key"] == "the-real-key-of-somebody"
    assert "x-api-key" not in names
    assert names["x-plain"] == "1"
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("kind", ["requests", "urllib3", "httpx"])
def test_a_redirect_to_another_origin_with_a_secret_in_its_body_is_refused(server, store, monkeypatch, kind):
    library = pytest.importorskip(kind)
    monkeypatch.setenv("API_KEY", "the-real-key-of-somebody")

    def handler(ctx, io, rec):
        body = {"key": io.secret("API_KEY")}
        url = f"{server.url}/redirect?status=307&to={elsewhere.url}/echo"
        if kind == "urllib3":
            library.PoolManager().request("POST", url, json=body)
        elif kind == "httpx":
            library.post(url, json=body, follow_redirects=True)
        else:
            library.post(url, json=body, timeout=5)

    with serving() as elsewhere:
        plan = one_state(handler, clients=[kind])
        result = run(plan, store=store)
        assert result.error.code == "http_redirect_refused"
        assert elsewhere.asked.total() == 0


# -- loops of plain handlers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["httpx", "aiohttp"])
def test_a_call_that_a_plain_handlers_own_loop_gives_up_is_given_up_in_a_replay(store, kind):
    library = pytest.importorskip(kind)

    def handler(ctx, io, rec):
        async def asking():
            async with library.AsyncClient() if kind == "httpx" else library.ClientSession() as client:
                try:
                    await asyncio.wait_for(client.get(url), 0.1)
                except TimeoutError:
                    return "given up"

        ctx["came"] = asyncio.run(asking())

    plan = one_state(handler, clients=[kind])
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and answers none
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        result = run(plan, store=store)
    assert result.context == {"came": "given up"}
    assert replay(result.run_id, plan=plan, store=store).identical


# -- bodies that cannot be read ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["requests", "urllib3", "httpx"])
@pytest.mark.parametrize("path", ["undecodable", "cut"])
def test_a_body_that_cannot_be_read_raises_what_the_library_raises(server, store, kind, path):
    library = pytest.importorskip(kind)
    server.routes["undecodable"] = lambda it: it.say(200, b"no gzip " * 50, {"content-encoding": "gzip"})
    server.routes["cut"] = lambda it: it.at_cutoff()

    def asked():
        try:
            if kind == "urllib3":
                library.request("GET", f"{server.url}/{path}", headers={"accept-encoding": "gzip"})
            else:
                library.get(f"{server.url}/{path}")
        except Exception as error:  # noqa: BLE001 - whatever the library raises is compared
            return type(error).__name__, *([] if kind == "httpx" else [str(error)])

    def handler(ctx, io, rec):
        ctx["raised"] = list(asked())

    plan = one_state(handler, clients=[kind])
    result = run(plan, store=store)
    assert result.context == {"raised": list(asked())}
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("kind", ["requests", "urllib3", "httpx"])
@pytest.mark.parametrize("status", [307, 308])
def test_an_effect_that_is_redirected_with_its_method_is_one_effect(server, store, kind, status):
    library = pytest.importorskip(kind)

    def handler(ctx, io, rec):
        url = f"{server.url}/redirect?status={status}&to=/echo"
        if kind == "urllib3":
            ctx["body"] = library.PoolManager().request("POST", url, json={"a": 1}).json()["body"]
        elif kind == "httpx":
            ctx["body"] = library.post(url, json={"a": 1}, follow_redirects=True).json()["body"]
        else:
            ctx["body"] = library.post(url, json={"a": 1}, timeout=5).json()["body"]

    plan = one_state(handler, clients=[kind], side_effects="apply_side_effect", idempotency="once")
    result = run(plan, store=store)
    assert result.error is None
    assert [asked[0] for asked in server.asked] == ["POST", "POST"]
    assert server.keys == ["once", "once"]
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_effect_to_another_place_than_a_redirect_said_is_a_second_one(server, store):
    def handler(ctx, io, rec):
        httpx.post(f"{server.url}/redirect?status=307&to=/echo", json={"a": 1})
        httpx.post(f"{server.url}/status?code=200", json={"a": 1})

    plan = one_state(handler, side_effects="apply_side_effect", idempotency="once")
    assert run(plan, store=store).error.code == Code.IDEMPOTENCY_KEY_REUSED


# -- libraries that are imported later ------------------------------------------------------------------------


@pytest.fixture
def unimported(monkeypatch):
    """Return the name of a library that this process has not imported yet."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "httpx2"]:
        monkeypatch.delitem(sys.modules, name)
    return "httpx2"


def test_a_library_is_recorded_from_when_a_handler_imports_it(server, store, unimported):
    before = []

    def handler(ctx, io):
        before.append(unimported in sys.modules)
        library = importlib.import_module(unimported)
        with library.Client(trust_env=False) as client:
            ctx["status"] = client.get(f"{server.url}/echo").status_code

    plan = one_state(handler)
    result = run(plan, store=store)
    assert result.error is None
    assert before == [False]
    assert facts(store, result.run_id) == ["http"]
    assert not hasattr(sys.modules[unimported].HTTPTransport.handle_request, "__wrapped__")
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_library_that_is_imported_after_all_runs_stays_as_it_is(server, store, unimported):
    for _ in range(2):
        assert run(one_state(lambda ctx: None), store=store).error is None
    library = importlib.import_module(unimported)
    assert not hasattr(library.HTTPTransport.handle_request, "__wrapped__")


def test_an_asynchronous_client_on_a_loop_of_a_plain_handler_is_told_what_to_do(store):
    """One that is recorded wherever it runs, as those of HTTP and gRPC are, is not refused."""
    redis = pytest.importorskip("redis.asyncio")

    def handler(ctx, io, rec):
        async def ask():
            async with redis.Redis(port=1) as client:
                await client.get("a")

        asyncio.run(ask())

    plan = one_state(handler, clients=["redis"], side_effects="read_only_io")
    result = run(plan, store=store, config=machine.RunConfig(undeclared_io="allow"))
    assert result.error.code == "io_in_another_loop"
    assert "async def" in result.error.message
    assert "the blocking client" in result.error.message
    assert replay(result.run_id, plan=plan, store=store).identical
