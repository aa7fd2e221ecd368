"""What a log says about one state, as `fold` keeps it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import attrs

from machine.errors import ErrorInfo

__all__ = ["NOT_TAKEN", "UNREACHABLE", "OpenAttempt", "StateHistory", "StateStatus"]

NOT_TAKEN: Final = "not_taken:"
"""How the reason begins of a state that a state before it, named after this, chose not to go on to."""

UNREACHABLE: Final = "unreachable:"
"""How the reason begins of a state that comes only after states that were passed over; one of them is named."""


class StateStatus(StrEnum):
    """Where a state stands, as far as the log says."""

    OPEN = "open"
    WAITING = "waiting"
    FAILED = "failed"
    COMPLETED = "completed"
    SKIPPED = "skipped"

    @property
    def settled(self) -> bool:
        """True when the state is passed for good."""
        return self in {StateStatus.COMPLETED, StateStatus.SKIPPED}


@attrs.define
class StateHistory:
    """What a log says about one state.

    `attempts` counts those begun; `failures` those that use up the retry budget (not those recovered after a
    crash); `recoveries` those in a row that the death of their driver ended, nothing having been learned since that
    a later attempt could use; `fresh_from` is the first attempt whose facts a later one of a read-only state may
    still reuse; `began_seq` is the event with which its first attempt began, `failed_seq` that with which the first
    one failed since its last effect; `retry_delay_ms` is set while a retry waits, `retry_ts_millis` being when it
    was scheduled. `base_snapshot_id` is what its attempts began on; `wrote` and `not_taken` are as in
    `state_completed`; `read` lists the context keys that its last attempt is known to have read.
    """

    status: StateStatus
    attempts: int = 0
    failures: int = 0
    recoveries: int = 0
    fresh_from: int = 0
    error: ErrorInfo | None = None
    cut: bool = False
    orphans: tuple[int, ...] = ()
    """The attempts that the death of their driver ended."""
    began_seq: int | None = None
    failed_seq: int | None = None
    retry_after_ms: int = 0
    """How long the outside asked to wait, when its last attempt failed."""
    retry_delay_ms: int | None = None
    retry_ts_millis: int | None = None
    reason: str | None = None
    snapshot_id: str | None = None
    base_snapshot_id: str | None = None
    wrote: tuple[str, ...] = ()
    read: str | None = None
    """A JSON array, as the log has it."""
    not_taken: tuple[str, ...] = ()

    def leads_to(self, state_id: str) -> bool:
        """Say whether the edge to a state that follows this one is live."""
        by_passed = self.reason is not None and self.reason.startswith((NOT_TAKEN, UNREACHABLE))
        return not by_passed and state_id not in self.not_taken


@attrs.frozen
class OpenAttempt:
    """An attempt that has begun and not ended, and the seq it began at."""

    state_id: str
    attempt: int
    base_snapshot_id: str
    seq: int
