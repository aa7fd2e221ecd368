"""The instants of a store's schedules that are due, found with few questions to the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from machine.config import Target
from machine.cron.expressions import CronTimes, times_of
from machine.cron.ticks import decide
from machine.errors import MachineError
from machine.kernel.run_index import RunRow
from machine.stores.base import Store
from machine.stores.schedule import TICK_PREFIX, Schedule


def is_of_schedule(store: Store, row: RunRow) -> bool:
    """Say whether a schedule started a run, or the first of the runs that it continues."""
    first = row.first_run_id
    begun = row if first is None or not store.run_exists(first) else store.run_row(first)
    return (begun.invocation_key or "").startswith(TICK_PREFIX)


@attrs.define
class DueTicks:
    """The schedules of a store: one with nothing to do is not looked at before its next instant.

    `wants` says which targets are of this worker.
    """

    store: Store
    wants: Callable[[Target], bool]
    broken: Callable[[Schedule, MachineError], None]
    """Called with a schedule whose instants cannot be computed here."""
    _quiet: dict[str, tuple[Schedule, int]] = attrs.field(factory=dict, init=False)
    _times: dict[tuple[str, str], CronTimes] = attrs.field(factory=dict, init=False)

    def due(self, now_ms: int) -> Iterator[tuple[Schedule, int]]:
        """Yield each schedule that has an instant to start, and that instant."""
        schedules = self.store.schedules()
        for gone in self._quiet.keys() - {one.name for one in schedules}:
            del self._quiet[gone]
        for schedule in schedules:
            if schedule.paused or not self.wants(schedule.target):
                continue
            known, quiet_until = self._quiet.get(schedule.name, (None, 0))
            if known == schedule and now_ms < quiet_until:
                continue
            try:
                decision = decide(schedule, self._times_of(schedule), now_ms, self.store)
            except MachineError as exc:
                self.broken(schedule, exc)
                continue
            if decision.look_again_ms is not None:
                self._quiet[schedule.name] = schedule, decision.look_again_ms
            if decision.due_ms is not None:
                yield schedule, decision.due_ms

    def next_ms(self, now_ms: int) -> int | None:
        """Return the next instant of a schedule that has nothing to do now; None when there is none."""
        return min((until for _, until in self._quiet.values() if until > now_ms), default=None)

    def _times_of(self, schedule: Schedule) -> CronTimes:
        key = schedule.cron, schedule.tz
        if key not in self._times:
            self._times[key] = times_of(*key)
        return self._times[key]
