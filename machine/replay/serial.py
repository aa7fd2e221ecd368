"""Putting the attempts of a recording one after the other, where they were made side by side.

No attempt sees another that runs beside it, so a replay need not interleave them: it makes them one by one, each on
the same base and the same facts, and the digest, taken state by state, is the same. Seqs keep their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from machine.events import Entry, StateCompleted, StateEntered, StateFailed

__all__ = ["blocks_of"]


def blocks_of(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Return a run's entries in blocks, one after the other as the run could have made them.

    There is one for each attempt, and one for each entry that is of none.

    An attempt stands where it ended. One that failed and that no other attempt of its state follows stands after
    all that ran beside it, for after a failure nothing is begun any more.
    """
    blocks: list[list[Entry]] = []
    open_attempts: dict[str, list[Entry]] = {}
    failed: dict[str, list[Entry]] = {}
    for entry in entries:
        event = entry.event
        state_id = getattr(event, "state_id", None)
        if state_id is None:  # it concerns the run as a whole: nothing is open there
            blocks += [*failed.values(), [entry]]
            failed = {}
            continue
        if state_id in open_attempts:
            open_attempts[state_id].append(entry)
            if isinstance(event, StateCompleted):
                blocks.append(open_attempts.pop(state_id))
            elif isinstance(event, StateFailed):
                failed[state_id] = open_attempts.pop(state_id)
            continue
        if state_id in failed:
            blocks.append(failed.pop(state_id))
        if isinstance(event, StateEntered):
            open_attempts[state_id] = [entry]
        else:
            blocks.append([entry])
    return [*blocks, *failed.values(), *open_attempts.values()]
