"""The check of suspended attempts when a run is resumed: that they still do what they did before.

They are replayed up to there before anything is written. Where one differs, its code has changed: the run stays
suspended, unless the caller allows the change, and then each of them is begun anew.
"""

from __future__ import annotations

from machine.engine import run_reader
from machine.engine.driver import Run
from machine.engine.driver_protocols import SecondOf
from machine.engine.log import LiveLog
from machine.errors import Code, RunError
from machine.events import CODE_CHANGE, Event, RunResumed, RunSuspended
from machine.kernel.decisions import EnterState
from machine.kernel.history import History
from machine.kernel.run_status import RunStatus
from machine.kernel.state_history import StateStatus
from machine.stores.base import Store
from machine.waits import PlanWait


async def check_suspended(
    run: Run, log: LiveLog, store: Store, maker: SecondOf, *, allow_code_change: bool
) -> None:
    """Replay the suspended attempts of a run that is about to continue.

    Raises `RunError` (`suspended_code_changed`) where one differs, and nothing is written. With `allow_code_change`
    the run continues, and the states of such attempts are attempted anew.
    """
    history = log.history
    suspended = _suspended(history)
    if not suspended or history.cancelling or run.graph.plan_id != history.plan_id:
        return  # with another plan they begin anew
    entries = (entry for entry, _ in run_reader.entries(store, history.run_id or ""))
    error = await maker(entries).unchanged(run, suspended)
    if error is None:
        return
    if allow_code_change:
        await log.emit(_changes(history))
        return
    raise RunError(
        error.message,
        code=Code.SUSPENDED_CODE_CHANGED,
        details=error.details,
        hint="nothing was written or sent: go on with the former code, or `machine resume --allow-code-change`, "
        "which begins the attempt anew and keeps its answers and effects, or `machine fork`",
    )


def _suspended(history: History) -> list[EnterState]:
    return [
        EnterState(state_id, state.attempts - 1, state.base_snapshot_id or history.checkpoint or "")
        for state_id, state in history.states.items()
        if state.status is StateStatus.SUSPENDED and not state.anew
    ]


def _changes(history: History) -> list[Event]:
    """Return the events by which a run continues although the code of suspended attempts has changed."""
    if history.status is RunStatus.SUSPENDED:
        return [RunResumed(CODE_CHANGE)]
    waits = tuple(wait.as_wait for wait in history.open_waits.by_key.values())
    if waits:
        return [RunSuspended(waits), RunResumed(CODE_CHANGE)]
    # every wait is answered, so it waits for the permission alone
    plan_id = history.plan_id or ""
    return [RunSuspended((PlanWait(plan_id),)), RunResumed(CODE_CHANGE, plan_id)]
