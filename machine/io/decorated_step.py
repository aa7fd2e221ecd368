"""The decorator `machine.step`: a function that is a step wherever a handler calls it, and itself elsewhere."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from anyio import from_thread

from machine.io.lent_work import handed_to_loop
from machine.io.step_calls import StepCalls, StepOptions
from machine.io.step_function import Step
from machine.watch.code_owner import CALLER
from machine.watch.threads_and_programs import follow_callers
from machine.watch.watch import engine_at_work

_P = ParamSpec("_P")
_R = TypeVar("_R")


@overload
def step(function: Callable[_P, _R], /, **options: Unpack[StepOptions]) -> Callable[_P, _R]: ...


@overload
def step(**options: Unpack[StepOptions]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]: ...


def step(function: Any = None, /, **options: Unpack[StepOptions]) -> Any:
    """Make a function a step: called in a handler it is recorded as by `io.step`, elsewhere it is just called.

    It takes the options of `io.step`, and keeps its signature. A plain function that is called on the event loop's
    own thread, in an `async def` handler, stops the loop while it runs, as it would without this, and may not be an
    effect there.
    """
    if function is None:
        return functools.partial(step, **options)
    made = Step.of(function, decorates=True, **options)
    follow_callers()  # so that it is a step in the threads of a handler too

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        io = CALLER.get()
        return _recorded(io, made, args, kwargs) if isinstance(io, StepCalls) else function(*args, **kwargs)

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        io = CALLER.get()
        if isinstance(io, StepCalls):
            return await io.call_step(made, args, kwargs)
        return await function(*args, **kwargs)

    chosen: Any = awaited if made.is_async else plain
    chosen.__machine_step__ = made
    return chosen


def _recorded(io: StepCalls, made: Step, args: Any, kwargs: Any) -> Any:
    scope = io.scope
    if threading.get_ident() == scope.run.thread:
        return io.call_step_at_once(made, args, kwargs)
    with engine_at_work(), handed_to_loop(scope.lent):
        return from_thread.run(functools.partial(io.call_step, made, args, kwargs), token=scope.run.loop)
