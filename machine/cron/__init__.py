"""Plans that start at set times: schedules, the instants of cron expressions, and the decision which is due.

`machine schedule` is the same on the command line; `machine.run_schedules` and `machine.work` start the runs.
"""

from __future__ import annotations

from machine.cron.schedules import (
    ScheduleState,
    add_schedule,
    list_schedules,
    pause_schedule,
    remove_schedule,
    resume_schedule,
    schedule_state,
)
from machine.stores.schedule import CatchUp, Overlap, Schedule

__all__ = [
    "CatchUp",
    "Overlap",
    "Schedule",
    "ScheduleState",
    "add_schedule",
    "list_schedules",
    "pause_schedule",
    "remove_schedule",
    "resume_schedule",
    "schedule_state",
]
