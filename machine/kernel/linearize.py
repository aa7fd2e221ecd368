"""Rearrange a recording so that a replay can make its attempts one by one, each without a break.

No attempt sees a concurrent one, so a replay need not interleave them: it makes them one by one, each on the same
base and the same facts, and the digest, taken state by state, is the same. Seqs keep their numbers. An attempt that
was suspended and went on is one attempt, so a replay makes it in one go; its suspensions are in no digest either.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from machine.events import (
    CleanupBegun,
    Entry,
    Event,
    FactRecorded,
    LimitReached,
    RunResumed,
    RunSuspended,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
)
from machine.kernel.suspension import of_timing
from machine.waits import WAIT_KINDS


def without_suspensions(entries: Iterable[Entry]) -> list[Entry]:
    """Return a run's entries with every attempt that was suspended and went on in one piece.

    What the run has not come back from stays: a last suspension, and one after which another attempt began.
    """
    left: list[Entry | None] = []
    attempts: dict[str, int] = {}
    suspended: dict[str, int] = {}
    run_suspended: int | None = None
    for entry in entries:
        event = entry.event
        if isinstance(event, StateFailed) and event.suspended:
            suspended[event.state_id] = len(left)
        elif isinstance(event, StateEntered):
            at = suspended.pop(event.state_id, None)
            if at is not None and attempts[event.state_id] == event.attempt:
                left[at] = None
                continue
            attempts[event.state_id] = event.attempt
        elif isinstance(event, RunSuspended) and of_timing(event.waits):
            run_suspended = len(left)
        elif isinstance(event, RunResumed) and run_suspended is not None:
            at, run_suspended = run_suspended, None
            if not event.anew:
                left[at] = None
                continue
        left.append(entry)
    return [entry for entry in left if entry is not None]


def put_away_ms(entries: Iterable[Entry]) -> int:
    """Return for how long an attempt in one piece was not driven: until its answers, and from them on."""
    return sum(
        later.ts_millis - earlier.ts_millis
        for earlier, later in pairwise(entries)
        if _is_answer(earlier.event) or _is_answer(later.event)
    )


def _is_answer(event: Event) -> bool:
    return isinstance(event, FactRecorded) and event.namespace in WAIT_KINDS


class AttemptParts(NamedTuple):
    """An attempt that was suspended: the entries before it, and its own in one piece, in the order of the log.

    Facts that its waits were answered with belong to it; what other states did since does not.
    """

    before: list[Entry]
    own: list[Entry]
    seen: int
    """The number of its own entries up to its last suspension: no handler has seen those after it."""


def parts_of_attempt(entries: Iterable[Entry], state_id: str, attempt: int) -> AttemptParts:
    """Return the parts of an attempt that was suspended."""
    before: list[Entry] = []
    own: list[Entry] = []
    seen = 0
    for entry in entries:
        event = entry.event
        if own:
            if getattr(event, "state_id", None) != state_id:
                continue
            if isinstance(event, StateFailed) and event.suspended:
                seen = len(own)
            elif not isinstance(event, StateEntered):
                own.append(entry)
        elif isinstance(event, StateEntered) and (event.state_id, event.attempt) == (state_id, attempt):
            own.append(entry)
        else:
            before.append(entry)
    return AttemptParts(before, own, seen)


def one_after_another(entries: Iterable[Entry]) -> list[Entry]:
    """Return a run's entries with those of each state next to each other, in an order the run could have had."""
    return [entry for block in blocks_of(entries) for entry in block]


def blocks_of(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Return a run's entries in blocks: one for each state, and one for each entry that belongs to no state.

    The attempts of a state stand where it settled, after everything it follows. The attempts of a state that did
    not settle stand before the next run-level event at which no attempt is open: a limit that was reached while
    attempts were open stands after these. The attempts of cleanup states stand as they were made.
    """
    blocks: list[list[Entry]] = []
    unsettled: dict[str, list[Entry]] = {}
    reached: list[list[Entry]] = []
    cleaning = False
    for entry in entries:
        event = entry.event
        state_id = getattr(event, "state_id", None)
        if isinstance(event, LimitReached):
            reached = [[entry]]
            continue
        if state_id is None:
            # one in one piece was put away here and went on: it stands where it ended
            open_ones = {state: block for state, block in unsettled.items() if _is_open(block)}
            ended = [block for state, block in unsettled.items() if state not in open_ones]
            blocks += [*ended, *reached, [entry]]
            unsettled, reached = open_ones, []
            cleaning = cleaning or isinstance(event, CleanupBegun)
            continue
        if cleaning and state_id not in unsettled:
            blocks += unsettled.values()
            unsettled = {}
        unsettled.setdefault(state_id, []).append(entry)
        if isinstance(event, StateCompleted | StateSkipped):
            blocks.append(unsettled.pop(state_id))
    # in a log that ends too early, only what is open as well follows what is open
    return [*blocks, *sorted(unsettled.values(), key=_is_open), *reached]


def _is_open(block: Iterable[Entry]) -> bool:
    """Say whether the last attempt in the block of a state has not ended."""
    bounds = [entry.event for entry in block if isinstance(entry.event, StateEntered | StateFailed)]
    return bool(bounds) and isinstance(bounds[-1], StateEntered)
