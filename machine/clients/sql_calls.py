"""The performing of a session's calls, for libraries that block and for those that await."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any

from machine.clients.sql_session import Asked, Calls, Live, SqlSession
from machine.kernel.transactions import SQL


def run_blocking(session: SqlSession, calls: Calls, do: Callable[[Live], Any]) -> Any:
    """Make the calls of a session, in any thread, and return what they come to."""
    session.check_open()
    return _driven(calls, lambda call: _make_blocking(session, call, do))


def _make_blocking(session: SqlSession, call: Any, do: Callable[[Live], Any]) -> Any:
    if isinstance(call, Asked):
        return session.io.look_up_effect_blocking(call.intent, lambda: _driven(call.send(), do))
    return session.io.client_call_blocking(
        SQL, call.request, lambda asked: session.answered(_driven(call.send(asked), do)), place=call.place
    )


def _driven(steps: Generator[Any, Any, Any], do: Callable[[Any], Any]) -> Any:
    """Do each step that a generator yields, and return its result; a failure is raised in the generator."""
    answer, failure = None, None
    while True:
        try:
            if failure is not None:
                raised, failure = failure, None
                step = steps.throw(raised)
            else:
                step = steps.send(answer)
        except StopIteration as ended:
            return ended.value
        try:
            answer = do(step)
        except Exception as exc:  # noqa: BLE001 - the generator decides what to do about it
            failure = exc


async def run_async(session: SqlSession, calls: Calls, do: Callable[[Live], Awaitable[Any]]) -> Any:
    """Make the calls of a session in a coroutine, and return what they come to."""
    session.check_open()
    return await _driven_async(calls, lambda call: _make_async(session, call, do))


async def _make_async(session: SqlSession, call: Any, do: Callable[[Live], Awaitable[Any]]) -> Any:
    if isinstance(call, Asked):
        return await session.io.look_up_effect(call.intent, lambda: _driven_async(call.send(), do))

    async def send(asked: Any) -> Any:
        return session.answered(await _driven_async(call.send(asked), do))

    return await session.io.client_call(SQL, call.request, send, place=call.place)


async def _driven_async(steps: Generator[Any, Any, Any], do: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do each step that a generator yields, as `_driven` does."""
    answer, failure = None, None
    while True:
        try:
            if failure is not None:
                raised, failure = failure, None
                step = steps.throw(raised)
            else:
                step = steps.send(answer)
        except StopIteration as ended:
            return ended.value
        try:
            answer = await do(step)
        except Exception as exc:  # noqa: BLE001 - the same
            failure = exc
