"""Commands given to a run by an operator or a driver, inferred from the events they led to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from machine.errors import Code, ErrorInfo
from machine.events import (
    CODE_CHANGE,
    CleanupBegun,
    Entry,
    Event,
    FactRecorded,
    RetryScheduled,
    RunCompleted,
    RunResumed,
    RunStarted,
    RunSuspended,
    StateEntered,
    StateSkipped,
)
from machine.kernel.run_status import RunStatus
from machine.kernel.state_history import FAILED_WITH
from machine.kernel.suspension import CONTINUED, pauses
from machine.plan import Graph, earlier_graph
from machine.stores.base import Store
from machine.waits import (
    PlanWait,
    SecretWait,
)

_SPENT: Final = frozenset({str(Code.RECOVERY_LIMIT), str(Code.RETRY_BUDGET_SPENT)})
"""The codes of runs that ended because a state was not begun again although its failure allowed it."""


class Asked(NamedTuple):
    """The plan that a run continues with, and whether it was to be cancelled or had lost its secrets.

    `failed` is the reason why it could not continue, and `limited` is true where its driver had died too often.
    """

    plan_id: str | None = None
    cancel: bool = False
    secrets_lost: bool = False
    failed: ErrorInfo | None = None
    """The reason why the run could not continue, because of what a handler left behind."""
    limited: bool = False
    """True where the run ended, or a state was skipped, because its attempts were used up."""


def asked(event: Event | None, *, cleaning: bool = False) -> Asked:
    """Return the commands that preceded `event`; `cleaning` if the cleanup of the run had begun."""
    match event:
        case RunSuspended(waits):
            plan_id = next((wait.plan_id for wait in waits if isinstance(wait, PlanWait)), None)
            return Asked(plan_id, secrets_lost=SecretWait() in waits)
        case RunResumed(plan_id=plan_id):
            return Asked(plan_id, secrets_lost=bool(event.secrets_lost))
        case StateSkipped(reason=reason):
            return Asked(limited=reason.removeprefix(FAILED_WITH) in _SPENT)
        case RunCompleted() if cleaning:  # which says nothing of the cleanup, and may come before its end
            return Asked(cancel=True)
        case CleanupBegun(status, error=error) | RunCompleted(status, error=error):
            code = None if error is None else error.code
            failed = error if code == Code.TASK_LEFT_BEHIND else None
            return Asked(cancel=status == RunStatus.CANCELLED, failed=failed, limited=code in _SPENT)
        case _:
            return Asked()


def delay_of(event: Event | None, least: int, most: int) -> int:
    """Return the delay of a recorded retry; another one, so that they differ, when it is not between the two."""
    recorded = event.delay_ms if isinstance(event, RetryScheduled) else most
    return recorded if least <= recorded <= most else most


def of_operators(event: Event | None, following: Event | None) -> int:
    """Return how many of two events between attempts are an operator's: an answer, a pause, leave to go on."""
    if isinstance(event, FactRecorded):
        return 1
    if isinstance(event, RunResumed) and event.by == CONTINUED:
        return 1
    if isinstance(event, RunSuspended) and pauses(event.waits):  # other states may end later in a replay
        return 1
    suspends = isinstance(event, RunSuspended)
    resumed = following if suspends else event
    return 1 + suspends if isinstance(resumed, RunResumed) and resumed.by == CODE_CHANGE else 0


def begins_anew(entries: Iterable[Entry], state_id: str) -> bool:
    """Say whether a suspended attempt of a state was given up after all, perhaps because its code had changed."""
    return any(
        (isinstance(event, StateEntered) and event.state_id == state_id)
        or (isinstance(event, RunResumed) and event.anew)
        for event in (entry.event for entry in entries)
    )


def plan_ids(recorded: Iterable[Entry]) -> list[str]:
    """Return the ids of the plans that a recording went by, in order."""
    return [
        event.plan_id
        for entry in recorded
        if isinstance(event := entry.event, RunStarted | RunResumed) and event.plan_id is not None
    ]


def graphs_of(graph: Graph, recorded: Sequence[Entry], store: Store) -> tuple[Graph, Mapping[str, Graph]]:
    """Return the plan that a recording begins with, and all plans that it used if it changed.

    A recording whose last plan is not `graph` is not rebuilt: a replay reports the changed plan.
    """
    ids = plan_ids(recorded)
    if len(ids) < 2 or ids[-1] != graph.plan_id:  # noqa: PLR2004 - the first one and a change
        return graph, {}
    graphs = {plan_id: earlier_graph(graph, store.get(plan_id)) for plan_id in ids[:-1]}
    graphs[graph.plan_id] = graph
    return graphs[ids[0]], graphs
