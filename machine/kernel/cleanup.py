"""The rules of cleanup states: when they begin, which of them run, and what they are given.

A run whose work is over begins with its cleanup when no attempt is open (`BeginCleanup`). From then on the run is
sequential in every mode: each cleanup state begins on what the last one has left. None of them changes how the run
ends. `kernel/decide.py` calls what is here.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from machine.config import RunConfig
from machine.error_codes import STOPPED_CODES
from machine.errors import Code, ErrorCategory, ErrorInfo
from machine.events import EffectIntended
from machine.kernel.decisions import (
    AwaitAttempts,
    BeginCleanup,
    CompleteRun,
    Decision,
    EnterState,
    SkipState,
    SuspendRun,
)
from machine.kernel.frontier import Frontier
from machine.kernel.history import History
from machine.kernel.next_run import next_input_after_cleanup
from machine.kernel.retry_and_skip import recovery_error, retry_decision, skip_decision
from machine.kernel.run_status import RunStatus
from machine.kernel.state_history import FAILED_WITH, StateHistory, StateStatus
from machine.plan import Graph
from machine.state import RunsOn
from machine.waits import EffectWait

NO_FAILURE: Final = "no_failure"
"""Reason of the skip of a state that is for failures, in a run whose work has succeeded."""

NOT_BEGUN: Final = "not_begun:"
"""Prefix of the skip reason of a cleanup state that follows states of which none has begun; one is named."""


def or_cleanup(
    plan: Graph, history: History, decision: Decision, frontier: Frontier | None = None
) -> Decision:
    """Return the decision to begin with the cleanup in place of one that ends a run with cleanup states.

    Concurrent states need the `frontier`.
    """
    if not plan.cleanup or not isinstance(decision, CompleteRun):
        return decision
    base = history.checkpoint or ""
    if frontier is not None:
        frontier.follow(history)
        base = frontier.left().id
    return BeginCleanup(decision.status, base, decision.error)


def next_of_cleanup(
    plan: Graph,
    config: RunConfig,
    history: History,
    *,
    busy: AbstractSet[str],
    limited: bool,
    woken: AbstractSet[str],
) -> Decision:
    """Return the next decision for a run whose cleanup has begun, is not cancelled and is not suspended.

    `busy`, `limited` and `woken` have the meaning they have in `decide`.
    """
    if busy:
        return AwaitAttempts()
    # whatever a cleanup state would undo must be known to have happened or not
    unknown = [intent for intent in history.uncertain.values() if _is_open(history, intent)]
    if unknown:
        return SuspendRun(tuple(EffectWait(intent.key, intent.state_id) for intent in unknown))
    for state_id in plan.cleanup:
        state = history.states.get(state_id)
        if state is None:
            return _skip(plan, config, history, state_id) or EnterState(state_id, 0, history.checkpoint or "")
        if state.status.settled:
            continue
        if limited and recovery_error(config, history, state_id) is not None:
            return SkipState(state_id, f"{FAILED_WITH}{Code.RECOVERY_LIMIT}")
        again = retry_decision(plan, config, history, state_id, woken=state_id in woken)
        if again is not None:
            return again
    assert history.cleanup is not None
    status, error = RunStatus(history.cleanup.status), history.cleanup.error
    return CompleteRun(status, history.checkpoint, error, next_input_after_cleanup(history))


def _skip(plan: Graph, config: RunConfig, history: History, state_id: str) -> SkipState | None:
    assert history.cleanup is not None
    if plan.cleanup[state_id] is RunsOn.FAILURE and history.cleanup.status == RunStatus.COMPLETED:
        return SkipState(state_id, NO_FAILURE)
    before = plan.cleans_after[state_id]
    if before and not any(_has_begun(history.states.get(other)) for other in before):
        return SkipState(state_id, f"{NOT_BEGUN}{before[0]}")
    return skip_decision(plan, config, history, state_id)


def _is_open(history: History, intent: EffectIntended) -> bool:
    """Say whether nobody knows whether an effect of work that did not complete has happened."""
    state = history.states[intent.state_id]
    if state.cleans or state.status is StateStatus.COMPLETED:
        return False
    # a later attempt that sent the same again, with the same idempotency key, may have been answered
    return not any(
        fact.attempt > intent.attempt
        and not fact.unknown
        and (fact.state_id, fact.request_digest) == (intent.state_id, intent.request_digest)
        for fact in history.facts.values()
    )


def _has_begun(state: StateHistory | None) -> bool:
    return state is not None and state.attempts > 0


def failure_of(history: History) -> ErrorInfo | None:
    """Return why a run's work did not succeed, None when it did: what cleanup states are given."""
    cleanup = history.cleanup
    if cleanup is None or cleanup.status == RunStatus.COMPLETED:
        return None
    found = cleanup.error if cleanup.status == RunStatus.CANCELLED else cleanup.error or _of_states(history)
    if found is not None:
        return found
    cancelled = cleanup.status == RunStatus.CANCELLED
    return ErrorInfo(
        code=Code.RUN_CANCELLED if cancelled else cleanup.status,
        category=ErrorCategory.UNKNOWN,
        retryable=False,
        message="the run was cancelled" if cancelled else f"the run ended as {cleanup.status}",
    )


def error_of(history: History) -> ErrorInfo | None:
    """Return the error of a run: why it failed, with the failures of its cleanup states under `details`."""
    error = history.error or _of_states(history)
    failed = {
        state_id: {"code": state.failed.error.code, "message": state.failed.error.message}
        for state_id, state in history.states.items()
        if state.cleans and state.failed.error is not None and not _came_through(state)
    }
    if not failed:
        return error
    if error is not None:
        return attrs.evolve(error, details={**(error.details or {}), "cleanup": failed})
    names = ", ".join(failed)
    return ErrorInfo(
        code=Code.CLEANUP_FAILED,
        category=ErrorCategory.UNKNOWN,
        retryable=False,
        message=f"the cleanup failed in {names}; the run is {history.status} all the same",
        details={"cleanup": failed},
    )


def _of_states(history: History) -> ErrorInfo | None:
    """Return the error of the state that failed for good, None when none did."""
    states = history.states.values()
    failed = [
        state.failed.error for state in states if state.status is StateStatus.FAILED and not state.cleans
    ]
    # an attempt interrupted because another failed is not why the run failed
    failed.sort(key=lambda error: error is not None and error.code not in STOPPED_CODES)
    return failed[-1] if failed else None


def _came_through(state: StateHistory) -> bool:
    return state.status is StateStatus.COMPLETED
