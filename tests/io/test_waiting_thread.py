"""A thread that waits for a call on the event loop, and does its parts: results, errors, ends, and wake-ups."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest
from anyio.lowlevel import current_token

from machine.io.waiting_thread import WaitingThread, alone, in_caller


def waited(*calls, loop_does=None):
    """Wait in one thread for calls one after another; return their results, and how often the loop was woken."""

    async def main():
        loop, token = asyncio.get_running_loop(), current_token()
        woken, plain = [], loop.call_soon_threadsafe
        done = asyncio.Event()
        results = []

        def counted(function, *args, **options):
            woken.append(function)
            return plain(function, *args, **options)

        def thread():
            for call in calls:
                try:
                    results.append(WaitingThread().wait_for(call, token))
                except BaseException as exc:  # noqa: BLE001 - looked at where it is expected
                    results.append(exc)
            plain(done.set)

        loop.call_soon_threadsafe = counted
        threading.Thread(target=thread, daemon=True).start()
        if loop_does is not None:
            await loop_does()
        await asyncio.wait_for(done.wait(), 20)
        return results, len(woken)

    return asyncio.run(main())


async def in_two_parts():
    """Return the threads of two parts of a call, and its own."""
    first = await in_caller(threading.get_ident)
    return first, await in_caller(threading.get_ident), threading.get_ident()


def test_the_parts_of_a_call_are_done_in_the_thread_that_waits():
    ((first, second, loop),), _ = waited(in_two_parts)
    assert first == second
    assert loop == threading.get_ident() != first


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_the_loop_is_woken_once_to_begin_and_once_for_each_part(parts):
    async def call():
        return [await in_caller(int, part) for part in range(parts)]

    assert waited(call) == ([list(range(parts))], 1 + parts)


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("over"), KeyError(1)])
def test_an_error_of_a_part_is_raised_in_the_call_and_then_in_the_thread(error):
    def part():
        raise error

    async def call():
        await in_caller(part)

    ((found,), _) = waited(call)
    if isinstance(error, StopIteration):  # which no coroutine can raise
        assert isinstance(found, RuntimeError)
        assert found.__cause__ is error
    else:
        assert found is error


def test_a_call_may_go_on_after_an_error_of_a_part():
    async def call():
        try:
            await in_caller(int, "x")
        except ValueError:
            return await in_caller(int, "7")

    assert waited(call)[0] == [7]


@pytest.mark.parametrize("begun", [False, True])
def test_a_cancelled_call_ends_the_wait(begun):
    async def call():
        await asyncio.sleep(60)

    async def cancel():
        here = asyncio.current_task()
        while not (tasks := asyncio.all_tasks() - {here}):  # noqa: ASYNC110 - made in any turn of the loop
            await asyncio.sleep(0)
        if begun:
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()

    ((found,), _) = waited(call, loop_does=cancel)
    assert isinstance(found, CancelledError)


def test_a_call_that_is_cancelled_during_its_part_leaves_the_part_to_its_end():
    begun, went_on, ended = threading.Event(), threading.Event(), []

    def part():
        begun.set()
        went_on.wait(20)
        ended.append(True)

    async def call():
        await in_caller(part)

    async def cancel():
        await asyncio.to_thread(begun.wait, 20)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        went_on.set()

    ((found, after), _) = waited(call, in_two_parts, loop_does=cancel)
    assert isinstance(found, CancelledError)
    assert ended == [True]
    assert len(after) == 3  # and the next call finds nothing of it


def test_a_thread_learns_that_its_loop_has_gone():
    tokens = []

    async def main():
        tokens.append(current_token())

    asyncio.run(main())
    with pytest.raises(RuntimeError, match="closed"):
        WaitingThread().wait_for(in_two_parts, tokens[0])


def test_a_call_without_a_waiting_thread_is_done_where_it_is():
    assert alone(in_two_parts) == (threading.get_ident(),) * 3
