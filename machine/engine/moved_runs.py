"""The mark of a run that moved to another store: driven in both, its effects would happen twice."""

from __future__ import annotations

from typing import Final

from machine.errors import Code, RunError
from machine.stores.base import Store

IMPORTED: Final = "imported"
"""The kind of message that has a driver look for what a run waited for elsewhere."""

MOVED: Final = "moved"
"""The kind of message that says in which store a run goes on."""


def mark_moved(store: Store, run_id: str, url: str) -> None:
    """Note, durably, that a run goes on in the store with this URL."""
    store.post(run_id, MOVED, {"to": url})


def refuse_moved(store: Store, run_id: str) -> None:
    """Raise `RunError` (`run_moved`) for a run that goes on in another store."""
    moves = [message.data for message in store.inbox(run_id) if message.kind == MOVED]
    url = moves[-1].get("to") if moves and isinstance(moves[-1], dict) else None
    if url is not None and url != store.url:
        raise RunError(
            f"run {run_id} has moved to {url} and goes on there",
            code=Code.RUN_MOVED,
            details={"run_id": run_id, "to": url},
            hint="nothing was written; use that store",
        )
