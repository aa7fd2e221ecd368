"""The plain interface: it runs the coroutine interface on an event loop of its own, without code of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from machine.engine import answers, cancel_and_resolve, open_wait_info, pause_and_continue, start_and_resume
from machine.engine import apply as applying
from machine.engine import dry_run as dry
from machine.engine import work as working
from machine.engine.work_stop import Stop, asked_by_signals
from machine.errors import Code, RunError, UsageError
from machine.recordings import compare_with_code as comparison
from machine.recordings import fork as forking
from machine.recordings import replay as reproduce
from machine.recordings import retry as retrying
from machine.recordings import schedules as scheduling
from machine.recordings import verify as verifying
from machine.recordings.double_run import seconded
from machine.recordings.facts_of_bundle import answered
from machine.termination import Termination, terminable

P = ParamSpec("P")
R = TypeVar("R")


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _plain(function: Callable[P, Coroutine[Any, Any, R]], *, drives: bool = False) -> Callable[P, R]:
    """Return the plain form of a coroutine function; one that `drives` a run obeys the signals to end."""

    @functools.wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        if _loop_runs():
            name = function.__name__
            raise UsageError(
                f"machine.{name} was called from a running event loop",
                hint=f"await machine.aio.{name}(...) there",
            )
        results: list[R] = []

        async def main() -> None:
            termination.watch()
            # not returned: asyncio formats the result of its main task, only to discard that text
            results.append(await function(*args, **kwargs))

        with terminable() if drives else contextlib.nullcontext(Termination()) as termination:
            try:
                asyncio.run(main())
            except asyncio.CancelledError:
                if termination.signum is not None:
                    raise
                # the loop belongs to this call: nobody but a handler knows the task
                raise RunError(
                    f"machine.{function.__name__} stopped: a handler cancelled the task that drives the run",
                    code=Code.ATTEMPT_INTERRUPTED,
                    hint="nothing durable is lost; have handlers cancel only tasks they have begun, and resume",
                ) from None
        return results[0]

    return plain


def _stoppable(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Return the plain form of the work of a worker, which signals ask to stop."""
    plain = _plain(function)

    @functools.wraps(function)
    def stoppable(*args: P.args, **kwargs: P.kwargs) -> R:
        given = kwargs.get("stop")
        stop = given if isinstance(given, Stop) else Stop()
        kwargs["stop"] = stop
        with asked_by_signals(stop):
            return plain(*args, **kwargs)

    return stoppable


run = _plain(answered(seconded(start_and_resume.run)), drives=True)
dry_run = _plain(seconded(answered(dry.dry_run, "answers_from")), drives=True)
apply = _plain(seconded(applying.apply), drives=True)
resume = _plain(seconded(start_and_resume.resume), drives=True)
fork = _plain(forking.fork, drives=True)
retry = _plain(retrying.retry, drives=True)
replay = _plain(reproduce.replay)
schedules = _plain(scheduling.schedules)
compare = _plain(comparison.compare)
resolve = _plain(cancel_and_resolve.resolve)
cancel = _plain(cancel_and_resolve.cancel)
pause = _plain(pause_and_continue.pause)
continue_run = _plain(pause_and_continue.continue_run)
work = _stoppable(seconded(working.work))
run_schedules = _stoppable(seconded(working.run_schedules))
approve = _plain(answers.approve)
reject = _plain(answers.reject)
signal = _plain(answers.signal)
waiting = open_wait_info.waiting
verify = verifying.verify
