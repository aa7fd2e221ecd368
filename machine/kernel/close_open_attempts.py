"""Close the attempts that a crash or a cancellation left open."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from machine.kernel.decisions import AwaitAttempts, CompleteRun, Done, RecoverOrphan
from machine.kernel.history import History
from machine.kernel.status import RunStatus

__all__ = ["close_open_attempts"]


def close_open_attempts(
    history: History, busy: AbstractSet[str] = frozenset()
) -> RecoverOrphan | AwaitAttempts | CompleteRun | Done:
    """Return the next decision for a run that has ended or is being cancelled; no plan is needed."""
    if history.final:
        return Done(history.status)
    for state_id in history.open:
        if state_id not in busy:
            return RecoverOrphan(state_id)
    if busy:
        return AwaitAttempts()
    return CompleteRun(RunStatus.CANCELLED, history.checkpoint if history.max_concurrency is None else None)
