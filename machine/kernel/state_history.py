"""The history of one state, as `fold` collects it from a log."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

import attrs

from machine.error_codes import STOPPED_CODES
from machine.errors import Code, ErrorInfo
from machine.events import Entry, StateFailed
from machine.failed_attempt_info import read_causes, read_wait

COPIED: Final = "copied"
"""Marker in the info of an interrupted attempt that a fork copied: the driver that died was the parent's."""

NOT_TAKEN: Final = "not_taken:"
"""Prefix of the skip reason of a state that its predecessor, named after it, chose not to continue to."""

UNREACHABLE: Final = "unreachable:"
"""Prefix of the skip reason of a state that has only skipped predecessors; one of them is named."""


FAILED_WITH: Final = "failed:"
"""Prefix of the skip reason of a state that has failed and lets the run go on, followed by the error code."""

KNOWN_LATER: Final = f"{FAILED_WITH}{Code.KNOWN_AFTER_APPLY}"
"""Skip reason of a state of a dry run that needed what only applying it would tell."""


class StateStatus(StrEnum):
    """The status of a state according to the log."""

    OPEN = "open"
    SUSPENDED = "suspended"
    WAITING = "waiting"
    FAILED = "failed"
    COMPLETED = "completed"
    SKIPPED = "skipped"

    @property
    def settled(self) -> bool:
        """True when the state has completed or been skipped."""
        return self is StateStatus.COMPLETED or self is StateStatus.SKIPPED


class OpenAttempt(NamedTuple):
    """An attempt that has begun and not ended, and the seq it began at."""

    state_id: str
    attempt: int
    base_snapshot_id: str
    seq: int


@attrs.frozen
class FailedAttempts:
    """The attempts of a state that did not complete, as far as its next attempt depends on them.

    `error` and `cut` are of the last one. `failures` counts those that use up the retry budget (not those recovered
    after a crash); `recoveries` those in a row that ended with the death of their driver without any new fact that
    a later attempt could reuse; `fresh_from` is the first attempt whose facts a later one of a read-only state may
    still reuse; `failed_seq` is the event that ended the first failed attempt since the state's last effect;
    `retry_delay_ms` is set while a retry waits, `retry_ts_millis` being when it was scheduled.
    """

    error: ErrorInfo | None = None
    cut: bool = False
    failures: int = 0
    recoveries: int = 0
    fresh_from: int = 0
    orphans: tuple[int, ...] = ()
    """The numbers of the attempts that ended with the death of their driver."""
    began_seq: int | None = None
    """The event that began the first attempt."""
    failed_seq: int | None = None
    retry_after_ms: int = 0
    """The delay that the external service asked for when the last attempt failed."""
    retry_delay_ms: int | None = None
    retry_ts_millis: int | None = None

    def and_one(self, entry: Entry, event: StateFailed, attempt: OpenAttempt) -> FailedAttempts:
        """Return these attempts and one more, which failed with this entry."""
        causes = read_causes(entry.info)
        changes: dict[str, Any] = {
            "error": attrs.evolve(event.error, causes=causes) if causes else event.error,
            "cut": event.cut,
            "began_seq": self.began_seq or attempt.seq,
            "retry_after_ms": read_wait(entry.info),
        }
        if event.error.code not in STOPPED_CODES:
            changes["failures"] = self.failures + 1
            changes["failed_seq"] = self.failed_seq or entry.seq
            changes["recoveries"] = 0
        elif event.error.code == Code.ORPHAN_ATTEMPT_RECOVERED:
            changes["recoveries"] = self.recoveries + (COPIED not in entry.info)
            changes["orphans"] = (*self.orphans, attempt.attempt)
        if not event.cut:
            changes["fresh_from"] = attempt.attempt + 1
        return attrs.evolve(self, **changes)

    def and_scheduled(self, delay_ms: int, ts_millis: int) -> FailedAttempts:
        """Return these attempts with another one to follow after a delay that begins at `ts_millis`."""
        return attrs.evolve(self, retry_delay_ms=delay_ms, retry_ts_millis=ts_millis)

    def let_go(self, ts_millis: int) -> FailedAttempts:
        """Return these attempts after a person let the state go on: its retries begin anew, the first at once."""
        return attrs.evolve(self, failures=0, retry_delay_ms=0, retry_ts_millis=ts_millis)

    def and_suspended(self, event: StateFailed, attempt: OpenAttempt) -> FailedAttempts:
        """Return these attempts after one was put away: it has not failed, and will go on."""
        began_seq = self.began_seq or attempt.seq
        return attrs.evolve(self, error=event.error, cut=True, began_seq=began_seq)


_NONE_FAILED: Final = FailedAttempts()


@attrs.define
class StateHistory:
    """The history of one state according to the log.

    `attempts` counts those begun. `base_snapshot_id` is the context they began on; `wrote` and `not_taken` are as
    in `state_completed`; `read` lists the context keys that its last attempt is known to have read.
    """

    status: StateStatus
    attempts: int = 0
    failed: FailedAttempts = _NONE_FAILED
    reason: str | None = None
    snapshot_id: str | None = None
    base_snapshot_id: str | None = None
    wrote: tuple[str, ...] = ()
    read: str | None = None
    """The recorded keys, as a JSON array."""
    not_taken: tuple[str, ...] = ()
    answered: bool = False
    """True when a wait of its suspended attempt has been answered since."""
    anew: bool = False
    """True when its suspended attempt does not go on, and another one begins."""
    cleans: bool = False
    """True when it began or was skipped after the work of the run had ended."""

    @property
    def failed_and_skipped(self) -> bool:
        """True for a part of the work that failed for good, and that the run went on without."""
        reason = self.reason or ""
        return reason.startswith(FAILED_WITH) and reason != KNOWN_LATER and not self.cleans

    def let_go(self, ts_millis: int) -> None:
        """Let a state that has failed for good be tried again."""
        self.status, self.failed = StateStatus.WAITING, self.failed.let_go(ts_millis)

    @property
    def goes_on(self) -> bool:
        """True while its last attempt is suspended, and the next one is the same."""
        return self.status is StateStatus.SUSPENDED and not self.anew

    def leads_to(self, state_id: str) -> bool:
        """Say whether the edge to a successor is live."""
        by_passed = self.reason is not None and self.reason.startswith((NOT_TAKEN, UNREACHABLE))
        return not by_passed and state_id not in self.not_taken


def failed_and_skipped(states: Mapping[str, StateHistory]) -> int:
    """Return the number of states that failed for good and that the run went on without."""
    return sum(state.failed_and_skipped for state in states.values())
