"""The end of a run whose states have all settled: it has completed, and may go on as another run."""

from __future__ import annotations

from machine.errors import Code, ErrorCategory, ErrorInfo
from machine.kernel.decisions import CompleteRun
from machine.kernel.history import History
from machine.kernel.run_status import RunStatus
from machine.plan import Graph


def completed(plan: Graph, history: History, final_snapshot_id: str) -> CompleteRun:
    """Return the end of a run, with the input of the run that continues it if a state has named one.

    The run fails where several states have, whichever was the first: concurrent states end in any order.
    """
    if not history.next_inputs:
        return CompleteRun(RunStatus.COMPLETED, final_snapshot_id)
    if len(history.next_inputs) == 1:
        (next_input,) = history.next_inputs.values()
        return CompleteRun(RunStatus.COMPLETED, final_snapshot_id, next_input_id=next_input)
    states = [state_id for state_id in plan.order if state_id in history.next_inputs]
    error = ErrorInfo(
        code=Code.SEVERAL_NEXT_RUNS,
        category=ErrorCategory.CONTEXT,
        retryable=False,
        message=f"{' and '.join(states)} each say that the run goes on as another, and only one state may "
        "(let one of them return next_run, or choose between them with goto)",
        details={"states": states},
    )
    return CompleteRun(RunStatus.FAILED, final_snapshot_id, error)


def next_input_after_cleanup(history: History) -> str | None:
    """Return the input of the run that continues one whose cleanup is over, None where its work has failed."""
    cleanup = history.cleanup
    if cleanup is None or cleanup.status != RunStatus.COMPLETED:
        return None
    return next(iter(history.next_inputs.values()), None)
