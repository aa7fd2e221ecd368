"""Calls of blocking clients that a plain handler's threads make by themselves, and those that need the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from clients.kit import serving

from machine import Plan, Reporter, RunConfig, open_store, replay, run
from machine.config import Durability, FanOutJoin
from machine.engine import run_reader
from machine.events import FactRecorded
from machine.io.live_io import LiveIo
from machine.io.thread_calls import ThreadCalls

urllib3 = pytest.importorskip("urllib3", "2.2")


@pytest.fixture
def server():
    with serving() as found:
        yield found


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/runs.db") as found:
        yield found


def one_state(handler, *, clients=("urllib3",), **options):
    plan = Plan("one", clients=clients)
    plan.state("a.b", **options)(handler)
    return plan


def facts(store, run_id):
    events = (entry.event for entry, _ in run_reader.entries(store, run_id))
    return [event for event in events if isinstance(event, FactRecorded)]


@pytest.fixture
def on_loop(monkeypatch):
    """Return the calls that threads hand to the loop of a run, by the name of the thread."""
    handed, plain = [], asyncio.BaseEventLoop.call_soon_threadsafe

    def counted(self, callback, *args, **options):
        if threading.current_thread() is not threading.main_thread():
            handed.append(threading.current_thread().name)
        return plain(self, callback, *args, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", counted)
    return handed


def get(url):
    with urllib3.PoolManager() as pool:
        return pool.request("GET", url, retries=False)


# -- what needs no loop --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["echo", "gzip", "status?code=404", "hangup"])
def test_a_call_of_a_plain_handler_wakes_the_loop_for_nothing(path, server, store, on_loop):
    def handler(ctx, io, rec):
        ctx["said"] = []
        for _ in range(3):
            try:
                said = get(f"{server.url}/{path}").data.decode()
            except urllib3.exceptions.HTTPError as error:
                said = type(error).__name__
            ctx["said"] = [*ctx["said"], said]
        handed.append(on_loop.count("machine handler"))

    handed = []
    plan = one_state(handler)
    result = run(plan, store=store, config=RunConfig(undeclared_io="allow"))
    assert result.error is None
    assert handed == [0]
    server.stop()
    assert len(facts(store, result.run_id)) == 3
    assert len(set(result.context["said"])) == 1
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_long_answer_is_opened_without_the_loop_and_read_through_it(server, store, on_loop):
    counts = []

    def handler(ctx, io, rec):
        with urllib3.PoolManager() as pool:
            answer = pool.request("GET", f"{server.url}/chunks", preload_content=False)
            counts.append(on_loop.count("machine handler"))
            ctx["size"] = len(answer.read())
            counts.append(on_loop.count("machine handler"))

    plan = one_state(handler)
    result = run(plan, store=store)
    assert result.error is None
    assert counts[0] == 0 < counts[1]
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_answer_is_on_disk_before_the_handler_has_it_if_facts_have_to_be(server, store, on_loop):
    written = []

    def handler(ctx, io, rec):
        get(f"{server.url}/echo")
        written.extend(facts(store, run_ids[0]))
        written.append(on_loop.count("machine handler"))

    class Noting(Reporter):
        def starting(self, run_id, graph):
            run_ids.append(run_id)

    run_ids = []
    config = RunConfig(durability=Durability.FACTS, undeclared_io="allow")
    assert run(one_state(handler), store=store, config=config, reporter=Noting()).error is None
    assert [type(one) for one in written] == [FactRecorded, int]
    assert written[1] == 0


# -- what needs it -------------------------------------------------------------------------------------------


def test_other_calls_of_io_and_recorded_requests_take_turns(server, store, on_loop):
    def handler(ctx, io, rec):
        times = [io.now()]
        for _ in range(3):
            get(f"{server.url}/echo")
            times.append(io.now())
        ctx["times"] = [str(one) for one in times]

    plan = one_state(handler)
    result = run(plan, store=store)
    assert [fact.namespace for fact in facts(store, result.run_id)] == [
        "clock.now",
        *["http", "clock.now"] * 3,
    ]
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_threads_of_a_handler_that_call_at_once_are_recorded_and_replayed(server, store):
    def handler(ctx, io, rec):
        def several(number):
            return [
                len(get(f"{server.url}/echo?{number}={one}").data) + io.random_bytes(2)[0] * 0
                for one in range(5)
            ]

        with ThreadPoolExecutor(4) as pool:
            ctx["sizes"] = list(pool.map(several, range(4)))

    plan = one_state(handler)
    result = run(plan, store=store, config=RunConfig(undeclared_io="allow"))
    assert result.error is None
    assert len(facts(store, result.run_id)) == 40
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_coroutine_that_a_handler_gives_to_the_loop_takes_its_work_back(server, store, on_loop):
    async def awaited():
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{server.url}/echo?loop")).status_code

    def handler(ctx, io, rec):
        get(f"{server.url}/echo?1")
        before = on_loop.count("machine handler")
        loop = loops[0]
        ctx["status"] = asyncio.run_coroutine_threadsafe(awaited(), loop).result(10)
        get(f"{server.url}/echo?2")
        handed.extend([before, on_loop.count("machine handler")])

    class Noting(Reporter):
        def starting(self, run_id, graph):
            loops.append(asyncio.get_running_loop())

    loops, handed = [], []
    plan = one_state(handler, clients=["urllib3", "httpx"])
    result = run(plan, store=store, config=RunConfig(undeclared_io="allow"), reporter=Noting())
    assert result.context == {"status": 200}
    assert len(facts(store, result.run_id)) == 3
    assert handed[0] == 0
    assert handed[1] >= 2  # the coroutine, and the call after it


def test_states_that_may_run_concurrently_have_the_loop_record_their_calls(server, store, on_loop):
    def handler(ctx, io, rec):
        get(f"{server.url}/echo")

    plan = Plan("two", clients=["urllib3"])
    for name in ("a.b", "a.c"):
        plan.state(name)(handler)
    result = run(plan, store=store, config=RunConfig(execution_mode=FanOutJoin(2)))
    assert result.error is None
    assert on_loop.count("machine handler") >= 4


@pytest.mark.parametrize("anywhere", [False, True])
def test_an_observer_is_called_on_the_loop_unless_it_takes_any_thread(anywhere, server, store):
    seen = set()

    class Seeing(Reporter):
        in_any_thread = anywhere

        def entry(self, entry):
            if isinstance(entry.event, FactRecorded):
                seen.add(threading.current_thread() is threading.main_thread())

    run(one_state(lambda ctx, io, rec: get(f"{server.url}/echo") and None), store=store, reporter=Seeing())
    assert seen == {not anywhere}


# -- what ends a call ----------------------------------------------------------------------------------------


def test_a_call_that_outlasts_its_attempt_records_nothing(server, store):
    ended = threading.Event()

    def handler(ctx, io, rec):
        try:
            get(f"{server.url}/slow")
        finally:
            ended.set()

    plan = one_state(handler, timeout=0.2)
    result = run(plan, store=store)
    assert result.status == "failed"
    assert facts(store, result.run_id) == []
    server.stop()
    assert ended.wait(10)
    assert facts(store, result.run_id) == []
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_call_that_a_handler_leaves_behind_is_recorded_as_cancelled(server, store):
    threads, errors = [], []

    def left():
        try:
            get(f"{server.url}/slow")
        except Exception as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    def handler(ctx, io, rec):
        threads.append(threading.Thread(target=left))
        threads[0].start()
        while not server.asked:
            time.sleep(0.005)

    result = run(one_state(handler), store=store, config=RunConfig(undeclared_io="allow"))
    server.stop()
    threads[0].join(10)
    (fact,) = facts(store, result.run_id)
    assert fact.given_up
    assert [getattr(error, "code", error) for error in errors] == ["attempt_closed"]


def test_a_call_whose_turn_comes_when_the_loop_is_at_work_ends_there(server, store, monkeypatch):
    """Another thread has handed a call to the loop, which still waits when this one is answered."""
    both = threading.Barrier(2, timeout=10)
    ended = []
    plain = ThreadCalls._ended_on_loop

    async def noted(self, flight, answered, result):
        ended.append(flight.call.request["url"][-1])
        return await plain(self, flight, answered, result)

    monkeypatch.setattr(ThreadCalls, "_ended_on_loop", noted)

    def handler(ctx, io, rec):
        def sleeping():
            both.wait()
            io.sleep(0.3)

        other = threading.Thread(target=sleeping)
        other.start()
        both.wait()
        sizes = [len(get(f"{server.url}/echo?{number}").data) for number in range(3)]
        other.join()
        ctx["sizes"] = sizes

    plan = one_state(handler)
    result = run(plan, store=store, config=RunConfig(undeclared_io="allow"))
    assert result.error is None
    assert len(facts(store, result.run_id)) == 4
    monkeypatch.undo()
    server.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_stream_that_is_collected_as_garbage_during_the_work_of_the_loop_is_closed_at_the_end(
    server, store, monkeypatch
):
    """Garbage may be collected anywhere, also where its thread must not wait for the loop."""
    answers, plain = [], LiveIo._fact_of

    def collecting(self, call, outcome):
        while answers and self._scope.run.thread != threading.get_ident():
            answers.pop().close()
        return plain(self, call, outcome)

    def handler(ctx, io, rec):
        with urllib3.PoolManager() as pool:
            answer = pool.request("GET", f"{server.url}/chunks", preload_content=False)
            answers.append(answer)
            del answer
            ctx["size"] = len(get(f"{server.url}/echo").data)

    monkeypatch.setattr(LiveIo, "_fact_of", collecting)
    plan = one_state(handler)
    result = run(plan, store=store)
    assert result.error is None, result.error
    assert answers == []
    assert [fact.piece for fact in facts(store, result.run_id)] == [0, None, None]


def test_a_reporter_that_stops_the_run_at_an_entry_of_a_thread_stops_it(server, store):
    class StopError(Exception):
        pass

    class Stopping(Reporter):
        in_any_thread = True

        def entry(self, entry):
            if isinstance(entry.event, FactRecorded):
                raise StopError

    def handler(ctx, io, rec):
        with contextlib.suppress(Exception):
            get(f"{server.url}/echo")
        with contextlib.suppress(Exception):
            get(f"{server.url}/echo?again")

    with pytest.raises(StopError):
        run(one_state(handler), store=store, reporter=Stopping())
    assert server.asked.total() == 1
