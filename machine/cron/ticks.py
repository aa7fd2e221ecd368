"""The decision which instant of a schedule is due, from the store's clock and the runs that the schedule started.

Nothing is recorded besides those runs: the invocation key of each is its instant, so that all processes on a store
come to the same decision, and of several that start one instant only one makes a run.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, Protocol

import attrs

from machine.cron.expressions import LAST_MS, CronTimes
from machine.kernel.run_index import RunRow
from machine.kernel.run_status import FINAL_STATUSES
from machine.stores.schedule import TICK_PREFIX, CatchUp, Overlap, Schedule

IN_TIME_MS: Final = 60_000
"""Milliseconds after an instant in which it counts as started in time; later it was missed."""

_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class Runs(Protocol):
    """The part of a store that finds the runs of a schedule."""

    def last_invocation(self, first: str, before: str, *, created_by_ms: int | None = None) -> RunRow | None:
        """Return the run with the greatest invocation key of a range (see `Store.last_invocation`)."""
        ...

    def last_segment(self, run_id: str) -> str:
        """Return the last of the runs that continue a run (see `Store.last_segment`)."""
        ...

    def run_row(self, run_id: str) -> RunRow:
        """Return one run's row of the index (see `Store.run_row`)."""
        ...


@attrs.frozen
class Tick:
    """An instant of a schedule that was started. `ended_ms` is None while its run is not over.

    A run that went on as another is over when the last one is.
    """

    instant_ms: int
    run_id: str
    began_ms: int
    ended_ms: int | None


def instant_text(ms: int) -> str:
    """Return an instant as it is written in an invocation key: UTC, to the second."""
    return datetime.fromtimestamp(min(max(ms, 0), LAST_MS) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def tick_key(name: str, ms: int) -> str:
    """Return the invocation key of an instant of a schedule; keys of one schedule sort by their instants."""
    return f"{TICK_PREFIX}{name}:{instant_text(ms)}"


def last_tick(runs: Runs, name: str, until_ms: int, *, began_by_ms: int | None = None) -> Tick | None:
    """Return the last instant up to a time that was started, None if none was.

    With `began_by_ms`, only runs that began by that time count.
    """
    first = f"{TICK_PREFIX}{name}:"
    before = tick_key(name, until_ms + 1000)
    while (row := runs.last_invocation(first, before, created_by_ms=began_by_ms)) is not None:
        before = row.invocation_key or ""
        instant = before.removeprefix(first)
        if _INSTANT.fullmatch(instant):  # otherwise a user has given a run such a key
            at = datetime.fromisoformat(instant)
            last = row if row.next_run_id is None else runs.run_row(runs.last_segment(row.run_id))
            ended = last.updated_ms if last.status in FINAL_STATUSES else None
            return Tick(int(at.timestamp()) * 1000, row.run_id, row.created_ms, ended)
    return None


@attrs.frozen
class Decision:
    """The instant of a schedule that is due, and the time before which a look finds nothing else.

    `look_again_ms` is None when no instant will ever come, as for a paused one.
    """

    due_ms: int | None
    look_again_ms: int | None


def decide(schedule: Schedule, times: CronTimes, now_ms: int, runs: Runs) -> Decision:
    """Return which instant of a schedule is to be started now, if any.

    At most one: the next one has to see how its run ends. An instant is missed when nobody has started it within a
    minute, and then `catch_up` decides. One that came while a run of the schedule was not over is not missed:
    `overlap` decides.
    """
    if schedule.paused:
        return Decision(None, None)
    last = last_tick(runs, schedule.name, now_ms)
    if last is not None and last.ended_ms is None:
        return Decision(None, now_ms)
    since = max(schedule.since_ms, last.instant_ms if last is not None else 0)
    missed = None
    while (at := times.after(since)) is not None and at <= now_ms:
        during = last_tick(runs, schedule.name, now_ms, began_by_ms=at)
        if during is not None and (during.ended_ms or 0) >= at:
            if schedule.overlap is Overlap.QUEUE:
                return Decision(at if missed is None else missed, now_ms)
            since = during.ended_ms or at
        elif schedule.catch_up is CatchUp.ALL or at > now_ms - IN_TIME_MS:
            return Decision(at, now_ms)
        else:
            # nobody was there from here to the beginning of the last run, if that came later, or to this moment
            until = last.began_ms if last is not None and at < last.began_ms else now_ms
            if schedule.catch_up is CatchUp.ONE:
                missed = since = times.latest(since, until) or at
            else:
                since = max(min(until, now_ms - IN_TIME_MS), at)
    return Decision(missed, at if missed is None else now_ms)
