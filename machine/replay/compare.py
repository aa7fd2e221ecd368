"""What a divergence shows of two plans, two contexts, or of calls that are like one that was never recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from machine import canonical
from machine.errors import MachineError
from machine.events import Entry, FactRecorded
from machine.io.call import Call
from machine.kernel.snapshot import Snapshot
from machine.plan import parts_of
from machine.replay.divergence import NearCall
from machine.replay.pointer import Change, diff

__all__ = ["context_changes", "likeliest", "near_calls", "plan_shape"]

_NEAREST: Final = 3

Load = Callable[[str], bytes]


def plan_shape(load: Load, plan_id: str) -> Any:
    """Return a plan's states and edges in a form that differs where the plans do; its id when it cannot be read."""
    try:
        states, edges = parts_of(canonical.decode(load(plan_id)))
    except (MachineError, LookupError, TypeError, ValueError):
        return plan_id
    return {"edges": {f"{earlier} -> {later}": True for earlier, later in edges}, "states": states}


def context_changes(
    recorded: tuple[Load, str], now: tuple[Load, str]
) -> tuple[list[str], Any, Any, list[Change]]:
    """Return the keys in which two contexts differ, what they hold under them, and the changes in detail."""
    before, after = (Snapshot.open(snapshot_id, load).to_dict() for load, snapshot_id in (recorded, now))
    changes = list(diff(before, after))
    keys = sorted({change.pointer.split("/")[1] for change in changes})
    return (
        keys,
        {key: before[key] for key in keys if key in before},
        {key: after[key] for key in keys if key in after},
        changes,
    )


def likeliest(
    left: Sequence[tuple[Entry, FactRecorded]], call: Call, request: Callable[[FactRecorded], Any]
) -> list[tuple[Entry, FactRecorded]]:
    """Return the recorded calls of a namespace that one that was not recorded may have been, likeliest first."""
    fitting = [(entry, fact) for entry, fact in left if fact.namespace == call.namespace]
    return sorted(
        fitting, key=lambda item: (item[1].key != call.key, len(diff(request(item[1]), call.request)))
    )


def near_calls(
    left: Sequence[tuple[Entry, FactRecorded]], call: Call, request: Callable[[FactRecorded], Any]
) -> list[NearCall]:
    """Return the recorded calls that are nearest to one that was not recorded."""
    return [
        NearCall(
            entry.seq,
            fact.namespace,
            request(fact),
            "another request" if fact.namespace == call.namespace else f"a call of {fact.namespace}",
        )
        for entry, fact in left[:_NEAREST]
    ]
