"""The transitions of a run's status; no other module says which status may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from machine.errors import Code, RunError


class RunStatus(StrEnum):
    """The status of a run."""

    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LIMIT_EXCEEDED = "limit_exceeded"


INTERRUPTED: Final = "interrupted"
"""The status shown for a run whose log says that it is running, and that nobody drives. No log holds it."""

FINAL_STATUSES: Final = frozenset(
    {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.LIMIT_EXCEEDED}
)

_NEXT: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING}),
    RunStatus.RUNNING: FINAL_STATUSES | {RunStatus.SUSPENDED},
    RunStatus.SUSPENDED: frozenset({RunStatus.RUNNING, RunStatus.CANCELLED}),
    **dict.fromkeys(FINAL_STATUSES, frozenset()),
}


def may_follow(current: RunStatus, status: RunStatus) -> bool:
    """Say whether a run that is `current` may become `status`."""
    return status in _NEXT[current]


def require(run_id: str, current: RunStatus, status: RunStatus, wish: str) -> None:
    """Raise `RunError` (`invalid_transition`) unless the run may become `status`; `wish` ends the error message."""
    if not may_follow(current, status):
        raise RunError(
            f"run {run_id} is {current}: {wish}",
            code=Code.INVALID_TRANSITION,
            details={"run_id": run_id, "status": current.value, "wanted": status.value},
        )
