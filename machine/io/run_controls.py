"""The controls of a run: what every call of a handler passes before it is made, whichever client makes it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from anyio.lowlevel import checkpoint

from machine.config import RunConfig
from machine.errors import Code, OtherIoError, StateError
from machine.io.attempt_scope import QUIET_ROUNDS, Log
from machine.io.call_identity import Call
from machine.io.spending import unpriced
from machine.kernel.usage import limit_of_call
from machine.model_prices import Spending


@attrs.define
class RunControls:
    """The controls of one live run. `stop` interrupts its attempts, `wall_ms` is how long these have been open."""

    config: RunConfig
    log: Log
    stop: Callable[[], None]
    wall_ms: Callable[[], int]
    spending: Spending

    def refusal(self, call: Call) -> OtherIoError | None:
        """Return why a call must not be made, None when it may be."""
        return unpriced(call, self.spending, costs=self.config.limits.cost is not None)

    async def admit(self, *, here: bool) -> None:
        """Return if a further call may be made; else end the run, and do not return.

        `here` is true for a call on the thread of the event loop, which cannot wait to be interrupted.
        """
        usage = self.log.history.usage
        if self.log.history.cleanup is not None:
            return  # the limits are those of the work
        if usage.reached is None:
            reached = limit_of_call(self.config, usage, self.wall_ms())
            if reached is None:
                return
            await self.log.emit([reached])
            self.stop()
        if not here:
            for _ in range(
                QUIET_ROUNDS
            ):  # until the cancellation comes, unless the handler shields itself from it
                await checkpoint()
        raise StateError("the run has used up a limit and makes no more calls", code=Code.LIMIT_EXCEEDED)
