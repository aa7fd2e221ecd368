"""The ways in which an append can fail, and how the driver of the run must see each."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import attrs

from machine.errors import Code


class PowerCut(BaseException):
    """The simulated end of the process; not an `Exception`, since no code in a process handles its own death."""


class Fault(StrEnum):
    """The kinds of fault that can strike at a boundary."""

    KILLED_BEFORE_APPEND = "killed_before_append"
    KILLED_AFTER_APPEND = "killed_after_append"
    KILLED_AFTER_RETURN = "killed_after_return"
    TORN_WRITE = "torn_write"
    FSYNC_LOST = "fsync_lost"
    ENOSPC = "enospc"
    EIO = "eio"
    DUPLICATE_APPEND = "duplicate_append"
    STORE_LOCKED = "store_locked"

    @property
    def label(self) -> str:
        """The fault as it is written on the command line."""
        return self.value.upper() if self.value.startswith("e") else self.value.replace("_", " ")

    @property
    def ends(self) -> str | None:
        """The code of the error that ends the run in this process, or None when the process dies."""
        return _ENDS.get(self)


_ENDS: Final = {
    Fault.ENOSPC: str(Code.STORE_FULL),
    Fault.EIO: str(Code.STORE_FAILED),
    Fault.DUPLICATE_APPEND: str(Code.CONCURRENCY),
    Fault.STORE_LOCKED: str(Code.STORE_BUSY),
}

FAULTS: Final = tuple(Fault)
"""Every fault, in the order of the table."""


class Pace(StrEnum):
    """The number of events by which a run is ahead of its store when the fault occurs."""

    EACH = "each"
    """The run waits for each append."""
    AHEAD = "ahead"
    """The run continues to the next event that must be durable."""
    BEHIND = "behind"
    """A thread makes the append, and the run continues until it learns of the failure."""


@attrs.frozen
class Blow:
    """One fault at one boundary: the append of the events from `seq` to `last`.

    `unnoticed` is a torn write that the store itself does not detect: a changed byte in a sound database.
    """

    fault: Fault
    seq: int
    last: int
    pace: Pace = Pace.EACH
    unnoticed: bool = False


def blows_of(fault: Fault, seq: int, last: int) -> list[Blow]:
    """Return the variants of a fault at a boundary.

    If the append survives, a run that had gone ahead is the same as one that fails later; if it is torn, the
    same as one that was killed before it.
    """
    if fault is Fault.KILLED_AFTER_RETURN:  # the disk is as far behind as it may be: that is the point
        return [Blow(fault, seq, last, Pace.AHEAD)]
    blows = [Blow(fault, seq, last)]
    if fault is Fault.TORN_WRITE:
        blows.append(Blow(fault, seq, last, unnoticed=True))
    elif fault not in {Fault.KILLED_AFTER_APPEND, Fault.DUPLICATE_APPEND}:
        blows.append(Blow(fault, seq, last, Pace.AHEAD))
    if fault.ends is not None:
        blows.append(Blow(fault, seq, last, Pace.BEHIND))
    return blows
