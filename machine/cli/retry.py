"""`retry`: a failed run goes on as a new one, with the present code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

import machine
from machine.cli import progress
from machine.cli.command_session import Injected, LimitOption, Quiet
from machine.cli.driven_run import Report, driven
from machine.cli.fork import ForkReport
from machine.cli.where import NOBODY, Selection, check_one, for_each
from machine.engine.new_run_id import new_run_id
from machine.engine.retry_chain import latest_retry
from machine.engine.run_result import RunResult
from machine.exception_causes import error_json
from machine.kernel.run_status import RunStatus
from machine.limits import limits_of
from machine.stores.base import Store


def retry(
    run: str | None = None,
    /,
    *,
    chosen: Selection = NOBODY,
    from_state: Annotated[str | None, Parameter(name="--from")] = None,
    target: str | None = None,
    limit: LimitOption = (),
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """Go on from where a run failed, as a new run with the present code.

    What the run has done is shared, and no read or effect of it is made again: the failed state makes its attempt
    anew on the facts that it has. Calls that failed are made again. A run has one retry: retried is always the last
    run in its chain of retries, which `machine runs` shows. The cleanup of the failed run is not undone, and the
    new run has its own.

    Parameters
    ----------
    run
        The failed run: its id, the beginning of it, or @last. Left out with --where.
    from_state
        An earlier state, `step.state`, from which on the states run again; their calls are answered by the recorded
        ones.
    target
        The plan to continue with, when it is not the one the run was started from.
    """
    check_one(run, chosen)
    limits = limits_of(limit) if limit else None
    if run is None:
        statuses = [RunStatus.FAILED.value, *([RunStatus.LIMIT_EXCEEDED.value] if limit else [])]

        def again(store: Store, run_id: str) -> Mapping[str, Any]:
            loaded = session.load_recorded(store, run_id, target)
            options: dict[str, Any] = {"from_state": from_state, "limits": limits, "target": loaded.target}
            found = machine.retry(run_id, plan=loaded.plan, store=store, **options)
            result, told = found.result, {"status": found.result.status, "retry": found.result.run_id}
            return told if result.error is None else {**told, "error": error_json(result.error)}

        return for_each(session, chosen, again, statuses=statuses, takes=_not_retried)
    retry_id = str(new_run_id())
    with session.writing(run) as (store, run_id):
        loaded = session.load_recorded(store, latest_retry(store, run_id), target)

        def drive(reporter: progress.Progress) -> tuple[RunResult, Report]:
            reporter.forks = True
            found = machine.retry(
                run_id,
                plan=loaded.plan,
                store=store,
                from_state=from_state,
                retry_id=retry_id,
                reporter=reporter,
                target=loaded.target,
                limits=limits,
            )
            return found.result, ForkReport(found)

        return driven(session, store, retry_id, quiet, drive, target=target)


def _not_retried(store: Store, run_id: str) -> bool:
    return latest_retry(store, run_id) == run_id
