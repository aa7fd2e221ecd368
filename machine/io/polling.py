"""Polling: a job of another system is submitted once, and asked for until it has ended."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from machine.errors import WaitTimeoutError
from machine.io.child_calls import ChildCalls
from machine.io.request_fields import checked_seconds
from machine.io.step_calls import StepCalls
from machine.io.waits import LONGEST_LIMIT


class Polling(StepCalls, ChildCalls):
    """The part of `io` that polls, with steps and waits."""

    @abstractmethod
    async def now(self) -> int:
        """Return the recorded time; see `StandardCalls`."""

    async def poll(
        self,
        start: Callable[..., Any],
        check: Callable[[Any], Any],
        *,
        every: float,
        timeout: float | None = None,  # noqa: ASYNC109 - recorded: the time that the job has
        args: Sequence[Any] = (),
    ) -> Any:
        """Submit a job to another system, and return its result once there is one.

        `start(*args)` submits it, as an effect of the state, and returns what names it. `check(job)` returns None
        while it runs, and anything else is the result. Both are steps: plain or async functions with any IO. There
        are `every` seconds between two checks, for which the run is put away if they are many. After `timeout`
        seconds without a result this raises `WaitTimeoutError`. After a crash the job is not submitted again, and
        the checks continue.
        """
        pause = checked_seconds(every, "every")
        limit = None if timeout is None else checked_seconds(timeout, "timeout", most=LONGEST_LIMIT)
        job = await self.step(start, *args, effect=True)
        until = None if limit is None else await self.now() + math.ceil(limit * 1000)
        while (result := await self.step(check, job)) is None:
            left = pause
            if until is not None:
                left = min(pause, (until - await self.now()) / 1000)
                if left <= 0:
                    raise WaitTimeoutError(f"the job had no result within {limit:g} s")
            await self.sleep(left)
        return result
