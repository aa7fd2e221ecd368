"""Closing the attempts that nobody runs: of a run whose process died, and of a run that ends early.

`kernel/decide.py` calls `close_open_attempts`. Its answer for each such attempt is `RecoverOrphan`, which
`engine/driver.py` writes down as a `state_failed` with the code `orphan_attempt_recovered`. The state is then tried
again unless the run ends early or its process has died too often (`kernel/retry_and_skip.py`).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from machine.kernel.decisions import AwaitAttempts, CompleteRun, Done, RecoverOrphan
from machine.kernel.history import History
from machine.kernel.next_run import next_input_after_cleanup
from machine.kernel.run_status import RunStatus
from machine.kernel.usage import limit_error


def close_open_attempts(
    history: History, busy: AbstractSet[str] = frozenset()
) -> RecoverOrphan | AwaitAttempts | CompleteRun | Done:
    """Return the next decision for a run that has ended, ends early or has an attempt that nobody runs.

    `busy` are the states whose attempts run in this process. No plan is needed.
    """
    if history.final:
        return Done(history.status)
    for state_id in history.open:
        if state_id not in busy:
            return RecoverOrphan(state_id)
    if busy:
        return AwaitAttempts()
    if (cleanup := history.cleanup) is not None:
        next_input = next_input_after_cleanup(history)
        return CompleteRun(RunStatus(cleanup.status), history.checkpoint, cleanup.error, next_input)
    snapshot_id = history.checkpoint if history.max_concurrency is None else None
    if (reached := history.usage.reached) is not None:
        return CompleteRun(RunStatus.LIMIT_EXCEEDED, snapshot_id, limit_error(reached))
    return CompleteRun(RunStatus.CANCELLED, snapshot_id)
