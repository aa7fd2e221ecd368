"""The rules for one state, independent of the rest of the run: skip it, retry it, or give it up."""

from __future__ import annotations

from typing import Final

from machine.config import IoMode, RunConfig
from machine.error_codes import STOPPED_CODES
from machine.errors import Code, ErrorCategory, ErrorInfo
from machine.kernel.decisions import EnterState, ScheduleRetry, SkipState, SuspendRun
from machine.kernel.history import History
from machine.kernel.run_status import RunStatus
from machine.kernel.state_history import FAILED_WITH, KNOWN_LATER, NOT_TAKEN, UNREACHABLE, StateStatus
from machine.kernel.transactions import SQL
from machine.plan import Graph
from machine.state import OnError, OnUncertain
from machine.waits import EffectWait, PauseWait

SKIP_REASON: Final = "skip_tag:"
"""Reason of a skip by configuration, followed by the tag."""


def skip_decision(plan: Graph, config: RunConfig, history: History, state_id: str) -> SkipState | None:
    """Return why a state that has never begun is skipped, or None when it will run."""
    if history.branched and (parents := plan.parents[state_id]):
        before = [(parent, history.states[parent]) for parent in parents]
        if not any(state.leads_to(state_id) for _, state in before):
            chose = next((parent for parent, state in before if state_id in state.not_taken), None)
            return SkipState(state_id, f"{NOT_TAKEN}{chose}" if chose else f"{UNREACHABLE}{before[0][0]}")
    for tag in plan.states[state_id].meta.tags:
        if tag in config.skip_tags:
            return SkipState(state_id, f"{SKIP_REASON}{tag}")
    return None


def recovery_error(config: RunConfig, history: History, state_id: str) -> ErrorInfo | None:
    """Return why a state is not begun again after its driver died, or None when it may be."""
    failed = history.states[state_id].failed
    died = failed.error is not None and failed.error.code == Code.ORPHAN_ATTEMPT_RECOVERED
    if not died or failed.recoveries < config.recoveries:
        return None
    times = f"{failed.recoveries} times in a row" if failed.recoveries > 1 else "once"
    return ErrorInfo(
        code=Code.RECOVERY_LIMIT,
        category=ErrorCategory.UNKNOWN,
        retryable=False,
        message=f"the process that drove {state_id} died {times} with its attempt open, and the attempt had "
        "recorded nothing new (find what kills the process: memory, a signal, C code, os._exit; then go on with "
        "`machine fork`, which keeps what is recorded, or start a run with a larger `recoveries`)",
        details={"state_id": state_id, "recoveries": failed.recoveries},
    )


def budget_error(plan: Graph, config: RunConfig, history: History, state_id: str) -> ErrorInfo | None:
    """Return why a failed state is not retried: the retries of the whole run are used up. None when it may be."""
    budget = config.retry_budget
    state = history.states[state_id]
    error, policy = state.failed.error, plan.states[state_id].meta.retry or config.retry_policy
    would = error is not None and error.retryable and error.code not in STOPPED_CODES
    if (
        budget is None
        or history.usage.retries < budget
        or state.status is not StateStatus.FAILED
        or not (would and state.failed.failures < policy.max_attempts)
    ):
        return None
    assert error is not None
    return ErrorInfo(
        code=Code.RETRY_BUDGET_SPENT,
        category=error.category,
        retryable=False,
        message=f"the run has used up its retry budget of {budget}, and {state_id} has failed again: "
        f"{error.code}: {error.message}",
        details={"state_id": state_id, "retry_budget": budget, "code": error.code},
    )


def spent_error(plan: Graph, config: RunConfig, history: History, state_id: str) -> ErrorInfo | None:
    """Return why a state is not begun again although its own failure allows it, or None when it may be."""
    return recovery_error(config, history, state_id) or budget_error(plan, config, history, state_id)


def retry_decision(
    plan: Graph, config: RunConfig, history: History, state_id: str, *, woken: bool = False
) -> EnterState | ScheduleRetry | SuspendRun | SkipState | None:
    """Return the decision that follows a failed attempt of a state, or None when the state has failed for good.

    One that needed what is known after apply is skipped: a dry run goes on without it.

    A failure is retried if its error is `retryable` and the policy has attempts left. An attempt that was
    interrupted or left open by a crash is no failure: another follows at once. A state that asks for a person's
    answer about an effect suspends the run instead, and so does one that has failed for good and pauses the run. A
    suspended attempt goes on as soon as one of its waits is answered, or when it is `woken`, because its driver can
    itself do what it waits for.
    """
    state, failed = history.states[state_id], history.states[state_id].failed
    if state.status is StateStatus.SUSPENDED:
        if state.answered or state.anew or woken:
            return EnterState(state_id, state.attempts - (not state.anew), history.checkpoint or "")
        return SuspendRun(history.open_waits.of_state(state_id))
    meta, error, checkpoint = plan.states[state_id].meta, failed.error, history.checkpoint or ""
    if error is not None and error.code == Code.KNOWN_AFTER_APPLY and config.io_mode is IoMode.DRY_RUN:
        return SkipState(state_id, KNOWN_LATER)
    policy = meta.retry or config.retry_policy
    waiting = state.status is StateStatus.WAITING
    asks = error is not None and error.code == Code.EFFECT_UNCERTAIN
    stopped = error is not None and error.code in STOPPED_CODES
    retried = error is not None and error.retryable and failed.failures < policy.max_attempts
    if not (waiting or stopped or retried or asks):
        return SuspendRun((PauseWait(state_id),)) if meta.on_error is OnError.PAUSE else None
    unknown = history.uncertain_of(state_id)
    if not asks and meta.on_uncertain is not OnUncertain.ASK:
        # a database takes no idempotency key: it may have been left one, which the next attempt looks up
        keys = (
            history.transactions.effect_keys if meta.on_uncertain is OnUncertain.RETRY else history.uncertain
        )
        unknown = [intent for intent in unknown if intent.namespace == SQL and intent.key not in keys]
    if unknown:
        return SuspendRun(tuple(EffectWait(intent.key, state_id) for intent in unknown))
    if waiting or stopped:
        delay_ms, since_ms = failed.retry_delay_ms or 0, failed.retry_ts_millis or 0
        return EnterState(state_id, state.attempts, checkpoint, delay_ms, since_ms)
    delay_ms = max(policy.delay_ms(failed.failures - 1), failed.retry_after_ms)
    least_ms = max(policy.least_delay_ms(failed.failures - 1), failed.retry_after_ms)
    return ScheduleRetry(state_id, state.attempts, delay_ms, delay_ms - least_ms)


def skipped_failure(
    plan: Graph, history: History, state_id: str, error: ErrorInfo | None
) -> SkipState | None:
    """Return the skip of a state that has failed for good, or None when the run fails with it.

    `error` is the reason when it is not that of its last attempt.
    """
    if plan.states[state_id].meta.on_error is not OnError.SKIP:
        return None
    reason = error or history.states[state_id].failed.error
    return SkipState(state_id, f"{FAILED_WITH}{reason.code if reason is not None else ''}")


def fork_point(history: History) -> int | None:
    """Return the last event that a fork shares to retry the failed state or to go on past a limit, else None.

    An attempt is open at that event, and all effects of its state lie before it: the fork makes the attempt again
    on the recorded facts. When a call is what failed and the state has no effects, nothing of the state is shared,
    so its calls are made again too.
    """
    if history.status is RunStatus.LIMIT_EXCEEDED:
        return history.usage.reached_seq - 1  # with a larger limit
    if history.status is not RunStatus.FAILED:
        return None
    if history.error is not None and history.error.code == Code.RECOVERY_LIMIT:
        # its end is not shared, and nothing has failed: the next attempt is made
        return history.cleanup_seq - 1 if history.cleanup else history.head_seq
    with_effects = {state_id for state_id, _, _ in history.sent}
    failed = [
        state.failed.began_seq if calls_again else state.failed.failed_seq
        for state_id, state in history.states.items()
        if state.status is StateStatus.FAILED
        and not state.cleans
        and (error := state.failed.error)
        and error.code not in STOPPED_CODES
        for calls_again in [error.category is ErrorCategory.OFF_CHAIN and state_id not in with_effects]
    ]
    return min((seq - 1 for seq in failed if seq is not None), default=None)
