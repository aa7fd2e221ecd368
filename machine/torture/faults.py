"""The ways in which an append can go wrong, and what each must look like to whoever drives the run."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import attrs

from machine.errors import Code

__all__ = ["FAULTS", "Blow", "Fault", "PowerCut"]


class PowerCut(BaseException):
    """The process ends here. Not an `Exception`: nothing that runs in a process handles its own death."""


class Fault(StrEnum):
    """What happens at a boundary."""

    KILLED_BEFORE_APPEND = "killed_before_append"
    KILLED_AFTER_APPEND = "killed_after_append"
    TORN_WRITE = "torn_write"
    FSYNC_LOST = "fsync_lost"
    ENOSPC = "enospc"
    EIO = "eio"
    DUPLICATE_APPEND = "duplicate_append"
    STORE_LOCKED = "store_locked"

    @property
    def label(self) -> str:
        """The fault as people write it."""
        return self.value.upper() if self.value.startswith("e") else self.value.replace("_", " ")

    @property
    def strikes_ahead(self) -> bool:
        """True when it matters how far the run has gone on while the append is outstanding.

        After an append that is kept, a run that had gone ahead is the same as one struck at a later boundary; and
        a torn write leaves what one leaves that was never begun.
        """
        return self not in {Fault.KILLED_AFTER_APPEND, Fault.TORN_WRITE, Fault.DUPLICATE_APPEND}

    @property
    def ends(self) -> str | None:
        """The code of the error that the run must end with in this process; None when the process dies."""
        return _ENDS.get(self)


_ENDS: Final = {
    Fault.ENOSPC: str(Code.STORE_FULL),
    Fault.EIO: str(Code.STORE_FAILED),
    Fault.DUPLICATE_APPEND: str(Code.CONCURRENCY),
    Fault.STORE_LOCKED: str(Code.STORE_BUSY),
}

FAULTS: Final = tuple(Fault)
"""Every fault there is, in the order of the table."""


@attrs.frozen
class Blow:
    """One fault at one boundary: the append that holds event `seq`.

    `ahead` lets the run go on as far as it may while that append is outstanding, as it does when a thread
    commits behind it; otherwise every event is appended before the run goes on.
    """

    fault: Fault
    seq: int
    ahead: bool = False
