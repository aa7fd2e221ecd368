"""The first point where a replay differs from its recording: one object, rendered in one way everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import attrs

from machine.recordings.json_diff import Change
from machine.recordings.result_json import fields_json


class DivergenceKind(StrEnum):
    """The kind of difference."""

    REQUEST_CHANGED = "request_changed"
    CALL_ADDED = "call_added"
    CALL_MISSING = "call_missing"
    CALL_REORDERED = "call_reordered"
    VALUE_DIFFERS = "value_differs"
    EVENT_DIFFERS = "event_differs"
    SNAPSHOT_DIFFERS = "snapshot_differs"
    ENDED_EARLY = "ended_early"
    PLAN_CHANGED = "plan_changed"
    CORRUPT = "corrupt"
    UNDECLARED_IO = "undeclared_io"
    SECRET_NEEDED = "secret_needed"  # noqa: S105 - the name of a kind


class Cause(StrEnum):
    """The most likely cause of the difference."""

    STATE_CODE_CHANGED = "state_code_changed"
    UPSTREAM_CODE_CHANGED = "upstream_code_changed"
    PLAN_CHANGED = "plan_changed"
    NOTHING_CHANGED = "nothing_changed"
    OUTSIDE_CHANGED = "outside_changed"
    STATES_RACED = "states_raced"
    SECRETS_NOT_OPENED = "secrets_not_opened"
    RECORDING_DAMAGED = "recording_damaged"
    UNKNOWN = "unknown"


@attrs.frozen
class NearCall:
    """A recorded call that was not used, and why it does not match."""

    seq: int
    namespace: str
    request: Any
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the call as a JSON object."""
        return fields_json(self)


@attrs.frozen(kw_only=True)
class Divergence:
    """The first difference between a recording and its replay.

    `seq` is the event of the recording at which it occurs. `recorded` and `now` are the two sides as JSON (None
    for an absent side), and `changes` is their difference. `cause` is the likely cause, `cause_text` states it
    in a sentence, and `code` shows the changed source lines, if that is the cause and the source was stored.
    `raised` gives the traceback of an attempt that failed otherwise than recorded.
    """

    kind: DivergenceKind
    seq: int
    state_id: str | None = None
    attempt: int | None = None
    summary: str
    recorded: Any = None
    now: Any = None
    changes: Sequence[Change] = ()
    nearest: Sequence[NearCall] = ()
    cause: Cause = Cause.UNKNOWN
    cause_text: str = ""
    code: Sequence[str] = ()
    raised: Sequence[str] = ()

    def __str__(self) -> str:
        where = f" in {self.state_id}" if self.state_id else ""
        if self.attempt is not None:
            where += f" (attempt {self.attempt})"
        return f"{self.kind} at event {self.seq}{where}: {self.summary}"

    def to_json(self) -> dict[str, Any]:
        """Return the divergence as a JSON object."""
        return fields_json(self)


class Diverged(BaseException):
    """Exception that takes a divergence out of a handler; no `Exception`, so that handlers do not catch it."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(str(divergence))
        self.divergence = divergence


class RecordingEnds(BaseException):
    """Raised where the recording ends before its run has ended."""
