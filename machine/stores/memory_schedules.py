"""The schedules of a store in memory, and the runs that they started."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from machine import canonical
from machine.kernel.run_index import RunRow
from machine.stores.memory_contents import Contents
from machine.stores.schedule import Schedule, no_schedule, schedule_exists


class MemorySchedules:
    """The methods of `MemoryStore` about schedules."""

    url: str
    clock: Callable[[], int]
    _open: Callable[[], Contents]
    _told: Callable[[RunRow], RunRow]

    def add_schedule(self, schedule: Schedule) -> None:
        """Store a new schedule (see `Store.add_schedule`)."""
        contents = self._open()
        stored = _copy(schedule)
        with contents.lock:
            if schedule.name in contents.schedules:
                raise schedule_exists(schedule.name, self.url)
            contents.schedules[schedule.name] = stored

    def schedules(self) -> list[Schedule]:
        """Return all schedules, in the order of their names."""
        contents = self._open()
        with contents.lock:
            found = [contents.schedules[name] for name in sorted(contents.schedules)]
        return [_copy(one) for one in found]

    def pause_schedule(self, name: str, *, paused: bool) -> Schedule:
        """Pause a schedule or resume it, and return it (see `Store.pause_schedule`)."""
        contents = self._open()
        with contents.lock:
            found = contents.schedules.get(name)
            if found is None:
                raise no_schedule(name, self.url)
            changed = found.paused_or_resumed(paused=paused, now_ms=self.clock())
            contents.schedules[name] = changed
        return _copy(changed)

    def remove_schedule(self, name: str) -> None:
        """Delete a schedule. Raises `NotFoundError`."""
        contents = self._open()
        with contents.lock:
            if contents.schedules.pop(name, None) is None:
                raise no_schedule(name, self.url)

    def last_invocation(self, first: str, before: str, *, created_by_ms: int | None = None) -> RunRow | None:
        """Return the run with the greatest invocation key of a range (see `Store.last_invocation`)."""
        contents = self._open()
        with contents.lock:
            in_range = (key for key in contents.invocations if first <= key < before)
            for key in sorted(in_range, reverse=True):
                row = contents.rows[contents.invocations[key]]
                if created_by_ms is None or row.created_ms <= created_by_ms:
                    break
            else:
                return None
        return self._told(row)


def _copy(schedule: Schedule) -> Schedule:
    """Return a schedule of its own, as one that is read from a disk."""
    return attrs.evolve(schedule, input=canonical.decode(canonical.encode(dict(schedule.input))))
