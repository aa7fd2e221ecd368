"""The list of the child runs of a run, with what has become of each."""

from __future__ import annotations

import attrs

from machine.engine.run_reader import PastRun
from machine.events import WaitBegun
from machine.kernel.open_waits import CHILD

MISSING = "missing"
"""Status of a child run that has not begun yet, or is not in this store."""


@attrs.frozen
class ListedChild:
    """A child run: its id, its op and its status, the state that began it, and the key of the wait for it.

    Of one that went on as another run it is the last.
    """

    run_id: str
    op_id: str
    status: str
    state_id: str
    key: str


def listed_children(run: PastRun) -> list[ListedChild]:
    """Return the child runs of a run, in the order they were begun."""
    found: dict[str, ListedChild] = {}
    for entry in run.entries:
        event, child = entry.event, entry.info.get(CHILD)
        if isinstance(event, WaitBegun) and isinstance(child, str):
            op_id = str(run.json(event.request_digest).get("op_id", ""))
            child = run.store.last_segment(child)
            known = run.store.run_exists(child)
            status = run.store.run_row(child).status if known else MISSING
            found[child] = ListedChild(child, op_id, status, event.state_id, event.key)
    return list(found.values())
