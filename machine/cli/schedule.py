"""`schedule`: plans that start at set times, and the loop that starts them."""

from __future__ import annotations

import time
from typing import Any

import machine
from machine import cron as schedules
from machine.cli.command_session import Flag, Injected, JsonText, Session
from machine.cli.error_report import Exit
from machine.cli.json_arguments import json_object
from machine.cli.output import Cell, clean
from machine.cli.work import Concurrency, Grace, Lease, Lines, report
from machine.cron import CatchUp, Overlap, Schedule, ScheduleState
from machine.engine.run_keeper import LEASE_SECONDS
from machine.engine.work import CONCURRENCY, GRACE_SECONDS
from machine.errors import Code


def add(
    name: str,
    target: str,
    /,
    *,
    cron: str,
    tz: str = "UTC",
    input: JsonText = "{}",  # noqa: A002 - the name of the option
    catch_up: CatchUp = CatchUp.SKIP,
    overlap: Overlap = Overlap.SKIP,
    session: Injected,
) -> int:
    """Start a plan at the times of a cron expression.

    The schedule is kept in the store, and starts nothing by itself: `machine schedule run` or `machine work` do,
    as many of them as you like. Each instant starts one run.

    Parameters
    ----------
    name
        The name of the schedule: 1 to 64 of a-z, 0-9, _ . and -.
    target
        The plan: package.module:plan or path/file.py:plan.
    cron
        The times: minute, hour, day of month, month and day of week, as in "30 2 * * *", or @hourly, @daily,
        @weekly, @monthly or @yearly.
    tz
        The time zone of these times, such as Europe/Berlin.
    input
        The input of each run, a JSON object: as it is, in a file (@FILE), or on stdin (-).
    catch_up
        What becomes of times that nobody was there to start within a minute: skip none of them runs, one the
        latest does, all each does, in order.
    overlap
        What becomes of a time that comes while the run of the last one is not over: skip, or queue to run it
        afterwards.
    """
    params = json_object(input, "the input", Code.INVALID_INPUT)
    with session.open_store(create=True) as store:
        with session.user_code():
            added = schedules.add_schedule(
                name, cron, target, tz=tz, input=params, catch_up=catch_up, overlap=overlap, store=store
            )
        state = schedules.schedule_state(added, store=store)
    _show(session, added, state)
    session.note("to start its runs", session.command("schedule", "run"))
    return Exit.OK


def list_schedules(*, session: Injected) -> int:
    """List the schedules of a store.

    With the last time that was started, and the next one, in UTC.
    """
    with session.open_store() as store:
        found = [
            (one, schedules.schedule_state(one, store=store)) for one in schedules.list_schedules(store=store)
        ]
    if session.as_json:
        session.out.json({"schedules": [_as_json(*each) for each in found]})
    elif not found:
        session.note("note", "there are no schedules yet")
    else:
        session.out.table(["NAME", "CRON", "TZ", "LAST", "NEXT", "TARGET"], [_row(*each) for each in found])
    return Exit.OK


def pause(name: str, /, *, session: Injected) -> int:
    """Let a schedule start no more runs.

    A run that was started goes on. `machine schedule resume` ends the pause.

    Parameters
    ----------
    name
        The name of the schedule.
    """
    with session.open_to_write() as store:
        changed = schedules.pause_schedule(name, store=store)
        _show(session, changed, schedules.schedule_state(changed, store=store))
    return Exit.OK


def resume(name: str, /, *, session: Injected) -> int:
    """Let a paused schedule start runs again.

    What fell into the pause is not caught up.

    Parameters
    ----------
    name
        The name of the schedule.
    """
    with session.open_to_write() as store:
        changed = schedules.resume_schedule(name, store=store)
        _show(session, changed, schedules.schedule_state(changed, store=store))
    return Exit.OK


def remove(name: str, /, *, session: Injected) -> int:
    """Delete a schedule; its runs stay.

    Parameters
    ----------
    name
        The name of the schedule.
    """
    with session.open_to_write() as store:
        schedules.remove_schedule(name, store=store)
    if session.as_json:
        session.out.json({"name": name, "removed": True})
    else:
        session.out.pairs([("schedule", clean(name)), ("removed", "its runs stay")])
    return Exit.OK


def run(
    *,
    once: Flag = False,
    concurrency: Concurrency = CONCURRENCY,
    grace: Grace = GRACE_SECONDS,
    lease: Lease = LEASE_SECONDS,
    session: Injected,
) -> int:
    """Start the runs of schedules when they are due.

    It drives these runs, interrupted and waiting ones too, until it is asked to stop: the first SIGTERM or Ctrl-C
    lets the runs in hand end, the second interrupts them, and both times the exit code is 0. `machine work` does
    the same for all runs of the store.

    Parameters
    ----------
    once
        Start what is due now, and end when that has ended or waits.
    """
    began = time.monotonic()
    with session.open_to_write() as store, session.user_code():
        result = machine.run_schedules(
            store=store,
            once=once,
            concurrency=concurrency,
            grace=grace,
            lease=lease,
            reporter=Lines(session),
            load=session.load,
        )
    return report(session, result, began)


def _as_json(schedule: Schedule, state: ScheduleState) -> dict[str, Any]:
    return {**schedule.to_json(), **state.to_json()}


def _show(session: Session, schedule: Schedule, state: ScheduleState) -> None:
    """Print one schedule."""
    if session.as_json:
        session.out.json(_as_json(schedule, state))
        return
    session.out.pairs(
        [
            ("schedule", schedule.name),
            ("times", f"{clean(schedule.cron)}  {clean(schedule.tz)}"),
            ("next", _next_text(schedule, state)),
            ("target", clean(schedule.target.spec)),
        ]
    )


def _row(schedule: Schedule, state: ScheduleState) -> list[Cell]:
    texts = state.to_json()
    last = texts["last"]["instant"] if texts["last"] else "-"
    following = _next_text(schedule, state)
    return [
        schedule.name,
        clean(schedule.cron),
        clean(schedule.tz),
        last,
        following,
        clean(schedule.target.spec),
    ]


def _next_text(schedule: Schedule, state: ScheduleState) -> Cell:
    return ("paused", "yellow") if schedule.paused else state.to_json()["next"] or "-"
