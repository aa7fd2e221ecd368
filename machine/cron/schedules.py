"""The commands of a user to schedules: add, list, pause, resume and remove.

None of them starts a run: `machine.run_schedules` and `machine.work` do.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import attrs

from machine import canonical
from machine.config import RunConfig
from machine.cron.expressions import times_of
from machine.cron.ticks import Tick, instant_text, last_tick
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.errors import Code, UsageError
from machine.ids import ContextKey, ScheduleName
from machine.plan_input import checked_input
from machine.secrets.refused_input import refuse_in_input
from machine.stores.base import Store
from machine.stores.schedule import CatchUp, Overlap, Schedule
from machine.target import load


@with_default_store(create=True)
def add_schedule(
    name: str,
    cron: str,
    target: str,
    *,
    tz: str = "UTC",
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the same name as in `run`
    catch_up: str = "skip",
    overlap: str = "skip",
    directory: str | os.PathLike[str] | None = None,
    store: Store = DEFAULT_STORE,
) -> Schedule:
    """Start a plan at the times of a cron expression, from now on.

    `cron` has five fields, as `30 2 * * *`, or is one of @hourly, @daily, @weekly, @monthly, @yearly; `tz` is the
    zone of its times. `target` names the plan as on the command line, from `directory` (the current one by
    default), and `input` (a JSON object) is that of each run. `catch_up` says what becomes of instants that nobody
    was there to start within a minute: `skip`, `one` (the latest) or `all` (each, in order). `overlap` says what
    becomes of an instant that comes while the run of the last one is not over: `skip`, or `queue` to run it
    afterwards.

    The schedule starts nothing by itself: `machine.run_schedules`, `machine.work` or `machine schedule run` do.

    Raises `IdError`, `UsageError` (`invalid_cron`, `unknown_time_zone`, `cron_not_installed`, `invalid_input`,
    `schedule_exists`, `secret_in_manifest`), `CanonicalError` and what a target raises; nothing is written then.
    """
    ScheduleName(name)
    times_of(cron, tz)
    policies = _policy(CatchUp, "catch_up", catch_up), _policy(Overlap, "overlap", overlap)
    loaded = load(target, directory)
    params = _checked_input(checked_input(loaded.plan.input, input))
    found = loaded.target
    now = store.clock()
    schedule = Schedule(name, cron, tz, found, params, *policies, created_ms=now, since_ms=now)
    store.add_schedule(schedule)
    return schedule


@with_default_store()
def list_schedules(*, store: Store = DEFAULT_STORE) -> list[Schedule]:
    """Return the schedules of a store, in the order of their names."""
    return store.schedules()


@attrs.frozen
class ScheduleState:
    """The last instant of a schedule that was started, and the next that will be; None where there is none.

    `next_ms` is None while it is paused too, and where cronsim is not installed.
    """

    last: Tick | None
    next_ms: int | None

    def to_json(self) -> dict[str, Any]:
        """Return both as JSON, with their instants as text."""
        last, next_ms = self.last, self.next_ms
        return {
            "last": None
            if last is None
            else {"instant": instant_text(last.instant_ms), "run_id": last.run_id},
            "next": None if next_ms is None else instant_text(next_ms),
        }


@with_default_store()
def schedule_state(schedule: Schedule, *, store: Store = DEFAULT_STORE) -> ScheduleState:
    """Return the last and the next instant of a schedule, by the store's clock."""
    now = store.clock()
    last, following = last_tick(store, schedule.name, now), None
    if not schedule.paused:
        with contextlib.suppress(UsageError):
            times = times_of(schedule.cron, schedule.tz)
            following = times.after(max(now, schedule.since_ms))
    return ScheduleState(last, following)


@with_default_store()
def pause_schedule(name: str, *, store: Store = DEFAULT_STORE) -> Schedule:
    """Start no more runs of a schedule until it is resumed; a run that was started goes on.

    Raises `NotFoundError` (`schedule_not_found`).
    """
    return store.pause_schedule(name, paused=True)


@with_default_store()
def resume_schedule(name: str, *, store: Store = DEFAULT_STORE) -> Schedule:
    """Let a paused schedule start runs again, from now on: what fell into the pause is not caught up.

    Raises `NotFoundError` (`schedule_not_found`).
    """
    return store.pause_schedule(name, paused=False)


@with_default_store()
def remove_schedule(name: str, *, store: Store = DEFAULT_STORE) -> None:
    """Delete a schedule; its runs stay. Raises `NotFoundError` (`schedule_not_found`)."""
    store.remove_schedule(name)


def _checked_input(params: Any) -> dict[str, Any]:
    """Return the input of a schedule; every run would be refused with one that this refuses."""
    if not isinstance(params, Mapping):
        raise UsageError(
            f"the input must be a JSON object, not {type(params).__name__}", code=Code.INVALID_INPUT
        )
    canonical.encode(dict(params))
    for key in params:
        ContextKey(key)
    refuse_in_input(RunConfig().secrets, params)
    return dict(params)


def _policy(kind: type[CatchUp | Overlap], what: str, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{what} is {value!r}: it must be one of {', '.join(kind)}") from None
