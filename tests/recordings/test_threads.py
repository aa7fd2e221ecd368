"""`io` used from threads and from event loops of theirs: it works live and in a replay, or it is refused live.

Each replay is made in a process of its own that is given a bounded time: one that hangs is killed.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import asyncio, concurrent.futures, sys, threading
import anyio
from machine import DomainEvent, Plan, RunConfig, open_store, replay, run

plan = Plan("op", version="1")

def in_thread(function, *args):
    found = []
    def work():
        try:
            found.append(function(*args))
        except BaseException as exc:
            found.append(exc)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]
"""

TAIL = """
with open_store("memory://") as store:
    result = run(plan, store=store, config=RunConfig(undeclared_io=sys.argv[1]))
    print(result.status, result.error and result.error.code, result.context)
    for _ in range(3):
        found = replay(result.run_id, plan=plan, store=store)
        assert found.identical, found.divergence
"""

REFUSED = {
    "to_thread": "await asyncio.to_thread(lambda: asyncio.run(io.now()))",
    "four at a time": (
        "await asyncio.gather(*(asyncio.to_thread(lambda: asyncio.run(io.now())) for _ in range(4)))"
    ),
    "run_in_executor": (
        "await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(io.read_file('x')))"
    ),
    "a pool": (
        "with concurrent.futures.ThreadPoolExecutor(4) as pool:\n"
        "        [each.result() for each in [pool.submit(asyncio.run, io.now()) for _ in range(4)]]"
    ),
    "a thread": "in_thread(lambda: asyncio.run(io.now()))",
    "anyio's threads": "await anyio.to_thread.run_sync(lambda: anyio.run(io.now))",
    "rec": "await asyncio.to_thread(lambda: asyncio.run(rec.emit(DomainEvent('said', {}))))",
    "record_value": "await asyncio.to_thread(lambda: asyncio.run(io.record_value('k', 1)))",
}
WORKS = {
    "run_coroutine_threadsafe": (
        "loop = asyncio.get_running_loop()\n"
        "    ctx['n'] = await asyncio.to_thread("
        "lambda: asyncio.run_coroutine_threadsafe(io.now(), loop).result())"
    ),
    "from_thread": "ctx['n'] = await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(io.now))",
    "what a thread is given": "ctx['n'] = await asyncio.to_thread(str, await io.now())",
    "run_coroutine_threadsafe, one after the other": (
        "loop = asyncio.get_running_loop()\n"
        "    def each():\n"
        "        return [asyncio.run_coroutine_threadsafe(io.now(), loop).result() for _ in range(4)]\n"
        "    ctx['n'] = await asyncio.to_thread(each)"
    ),
}
PLAIN = {
    "a thread": "ctx['n'] = in_thread(io.now)",
    "a pool, one after the other": (
        "with concurrent.futures.ThreadPoolExecutor(1) as pool:\n"
        "        ctx['n'] = [pool.submit(io.now).result() for _ in range(4)]"
    ),
    "a pool, each another call": (
        "with concurrent.futures.ThreadPoolExecutor(4) as pool:\n"
        "        ctx['n'] = list(pool.map(io.random_bytes, range(1, 9))) and 1"
    ),
    "an event loop of the handler's own": (
        "async def main():\n"
        "        return await asyncio.to_thread(io.now)\n"
        "    ctx['n'] = in_thread(lambda: asyncio.run(main()))"
    ),
}


def made(tmp_path, body, mode, *, plain=False):
    head = "def" if plain else "async def"
    source = f"{HEAD}\n@plan.state('step.state')\n{head} handle(ctx, io, rec):\n    {body}\n{TAIL}"
    (tmp_path / "threads.py").write_text(textwrap.dedent(source))
    return subprocess.run(
        [sys.executable, "-W", "ignore", "threads.py", mode],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["warn", "allow"])
@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_io_on_an_event_loop_of_another_thread_is_refused_live(tmp_path, body, mode):
    found = made(tmp_path, body, mode)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("failed io_in_another_loop"), found.stdout


def test_one_that_hides_the_refusal_replays_as_it_was(tmp_path):
    body = (
        "def work(number):\n"
        "        try:\n"
        "            return asyncio.run(io.now())\n"
        "        except BaseException as exc:\n"
        "            return type(exc).__name__\n"
        "    ctx['n'] = await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4)))"
    )
    found = made(tmp_path, body, "allow")
    assert found.returncode == 0, found.stderr
    assert found.stdout == "completed None {'n': ['StateError', 'StateError', 'StateError', 'StateError']}\n"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["warn", "allow"])
@pytest.mark.parametrize("body", WORKS.values(), ids=WORKS)
def test_what_goes_by_the_event_loop_of_the_run_works_live_and_in_a_replay(tmp_path, body, mode):
    found = made(tmp_path, body, mode)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("completed"), found.stdout


@pytest.mark.slow
@pytest.mark.parametrize("body", PLAIN.values(), ids=PLAIN)
def test_threads_of_a_plain_handler_call_io_live_and_in_a_replay(tmp_path, body):
    found = made(tmp_path, body, "allow", plain=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("completed"), found.stdout


RACES = {
    "a pool": (
        True,
        (
            "with concurrent.futures.ThreadPoolExecutor(8) as pool:\n"
            "        ctx['n'] = [each.result() for each in [pool.submit(io.now) for _ in range(8)]]"
        ),
    ),
    "run_coroutine_threadsafe": (
        False,
        (
            "loop = asyncio.get_running_loop()\n"
            "    call = lambda: asyncio.run_coroutine_threadsafe(io.now(), loop).result()\n"
            "    ctx['n'] = await asyncio.gather(*(asyncio.to_thread(call) for _ in range(8)))"
        ),
    ),
}


@pytest.mark.parametrize(("plain", "body"), RACES.values(), ids=RACES)
def test_a_race_of_threads_ends_in_a_replay_whatever_it_comes_to(tmp_path, plain, body):
    found = made(tmp_path, body, "allow", plain=plain)
    assert found.stdout.startswith("completed"), found.stderr
    assert (
        found.returncode == 0 or "AssertionError" in found.stderr
    )  # a divergence, which is not promised away


UNTOUCHED = """
import concurrent.futures, threading
from machine import Plan, RunConfig, open_store, replay, run

START, SUBMIT = threading.Thread.start, concurrent.futures.ThreadPoolExecutor.submit
plan = Plan("op")

@plan.state("step.one")
def one(ctx, io, rec):
    ctx["at"] = io.now()

with open_store("memory://") as store:
    result = run(plan, store=store, config=RunConfig(undeclared_io="warn"))
    assert (threading.Thread.start, concurrent.futures.ThreadPoolExecutor.submit) == (START, SUBMIT)
    assert replay(result.run_id, plan=plan, store=store).identical
    assert threading.Thread.start is not START
"""


def test_what_leads_a_watch_into_threads_is_there_for_replays_only():
    done = subprocess.run([sys.executable, "-c", UNTOUCHED], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
