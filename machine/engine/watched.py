"""The caller's part of a run that is driven, and the changes that the caller allows."""

from __future__ import annotations

from typing import NamedTuple

import attrs

from machine.engine.driver_protocols import SecondOf
from machine.engine.in_process_waits import Waiting
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import LEASE_SECONDS
from machine.engine.transports_and_catalogue import Provided
from machine.policy import NO_POLICY, Policy


@attrs.frozen
class Watched:
    """The caller's part of a run: what the plan and the caller provide, an observer, the time of its lease."""

    provided: Provided
    reporter: Reporter
    second: SecondOf | None
    lease_ms: int = int(LEASE_SECONDS * 1000)
    waiting: Waiting = attrs.field(factory=Waiting)
    policy: Policy = NO_POLICY
    """The policy of the driver, on top of those of its runs."""
    is_child: bool = False
    """True where the driver of its parent drives a run."""
    begin_next: bool = True
    """True when a run that goes on as another begins it, and its driver drives that on."""

    def for_child(self, provided: Provided, reporter: Reporter) -> Watched:
        """Return the caller's part of a child run."""
        waiting = attrs.evolve(self.waiting, seconds=0)
        own = attrs.evolve(self, provided=provided, reporter=reporter, waiting=waiting)
        return attrs.evolve(own, is_child=True, begin_next=True)


class Changes(NamedTuple):
    """The changes since a run was begun that its driver allows: of the plan, of the code of suspended attempts."""

    of_plan: bool = False
    of_code: bool = False
