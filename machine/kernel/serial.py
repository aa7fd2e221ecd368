"""Putting the attempts of a recording one after the other, where they were made side by side.

No attempt sees another that runs beside it, so a replay need not interleave them: it makes them one by one, each on
the same base and the same facts, and the digest, taken state by state, is the same. Seqs keep their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from machine.events import Entry, StateCompleted, StateEntered, StateFailed

__all__ = ["one_after_another"]


def one_after_another(entries: Iterable[Entry]) -> list[Entry]:
    """Return a run's entries with those of each attempt next to each other, in an order the run could have had.

    An attempt stands where it ended: after all that it follows.
    """
    ordered: list[Entry] = []
    open_attempts: dict[str, list[Entry]] = {}
    for entry in entries:
        event = entry.event
        state_id = getattr(event, "state_id", "")
        if isinstance(event, StateEntered):
            open_attempts[state_id] = [entry]
        elif state_id not in open_attempts:
            ordered.append(entry)
        else:
            open_attempts[state_id].append(entry)
            if isinstance(event, StateCompleted | StateFailed):
                ordered += open_attempts.pop(state_id)
    return ordered + [entry for attempt in open_attempts.values() for entry in attempt]
