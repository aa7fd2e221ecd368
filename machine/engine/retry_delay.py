"""The wait before the next attempt of a state that failed."""

from __future__ import annotations

import time

import anyio

from machine.engine.driver_protocols import DrivenLog
from machine.engine.reporter import Reporter
from machine.kernel.decisions import EnterState


async def wait_for_retry(decision: EnterState, log: DrivenLog, reporter: Reporter) -> None:
    """Wait until the rest of the delay before an attempt is over; what was recorded before is durable first."""
    waited = time.time_ns() // 1_000_000 - decision.since_ms
    left = min(decision.delay_ms, decision.delay_ms - waited) / 1000
    if left > 0:
        await log.durable()
        reporter.waiting(decision.state_id, left)
        await anyio.sleep(left)
