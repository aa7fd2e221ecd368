"""Reorder a recording of concurrent attempts so that a replay can make them one by one.

No attempt sees a concurrent one, so a replay need not interleave them: it makes them one by one, each on the same
base and the same facts, and the digest, taken state by state, is the same. Seqs keep their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from machine.events import Entry, StateCompleted, StateSkipped


def one_after_another(entries: Iterable[Entry]) -> list[Entry]:
    """Return a run's entries with those of each state next to each other, in an order the run could have had."""
    return [entry for block in blocks_of(entries) for entry in block]


def blocks_of(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Return a run's entries in blocks: one for each state, and one for each entry that belongs to no state.

    The attempts of a state stand where it settled, after everything it follows. The attempts of a state that did
    not settle stand before the next run-level event at which no attempt is open.
    """
    blocks: list[list[Entry]] = []
    unsettled: dict[str, list[Entry]] = {}
    for entry in entries:
        event = entry.event
        state_id = getattr(event, "state_id", None)
        if state_id is None:
            blocks += [*unsettled.values(), [entry]]
            unsettled = {}
            continue
        unsettled.setdefault(state_id, []).append(entry)
        if isinstance(event, StateCompleted | StateSkipped):
            blocks.append(unsettled.pop(state_id))
    return [*blocks, *unsettled.values()]
