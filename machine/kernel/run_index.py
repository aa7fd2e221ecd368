"""The index of runs: a pure projection of a log's run-level events, the same for every store.

It never judges a log (`fold` does) and never fails: whatever the bytes are, there is a row.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from machine.kernel.open_waits import WAKE
from machine.kernel.segments import NEXT_RUN, segment_of
from machine.labels import LABELS, labels_in

_may_be_run_level: Final = re.compile(rb'"type":"run_').search
"""Search for the bytes that every run-level event contains, because canonical JSON has one spelling."""

_MILLISECONDS: Final = re.compile("[0-9]{1,19}")

_MAX_MS: Final = 2**63 - 1
"""The largest integer a store's column holds."""


StoredForm: TypeAlias = tuple[int, bytes] | tuple[int, bytes, bytes]
"""An event as its seq and its envelope bytes, with or without its link of the chain."""


class RunRow(NamedTuple):
    """One run's row in the index. `created_ms` and `updated_ms` are milliseconds since the epoch.

    `invocation_key` is the value of that name in the first event's info: no two runs of a store share one.
    `wake_ms` is the earliest time at which a wait of a suspended run ends by itself or a child run of it can go on,
    None when there is none. `labels` are the labels of the run as text, a JSON object, None without any.
    Of runs that go on as another, `next_run_id` is the one that continues this one, `first_run_id` the first of the
    chain and `segment` the number in it; both are None for one that continues none.
    """

    run_id: str
    op_id: str
    status: str
    created_ms: int
    updated_ms: int
    head_seq: int
    invocation_key: str | None = None
    wake_ms: int | None = None
    labels: str | None = None
    first_run_id: str | None = None
    segment: int | None = None
    next_run_id: str | None = None


def advance(row: RunRow | None, run_id: str, events: Iterable[StoredForm]) -> RunRow:
    """Return the row after `events`; `row` is None for a run's first append.

    Total: bytes that are no envelope leave op and status unchanged. `fold` is what judges a log.
    """
    row = row or RunRow(run_id, "", "pending", 0, 0, 0)
    op_id, status, created_ms, updated_ms, head_seq = row[1:6]
    invocation_key, wake_ms, labels, first_run_id, segment, next_run_id = row[6:]
    for stored in events:
        head_seq, data = stored[0], stored[1]
        if not _may_be_run_level(data):
            continue  # not parsed
        event, ts, info = _event(data)
        match event.get("type"):
            case "run_started":
                op_id, status, wake_ms = _text(event.get("op_id"), ""), "running", None
                created_ms = updated_ms = ts
                if head_seq == 1:
                    invocation_key = _text(info.get("invocation_key"), "") or None
                    labels = _text(info.get(LABELS), "") if labels_in(info.get(LABELS)) else None
                    first_run_id, segment = segment_of(info) or (None, None)
            case "run_suspended":
                status, updated_ms = "suspended", ts
                wake_ms = _earliest(_wake_ms(event.get("waits")), _wake_of_child(data))
            case "run_resumed":
                status, updated_ms, wake_ms = "running", ts, None
            case "run_completed":
                status, updated_ms, wake_ms = _text(event.get("status"), status), ts, None
                next_run_id = _text(info.get(NEXT_RUN), "") or None
            case _:
                pass
    moved = op_id, status, created_ms, updated_ms, head_seq, invocation_key, wake_ms, labels
    return RunRow(run_id, *moved, first_run_id, segment, next_run_id)


def ends_with_answer(row: RunRow, events: Collection[StoredForm]) -> bool:
    """Say whether the last of `events`, after which a run has this row, came while the run was suspended."""
    return row.status == "suspended" and moves_head_only(list(events)[-1:])


def moves_head_only(events: Collection[StoredForm]) -> bool:
    """Say whether `advance` changes nothing but the head of a row: there are events, none at the run's level."""
    for stored in events:
        if _may_be_run_level(stored[1]):
            return False
    return bool(events)


def _wake_ms(waits: object) -> int | None:
    """Return the earliest end of the time limits and timers that a run waits for."""
    ends = [wait.get("due_ms") for wait in waits if isinstance(wait, dict)] if isinstance(waits, list) else []
    return min((end for end in ends if type(end) is int and 0 <= end <= _MAX_MS), default=None)


def _wake_of_child(data: bytes) -> int | None:
    """Return the time at which a child run of a suspended run can go on by itself, None without one."""
    text = orjson.loads(data)["info"].get(WAKE)
    known = isinstance(text, str) and _MILLISECONDS.fullmatch(text) is not None
    return int(text) if known and int(text) <= _MAX_MS else None


def _earliest(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def _text(value: object, otherwise: str) -> str:
    return value if isinstance(value, str) else otherwise


def _event(data: bytes) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """Return the event, its time and its info."""
    try:
        envelope = orjson.loads(data)
        event, info = envelope["event"], envelope["info"]
        ts = info["ts_millis"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return {}, 0, {}
    objects = isinstance(event, dict) and isinstance(info, dict)
    if not objects or type(ts) is not int or not 0 <= ts <= _MAX_MS:
        return {}, 0, {}
    return event, ts, info
