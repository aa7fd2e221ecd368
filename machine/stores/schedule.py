"""A schedule as a store holds it: which plan starts at which times, and how that name finds its runs.

A schedule is a setting and no part of any run: it can be changed and deleted. Its ticks are runs, found by their
invocation keys, so that no second record says which of them were started.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import attrs

from machine.config import Target
from machine.errors import Code, NotFoundError, UsageError
from machine.ids import ScheduleName

TICK_PREFIX: Final = "schedule:"
"""The beginning of the invocation keys of all runs that a schedule started."""


class CatchUp(StrEnum):
    """The instants that run although nobody was there to start them in time."""

    SKIP = "skip"
    """None of them: only instants to come."""
    ONE = "one"
    """The latest of them."""
    ALL = "all"
    """Each of them, in order."""


class Overlap(StrEnum):
    """The fate of an instant that comes before the run of the last one is over."""

    SKIP = "skip"
    """It is skipped."""
    QUEUE = "queue"
    """It runs when the last one is over."""


def _checked_name(name: str) -> str:
    return str(ScheduleName(name))


@attrs.frozen
class Schedule:
    """A plan that is started at the times of a cron expression in a time zone.

    `target` is the origin of the plan, `input` the input of each run. No instant at or before `since_ms`
    (milliseconds since the epoch) ever starts a run: it is the time of the creation, or of the last `resume`.
    """

    name: str = attrs.field(converter=_checked_name)
    cron: str
    tz: str
    target: Target
    input: Mapping[str, Any]
    catch_up: CatchUp
    overlap: Overlap
    created_ms: int
    since_ms: int
    paused: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as a JSON object."""
        return attrs.asdict(self)

    def paused_or_resumed(self, *, paused: bool, now_ms: int) -> Schedule:
        """Return the schedule paused or not; what fell into a pause is not missed, and never runs."""
        if paused == self.paused:
            return self
        return attrs.evolve(self, paused=paused, since_ms=self.since_ms if paused else now_ms)


def schedule_exists(name: str, url: str) -> UsageError:
    """Return the error for a second schedule of one name."""
    return UsageError(
        f"there is a schedule {name!r} in {url} already",
        code=Code.SCHEDULE_EXISTS,
        details={"name": name},
        hint="nothing was changed; remove that one first, or choose another name",
    )


def no_schedule(name: str, url: str) -> NotFoundError:
    """Return the error for a schedule that does not exist."""
    return NotFoundError(
        f"there is no schedule {name!r} in {url}",
        code=Code.SCHEDULE_NOT_FOUND,
        details={"name": str(name)},
        hint="machine schedule list shows them",
    )
