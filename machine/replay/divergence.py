"""The first point where a replay differs from its recording: one object, rendered by everybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import attrs

from machine.replay.pointer import Change

__all__ = ["Cause", "Divergence", "DivergenceKind", "NearCall", "likely_cause"]


class DivergenceKind(StrEnum):
    """What differs."""

    REQUEST_CHANGED = "request_changed"
    CALL_ADDED = "call_added"
    CALL_MISSING = "call_missing"
    EVENT_DIFFERS = "event_differs"
    SNAPSHOT_DIFFERS = "snapshot_differs"
    ENDED_EARLY = "ended_early"
    PLAN_CHANGED = "plan_changed"
    UNDECLARED_IO = "undeclared_io"


class Cause(StrEnum):
    """What most likely made the difference."""

    STATE_CODE_CHANGED = "state_code_changed"
    UPSTREAM_CODE_CHANGED = "upstream_code_changed"
    PLAN_CHANGED = "plan_changed"
    NOTHING_CHANGED = "nothing_changed"
    UNKNOWN = "unknown"


@attrs.frozen
class NearCall:
    """A recorded call that was not used, and why it does not fit."""

    seq: int
    namespace: str
    request: Any
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the call as a JSON object."""
        return {"seq": self.seq, "namespace": self.namespace, "request": self.request, "reason": self.reason}


@attrs.frozen(kw_only=True)
class Divergence:
    """The first difference between a recording and its replay.

    `seq` is the event of the recording where it shows. `recorded` and `now` are the two sides as JSON (None
    when a side has nothing there), `changes` their difference. `cause` is the likely one and `cause_text` says
    it in a sentence.
    """

    kind: DivergenceKind
    seq: int
    summary: str
    state_id: str | None = None
    attempt: int | None = None
    recorded: Any = None
    now: Any = None
    changes: Sequence[Change] = ()
    nearest: Sequence[NearCall] = ()
    cause: Cause = Cause.UNKNOWN
    cause_text: str = ""

    def __str__(self) -> str:
        where = f" in {self.state_id} (attempt {self.attempt})" if self.state_id else ""
        return f"{self.kind} at event {self.seq}{where}: {self.summary}"

    def to_json(self) -> dict[str, Any]:
        """Return the divergence as a JSON object."""
        return {
            "kind": self.kind.value,
            "seq": self.seq,
            "state_id": self.state_id,
            "attempt": self.attempt,
            "summary": self.summary,
            "recorded": self.recorded,
            "now": self.now,
            "changes": [change.to_json() for change in self.changes],
            "nearest": [call.to_json() for call in self.nearest],
            "cause": self.cause.value,
            "cause_text": self.cause_text,
        }


def likely_cause(
    state_id: str | None,
    order: Sequence[str],
    recorded: Mapping[str, str] | None,
    now: Mapping[str, str],
) -> tuple[Cause, str]:
    """Return what most likely made a state differ, from the code fingerprints then and now."""
    if recorded is None or state_id is None:
        return Cause.UNKNOWN, "the recording does not say which code it was made by"
    changed = [other for other in order if recorded.get(other) != now.get(other)]
    if state_id in changed:
        return Cause.STATE_CODE_CHANGED, f"the code of {state_id} has changed since the recording"
    upstream = changed[: next((i for i, other in enumerate(changed) if _after(order, other, state_id)), None)]
    if upstream:
        return (
            Cause.UPSTREAM_CODE_CHANGED,
            f"the code of {', '.join(upstream)}, which ran before it, has changed",
        )
    text = (
        f"the code of {state_id} has not changed: a constant, another module or a library has, "
        "or it is nondeterministic (time, randomness, the environment, set order, ... that did not come through io)"
    )
    return Cause.NOTHING_CHANGED, text


def _after(order: Sequence[str], one: str, other: str) -> bool:
    return order.index(one) > order.index(other)
