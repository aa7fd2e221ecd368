"""The coroutine interface: the same names as the package itself, to be awaited."""

from __future__ import annotations

from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import apply as applying
from machine.engine import dry_run as dry
from machine.engine import start_and_resume
from machine.engine import work as working
from machine.engine.answers import approve, reject, signal
from machine.engine.cancel_and_resolve import cancel, resolve
from machine.engine.open_wait_info import OpenWaitInfo
from machine.engine.open_wait_info import waiting as _waiting
from machine.engine.pause_and_continue import continue_run, pause
from machine.engine.work_stop import Stop
from machine.recordings.compare_with_code import compare
from machine.recordings.double_run import seconded
from machine.recordings.facts_of_bundle import answered
from machine.recordings.fork import fork
from machine.recordings.replay import replay
from machine.recordings.retry import retry
from machine.recordings.schedules import schedules
from machine.recordings.verify import VerifyResult
from machine.recordings.verify import verify as _verify
from machine.stores.base import Store

__all__ = [
    "Stop",
    "apply",
    "approve",
    "cancel",
    "compare",
    "continue_run",
    "dry_run",
    "fork",
    "pause",
    "reject",
    "replay",
    "resolve",
    "resume",
    "retry",
    "run",
    "run_schedules",
    "schedules",
    "signal",
    "verify",
    "waiting",
    "work",
]

run = answered(seconded(start_and_resume.run))
dry_run = seconded(answered(dry.dry_run, "answers_from"))
apply = seconded(applying.apply)
resume = seconded(start_and_resume.resume)
work = seconded(working.work)
run_schedules = seconded(working.run_schedules)


@with_default_store()
async def verify(run_id: str, *, store: Store = DEFAULT_STORE) -> VerifyResult:
    """Check one run; see `machine.verify`."""
    return _verify(run_id, store=store)


@with_default_store()
async def waiting(*, store: Store = DEFAULT_STORE) -> list[OpenWaitInfo]:
    """Return what the runs of a store wait for; see `machine.waiting`."""
    return _waiting(store=store)
