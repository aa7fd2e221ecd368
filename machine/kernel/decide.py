"""`decide`: what comes next, as a pure function of the plan, the configuration and the history.

It knows nothing of handlers, clocks or stores; the engine performs what it decides and nothing else.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from machine.config import RunConfig
from machine.errors import ErrorInfo, RunError
from machine.kernel.close_open_attempts import close_open_attempts
from machine.kernel.decisions import (
    ChangePlan,
    CompleteRun,
    Decision,
    Done,
    EnterState,
    LoseSecrets,
    ResumeRun,
    StartRun,
)
from machine.kernel.history import History
from machine.kernel.retry_and_skip import given_up, passed_over, tried_again
from machine.kernel.scheduler import Schedule
from machine.kernel.state_history import StateStatus
from machine.kernel.status import RunStatus
from machine.plan import Graph

__all__ = ["decide"]


def decide(
    plan: Graph,
    config: RunConfig,
    history: History,
    *,
    cancel: bool = False,
    failed: ErrorInfo | None = None,
    limited: bool = True,
    secrets_lost: bool = False,
    schedule: Schedule | None = None,
) -> Decision:
    """Return the next decision for a run; `cancel` when it has been asked to end cancelled.

    `failed` says why it cannot go on, where that is no attempt's failure: it ends when no attempt is being made.
    `secrets_lost` says that the driver cannot open the true values of some of its facts.
    `limited` is false where limits are not looked at: a replay does what the recording did.
    A run whose states run side by side needs a `schedule`. Constant time, whatever the number of states, unless the
    plan has changed under the run.
    """
    if history.started is None or history.checkpoint is None:
        return StartRun()
    busy: AbstractSet[str] = schedule.busy if schedule is not None else frozenset()
    if history.final or cancel or history.open.keys() - busy:
        return close_open_attempts(history, busy)
    if history.cancelling and (schedule is None or not schedule.preferred(history)):
        return close_open_attempts(history, busy)
    if failed is not None and history.status is RunStatus.RUNNING:
        if schedule is not None and busy:
            return schedule.awaiting(config)
        return CompleteRun(RunStatus.FAILED, history.checkpoint, failed)
    if history.status is RunStatus.SUSPENDED and history.unanswered:
        return Done(history.status)
    if plan.plan_id != history.plan_id:
        return ChangePlan(plan.plan_id, history.status is RunStatus.SUSPENDED)
    if secrets_lost:
        return LoseSecrets(history.status is RunStatus.SUSPENDED)
    if history.status is RunStatus.SUSPENDED:
        return ResumeRun()
    if schedule is not None:
        return schedule.next(plan, config, history, limited=limited)
    if len(history.settled) >= len(plan.order):
        return CompleteRun(RunStatus.COMPLETED, history.checkpoint)
    state_id = _next(plan, history)
    state = history.states.get(state_id)
    if state is None:
        return passed_over(plan, config, history, state_id) or EnterState(state_id, 0, history.checkpoint)
    if state.status not in {StateStatus.WAITING, StateStatus.FAILED}:
        raise RunError(
            f"state {state_id} was {state.status} before its turn: the log is not one of this plan"
        )
    error = given_up(config, history, state_id) if limited else None
    again = tried_again(plan, config, history, state_id) if error is None else None
    return again or CompleteRun(RunStatus.FAILED, history.checkpoint, error)


def _next(plan: Graph, history: History) -> str:
    if not history.replanned:
        # one state at a time in a fixed order: as many as have settled have been passed
        return plan.order[len(history.settled)]
    return next(
        state_id
        for state_id in plan.order
        if (state := history.states.get(state_id)) is None or not state.status.settled
    )
