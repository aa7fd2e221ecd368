"""`decide`: the next step of a run, as a pure function of its plan, configuration and history.

It knows nothing of handlers, clocks or stores; the engine performs exactly what it decides.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from machine.config import RunConfig
from machine.errors import ErrorInfo, RunError
from machine.events import LimitReached
from machine.kernel.cleanup import next_of_cleanup, or_cleanup
from machine.kernel.close_open_attempts import close_open_attempts
from machine.kernel.decisions import (
    ChangePlan,
    CompleteRun,
    Decision,
    Done,
    EnterState,
    LoseSecrets,
    ReachLimit,
    ResumeRun,
    ScheduleRetry,
    StartRun,
    SuspendRun,
)
from machine.kernel.frontier import Frontier
from machine.kernel.history import History
from machine.kernel.next_run import completed
from machine.kernel.retry_and_skip import retry_decision, skip_decision, skipped_failure, spent_error
from machine.kernel.run_status import RunStatus
from machine.kernel.scheduler import Schedule
from machine.kernel.state_history import StateStatus
from machine.kernel.usage import limit_of_attempt
from machine.limits import NO_LIMITS
from machine.plan import Graph
from machine.waits import HandlerWait, PauseWait

_STOPPED: Final = frozenset({StateStatus.WAITING, StateStatus.FAILED, StateStatus.SUSPENDED})


def decide(
    plan: Graph,
    config: RunConfig,
    history: History,
    *,
    cancel: bool = False,
    pause: bool = False,
    failed: ErrorInfo | None = None,
    limited: bool = True,
    reached: LimitReached | None = None,
    wall_ms: int = 0,
    secrets_lost: bool = False,
    woken: AbstractSet[str] = frozenset(),
    schedule: Schedule | None = None,
) -> Decision:
    """Return the next decision for a run; `cancel` is true when the run has been asked to end cancelled.

    `pause` is true when it has been asked to be paused.

    `failed` says why the run cannot continue, for a reason other than a failed attempt: the run then ends once no
    attempt is open. `secrets_lost` is true when the driver cannot open the true values of some facts. `limited` is
    false when limits are ignored: a replay does what the recording did, and `reached` is the limit that it reached
    here. `wall_ms` is the time in which attempts have been open. `woken` are suspended states that go on
    without an answer, because the driver can do what they wait for. A run with concurrent states needs a
    `schedule`. During the cleanup `cancel` ends it, and `failed` is ignored. Takes constant time, whatever the
    number of states, unless the plan has changed during the run.
    """
    if history.started is None or history.checkpoint is None:
        return StartRun()
    busy: AbstractSet[str] = schedule.busy if schedule is not None else frozenset()
    cleaning = history.cleanup is not None
    if history.final or cancel or (history.open and history.open.keys() - busy):
        return _closed(plan, history, busy, schedule)
    if history.limited:
        return _closed(plan, history, busy, schedule)
    if history.cancelling and (cleaning or schedule is None or not schedule.preferred(history)):
        return _closed(plan, history, busy, schedule)
    if failed is not None and history.status is RunStatus.RUNNING and not cleaning:
        if schedule is not None and busy:
            return schedule.awaiting(config)
        ending = CompleteRun(RunStatus.FAILED, history.checkpoint, failed)
        return or_cleanup(plan, history, ending, _frontier(schedule))
    if pause and history.status is RunStatus.RUNNING:
        return schedule.awaiting(config) if schedule is not None and busy else SuspendRun((PauseWait(),))
    changed = plan.plan_id != history.plan_id
    # handlers begin their waits again under another plan, and whoever resumes later need not allow it again
    begin_again = changed and all(isinstance(wait, HandlerWait) for wait in history.waits)
    if history.status is RunStatus.SUSPENDED and history.held and not woken and not begin_again:
        return Done(history.status)
    if changed:
        return ChangePlan(plan.plan_id, history.status is RunStatus.SUSPENDED)
    if secrets_lost:
        return LoseSecrets(history.status is RunStatus.SUSPENDED)
    if history.status is RunStatus.SUSPENDED:
        return ResumeRun()
    if cleaning:
        return next_of_cleanup(plan, config, history, busy=busy, limited=limited, woken=woken)
    if reached is not None:
        return ReachLimit(reached)
    decision = _next_step(plan, config, history, limited=limited, woken=woken, schedule=schedule)
    if limited and config.limits is not NO_LIMITS and isinstance(decision, EnterState | ScheduleRetry):
        known = history.states.get(decision.state_id)
        goes_on = known is not None and decision.attempt < known.attempts
        reached = limit_of_attempt(config, history.usage, wall_ms, first=known is None, goes_on=goes_on)
    return (
        ReachLimit(reached)
        if reached is not None
        else or_cleanup(plan, history, decision, _frontier(schedule))
    )


def _next_step(
    plan: Graph,
    config: RunConfig,
    history: History,
    *,
    limited: bool,
    woken: AbstractSet[str],
    schedule: Schedule | None,
) -> Decision:
    """Return the next step of a run that goes on, whatever it has used so far."""
    if schedule is not None:
        return schedule.next(plan, config, history, limited=limited, woken=woken)
    assert history.checkpoint is not None
    if len(history.settled) >= len(plan.work):
        return completed(plan, history, history.checkpoint)
    state_id = _next(plan, history)
    state = history.states.get(state_id)
    if state is None:
        return skip_decision(plan, config, history, state_id) or EnterState(state_id, 0, history.checkpoint)
    if state.status not in _STOPPED:
        raise RunError(
            f"state {state_id} was {state.status} before its turn: the log is not one of this plan"
        )
    error = spent_error(plan, config, history, state_id) if limited else None
    again: Decision | None = None
    if error is None:
        again = retry_decision(plan, config, history, state_id, woken=state_id in woken)
    again = again or skipped_failure(plan, history, state_id, error)
    return again or CompleteRun(RunStatus.FAILED, history.checkpoint, error)


def _closed(plan: Graph, history: History, busy: AbstractSet[str], schedule: Schedule | None) -> Decision:
    """Return the next decision for a run that is ending, or that has an attempt which nobody runs."""
    decision = close_open_attempts(history, busy)
    if history.cleanup is not None:
        return decision
    return or_cleanup(plan, history, decision, _frontier(schedule))


def _frontier(schedule: Schedule | None) -> Frontier | None:
    return None if schedule is None else schedule.frontier


def _next(plan: Graph, history: History) -> str:
    if not history.replanned:
        # one state after another in a fixed order: the number of settled states is the position in the plan
        return plan.order[len(history.settled)]
    return next(
        state_id
        for state_id in plan.work
        if (state := history.states.get(state_id)) is None or not state.status.settled
    )
