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
