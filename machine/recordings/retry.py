"""Retry: a failed run goes on as a new one, with the present code and nothing that was paid for made again.

It is a fork that shares what the run has done but for what failed, in a run with concurrent states also what
completed after the failure. The cleanup of the run is not shared; the retry has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from machine.catalogue import Catalogue
from machine.config import Target
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.did_you_mean import did_you_mean
from machine.engine import run_reader
from machine.engine.log_check import LogCheck
from machine.engine.plan_change import check_plan
from machine.engine.reporter import Reporter
from machine.engine.retry_chain import key_of_retry, latest_retry
from machine.engine.run_keeper import LEASE_SECONDS, lease_ms_of
from machine.engine.start_checks import check_store
from machine.engine.transports_and_catalogue import Provided
from machine.engine.watched import Watched
from machine.error_codes import STOPPED_CODES
from machine.errors import Code, ConcurrencyError, ErrorCategory, PlanError, RunError, UsageError
from machine.events import CleanupBegun, Entry, LimitReached, RunCompleted
from machine.io.transport import Transports
from machine.kernel.history import History, fold
from machine.kernel.linearize import one_after_another, without_suspensions
from machine.kernel.retry_and_skip import fork_point
from machine.kernel.run_status import FINAL_STATUSES, RunStatus
from machine.kernel.state_history import FailedAttempts, StateStatus
from machine.limits import Limits
from machine.plan import Plan
from machine.recordings.double_run import SecondRun
from machine.recordings.fork import ForkResult, Shared, branched
from machine.stores.base import Store


@with_default_store()
async def retry(
    run_id: str,
    *,
    plan: Plan,
    store: Store = DEFAULT_STORE,
    from_state: str | None = None,
    retry_id: str | None = None,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    target: Target | None = None,
    lease: float = LEASE_SECONDS,
    limits: Limits | None = None,
) -> ForkResult:
    """Start a new run that goes on from where a run failed, with the present code, and drive it.

    What the run has done is shared, and no read or effect of it is made again: the failed state makes its attempt
    anew on the facts that it has. Calls that failed are made again, and so are those of a failed state without
    effects of which a call is what failed. `from_state` names an earlier state, `step.state` or the full id, from
    which on the states run again, their calls answered by the recorded ones. A run that has used up a limit is
    retried with other `limits`. A run has one retry: what is retried is the last run in its chain of retries.
    `retry_id` sets the id, made by `new_run_id` beforehand; the other arguments are those of `fork`.

    Raises what `fork` raises, `RunError` (`not_failed`, `retried_already`) and `PlanError`
    (`recovery_state_not_in_plan`) before anything is written.
    """
    check_store(store)
    run_reader.require_run(store, run_id)
    last = latest_retry(store, run_id)
    entries = [entry for entry, _ in run_reader.checked(store, last, LogCheck(store.get))]
    history = fold(entries)
    _check_failed(run_id, last, history, from_state)
    check_plan(store, plan.graph, history, allow_change=True)
    again = frozenset[str]() if from_state is None else _from(plan, last, history, from_state)
    shared = _shared(entries, history)
    at = (fork_point(history) or _last_of_work(entries)) if from_state is None else _last_of_work(entries)
    watched = Watched(
        Provided.of(plan, transports, catalogue), reporter or Reporter(), SecondRun, lease_ms_of(lease)
    )
    try:
        return await branched(
            Shared(last, at, entries, shared, fold(shared, History(in_seq=False))),
            plan=plan,
            store=store,
            source=store,
            fork_id=retry_id,
            watched=watched,
            target=target,
            again=again,
            invocation_key=key_of_retry(last),
            limits=limits,
        )
    except ConcurrencyError as exc:
        if exc.code != Code.INVOCATION_TAKEN:
            raise
        raise _retried(run_id, latest_retry(store, last), "another process has just retried it") from None


def _check_failed(run_id: str, last: str, history: History, from_state: str | None) -> None:
    """Raise `RunError` unless the last run in the chain of retries has failed, of a state or with one named."""
    if history.status not in {RunStatus.FAILED, RunStatus.LIMIT_EXCEEDED}:
        if last != run_id:
            raise _retried(run_id, last, f"its retry is {history.status}")
        hint = f"machine resume {run_id} goes on with it" if history.status not in FINAL_STATUSES else None
        raise RunError(
            f"run {run_id} did not fail: it is {history.status}",
            code=Code.NOT_FAILED,
            details={"run_id": run_id, "status": history.status.value},
            hint=hint,
        )
    if from_state is None and fork_point(history) is None:
        raise RunError(
            f"run {last} failed, but none of its states did",
            code=Code.NOT_FAILED,
            details={"run_id": last, "status": history.status.value},
            hint="name the state from which on to run again: --from STATE",
        )


def _retried(run_id: str, last: str, problem: str) -> RunError:
    return RunError(
        f"run {run_id} was retried as {last}: {problem}",
        code=Code.RETRIED_ALREADY,
        details={"run_id": run_id, "retry": last},
        hint=f"machine show {last} tells of it, and machine resume {last} goes on with it if it was interrupted",
    )


def _from(plan: Plan, run_id: str, history: History, name: str) -> frozenset[str]:
    """Return the states that run again from a state on: it, and what comes after it in the plan in force."""
    graph, state_id = plan.graph, plan.state_id(name)
    if state_id not in graph.states:
        raise PlanError(
            f"the plan has no state {state_id} to go on from",
            code=Code.RECOVERY_STATE_NOT_IN_PLAN,
            hint=did_you_mean(state_id, graph.work),
        )
    begun = [other for other, state in history.states.items() if other in graph.work and state.attempts]
    if state_id not in begun:
        problem = "is a cleanup state" if state_id in graph.cleanup else "has not begun"
        raise UsageError(
            f"{state_id} {problem} in run {run_id}: there is nothing of it to run again",
            code=Code.INVALID_FORK_POINT,
            hint=f"those that have begun are {', '.join(begun)}",
        )
    if history.max_concurrency is None:
        return frozenset(graph.work[graph.work.index(state_id) :])
    found = {state_id}
    for other in graph.work:
        if not found.isdisjoint(graph.parents[other]):
            found.add(other)
    return frozenset(found)


def _shared(entries: Sequence[Entry], history: History) -> list[Entry]:
    """Return what the retry of a run shares: all of its work, but for the ends of the states that failed.

    What failed of concurrent states comes last, so that what completed after it is shared too.
    """
    ends = {
        state_id: _cut(state.failed, has_effects=any(sent[0] == state_id for sent in history.sent))
        for state_id, state in history.states.items()
        if state.status is StateStatus.FAILED
        and not state.cleans
        and state.failed.error is not None
        and state.failed.error.code not in STOPPED_CODES
    }
    work = [entry for entry in entries if entry.seq <= _last_of_work(entries)]
    if history.max_concurrency is not None:
        work = one_after_another(without_suspensions(work))
    kept = [entry for entry in work if entry.seq < ends.get(run_reader.lane_of(entry), entry.seq + 1)]
    failed = [entry for entry in kept if run_reader.lane_of(entry) in ends]
    return [*(entry for entry in kept if entry not in failed), *failed] if failed else kept


def _cut(failed: FailedAttempts, *, has_effects: bool) -> int:
    """Return the first event of a failed state that its retry does not share."""
    assert failed.error is not None
    calls_again = failed.error.category is ErrorCategory.OFF_CHAIN and not has_effects
    return (failed.began_seq if calls_again else failed.failed_seq) or 0


def _last_of_work(entries: Iterable[Entry]) -> int:
    """Return the last event of a run before it used up a limit, its cleanup and its end."""
    last = 0
    for entry in entries:
        if isinstance(entry.event, CleanupBegun | LimitReached | RunCompleted):
            break
        last = entry.seq
    return last
