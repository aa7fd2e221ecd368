"""Logs and artifacts for tests of stores: real envelopes, real chains, and ids that sort as requested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from machine.canonical import artifact_id
from machine.config import Target
from machine.envelope import chain_next, seal
from machine.events import Artifact
from machine.stores.base import ZERO_CHAIN, Store, StoredEvent
from machine.stores.schedule import CatchUp, Overlap, Schedule

RUN: Final = "01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3c"
OTHER: Final = "01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3d"
LONG: Final = 1200
"""More events than a store is likely to fetch in one query."""

_STARTED: Final = (
    b'{"initial_snapshot_id":"s","manifest_id":"m","op_id":"%b","plan_id":"p","type":"run_started"}'
)
_ENTERED: Final = b'{"attempt":0,"base_snapshot_id":"s","state_id":"a.b.c","type":"state_entered"}'
_COMPLETED: Final = b'{"final_snapshot_id":"s","status":"%b","type":"run_completed"}'


@attrs.define
class Clock:
    """A clock that stands still until a test moves it."""

    now: int = 1_700_000_000_000

    def __call__(self) -> int:
        """Return the time in milliseconds."""
        return self.now


def run_id_of(number: int) -> str:
    """Return a run id that sorts by `number`."""
    return f"{number:08x}-7c1a-7b3f-9a41-3f0c5f1a2b3c"


def log_of(
    run_id: str,
    count: int,
    *,
    first: int = 1,
    chain: bytes = ZERO_CHAIN,
    op: str = "demo",
    status: str | None = None,
    info: Mapping[str, str] | None = None,
) -> list[StoredEvent]:
    """Return `count` events from seq `first` that continue `chain`; `status` ends the run.

    `info` is added to that of each envelope.
    """
    events = []
    for seq in range(first, first + count):
        body = _STARTED % op.encode() if seq == 1 else _ENTERED
        if status is not None and seq == first + count - 1:
            body = _COMPLETED % status.encode()
        data = seal(seq, body, run_id, 1_700_000_000_000 + seq, info)
        chain = chain_next(chain, data)
        events.append(StoredEvent(seq, data, chain))
    return events


_SUSPENDED: Final = b'{"type":"run_suspended","waits":[%b]}'
_TIMER: Final = b'{"due_ms":%d,"key":"k%d","state_id":"a.b.c","type":"timer"}'
_APPROVAL: Final = b'{"key":"k%d","state_id":"a.b.c","type":"approval"}'

RESUMED: Final = b'{"by":"operator","type":"run_resumed"}'
"""The body of an event with which a suspended run continues."""

ANSWER: Final = (
    b'{"attempt":0,"key":"k0","namespace":"wait.timer","outcome":{"payload_id":"p","type":"value"},'
    b'"request_digest":"r","state_id":"a.b.c","type":"fact_recorded"}'
)
"""The body of a fact that a suspended run receives."""


def suspended(*due_ms: int | None) -> bytes:
    """Return the body of an event that suspends a run: a timer for each time, an approval for each None."""
    waits = [_APPROVAL % key if due is None else _TIMER % (due, key) for key, due in enumerate(due_ms)]
    return _SUSPENDED % b",".join(waits)


def then(store: Store, run_id: str, *bodies: bytes) -> list[StoredEvent]:
    """Return events with these bodies that continue the log of a run in a store."""
    head, events = store.head(run_id), []
    chain = head.chain
    for seq, body in enumerate(bodies, head.seq + 1):
        data = seal(seq, body, run_id, 1_700_000_000_000 + seq)
        chain = chain_next(chain, data)
        events.append(StoredEvent(seq, data, chain))
    return events


def suspend(store: Store, run_id: str, *due_ms: int | None, op: str = "demo", **terms: Any) -> None:
    """Append to an empty log what starts a run and suspends it, the second under the terms of an append."""
    store.append(run_id, 0, log_of(run_id, 1, op=op))
    store.append(run_id, 1, then(store, run_id, suspended(*due_ms)), **terms)


def artifact_of(data: bytes, kind: str = "output") -> Artifact:
    """Return bytes under the id that they hash to."""
    return Artifact(artifact_id(data), kind, data)


def schedule_of(name: str, **changes: Any) -> Schedule:
    """Return a schedule of a name, with some of its fields changed."""
    fields: dict[str, Any] = {
        "cron": "30 2 * * *",
        "tz": "Europe/Berlin",
        "target": Target("/srv/flow.py:plan", "/srv"),
        "input": {"a": [1, 2.5, None, "ä"]},
        "catch_up": CatchUp.ONE,
        "overlap": Overlap.QUEUE,
        "created_ms": 1_700_000_000_000,
        "since_ms": 1_700_000_000_000,
    }
    return Schedule(name, **{**fields, **changes})


def read_log(store: Store, run_id: str) -> list[StoredEvent]:
    """Return all events of a run."""
    return list(store.read_range(run_id))
