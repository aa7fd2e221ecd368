"""The events that perform a decision of the kernel for which no handler runs."""

from __future__ import annotations

import attrs

from machine.engine.new_run import going_on
from machine.events import (
    CleanupBegun,
    Event,
    RunCompleted,
    RunResumed,
    RunSuspended,
    StateFailed,
    StateSkipped,
)
from machine.exception_to_error_info import orphaned
from machine.kernel.decisions import (
    BeginCleanup,
    ChangePlan,
    CompleteRun,
    Decision,
    LoseSecrets,
    ReachLimit,
    RecoverOrphan,
    ResumeRun,
    SkipState,
    SuspendRun,
)
from machine.kernel.history import History
from machine.kernel.state_history import failed_and_skipped
from machine.waits import PlanWait, SecretWait


def events_of(decision: Decision, history: History) -> list[Event]:
    """Return the events of a decision, in order; none for one that a driver performs otherwise."""
    match decision:
        case RecoverOrphan(state_id):
            return [StateFailed(state_id, orphaned(state_id, limited=history.limited))]
        case ReachLimit(reached):
            return [reached]
        case SkipState(state_id, reason):
            return [StateSkipped(state_id, reason)]
        case SuspendRun(waits):
            return [RunSuspended(waits)]
        case ResumeRun():
            return [RunResumed("operator")]
        case ChangePlan(plan_id, suspended):
            return going_on(PlanWait(plan_id), RunResumed("plan_change", plan_id), suspended=suspended)
        case LoseSecrets(suspended):
            return going_on(SecretWait(), RunResumed("secrets_lost", secrets_lost=True), suspended=suspended)
        case BeginCleanup(status, base_snapshot_id, error):
            return [CleanupBegun(status.value, base_snapshot_id, error)]
        case CompleteRun():
            return [end_of(decision, history)]
        case _:
            return []


def end_of(decision: CompleteRun, history: History) -> RunCompleted:
    """Return the event that ends a run."""
    skipped = failed_and_skipped(history.states) or None
    status, final_id, error, next_id = attrs.astuple(decision, recurse=False)
    return RunCompleted(status.value, final_id, error, next_id, skipped)
