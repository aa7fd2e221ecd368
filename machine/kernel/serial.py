"""Putting the attempts of a recording one after the other, where they were made side by side.

No attempt sees another that runs beside it, so a replay need not interleave them: it makes them one by one, each on
the same base and the same facts, and the digest, taken state by state, is the same. Seqs keep their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from machine.events import Entry, StateCompleted, StateEntered, StateFailed

__all__ = ["blocks_of", "one_after_another"]


def one_after_another(entries: Iterable[Entry]) -> list[Entry]:
    """Return a run's entries with those of each attempt next to each other, in an order the run could have had."""
    return [entry for block in blocks_of(entries) for entry in block]


def blocks_of(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Return a run's entries in blocks: one for each attempt, and one for each entry that is of none.

    An attempt stands where it ended: after all that it follows.
    """
    blocks: list[list[Entry]] = []
    open_attempts: dict[str, list[Entry]] = {}
    for entry in entries:
        event = entry.event
        state_id = getattr(event, "state_id", "")
        if isinstance(event, StateEntered):
            open_attempts[state_id] = [entry]
        elif state_id not in open_attempts:
            blocks.append([entry])
        else:
            open_attempts[state_id].append(entry)
            if isinstance(event, StateCompleted | StateFailed):
                blocks.append(open_attempts.pop(state_id))
    return [*blocks, *open_attempts.values()]
