"""Applying a dry run: the real run of what was shown and reviewed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import attrs

from machine.catalogue import Catalogue
from machine.config import IoMode, Target
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine.begin_run import Start
from machine.engine.drive_run import ways_of
from machine.engine.driver_protocols import SecondOf
from machine.engine.dry_report import is_dry_run
from machine.engine.in_process_waits import Clock, Waiting
from machine.engine.new_run import opening_for
from machine.engine.plan_change import plan_changes, recorded_shape
from machine.engine.provenance import code_of_states
from machine.engine.recorded_answers import FactsFrom, prepared
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import LEASE_SECONDS, lease_ms_of
from machine.engine.run_reader import PastRun
from machine.engine.run_result import RunResult
from machine.engine.start_checks import check_store
from machine.engine.transports_and_catalogue import Provided
from machine.engine.watched import Watched
from machine.errors import Code, ConcurrencyError, PlanError, RunError, UsageError
from machine.ids import RunId
from machine.io.transport import Transports
from machine.kernel.run_status import RunStatus
from machine.labels import LABELS, labels_in
from machine.plan import Graph, Plan
from machine.policy import NO_POLICY, Policy
from machine.stores.base import Store

MAX_AGE: Final = 24 * 3600.0
"""Seconds after its end for which a dry run may be applied, unless the caller says otherwise."""


@with_default_store()
async def apply(
    dry_run_id: str,
    *,
    plan: Plan,
    store: Store = DEFAULT_STORE,
    max_age: float = MAX_AGE,
    run_id: str | None = None,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    target: Target | None = None,
    lease: float = LEASE_SECONDS,
    wait: float | None = 0,
    clock: Clock = "wall",
    answers: Mapping[str, Any] | None = None,
    policy: Policy = NO_POLICY,
    second: SecondOf | None = None,
) -> RunResult:
    """Start the run that a dry run has shown, with its input, configuration and labels, and drive it.

    Reads, times and random values are those of the dry run, so its requests are the same to the byte. An effect
    that the dry run has not shown, or not as the next one of its state, is not made: the run asks for an approval
    that shows both, and is suspended until there is one. A dry run is applied once, at most `max_age` seconds
    after its end. The other arguments are those of `run`.

    Raises `NotFoundError`; `UsageError` (`not_a_dry_run`, `dry_run_unfinished`, `dry_run_too_old`), `PlanError`
    (`op_id_mismatch`, `dry_run_changed`) and `RunError` (`dry_run_applied`), before anything is written.
    """
    check_store(store)
    log = PastRun.read(str(RunId(dry_run_id)), store)
    key = f"apply:{log.run_id}"
    _refuse_other(log, max_age)
    _refuse_changed(log, plan.graph, store)
    _refuse_applied(store, key, log.run_id)
    config = attrs.evolve(log.manifest.run_config, io_mode=IoMode.LIVE)
    watched = Watched(
        Provided.of(plan, transports, catalogue),
        reporter or Reporter(),
        second,
        lease_ms_of(lease),
        Waiting.of(wait, clock, answers, config.secrets),
        policy,
    )
    labels = labels_in(log.entries[0].info.get(LABELS))
    params, ignore = log.manifest.input_params, log.manifest.ignore
    provided = watched.provided.info()
    opening = opening_for(
        plan.graph, config, params, target, key, ignore=ignore, provided=provided, labels=labels
    )
    given = FactsFrom(log.run_id, shows=True, nested=True)
    past, share, opening = prepared(given, store, opening, effects="live")
    start = Start(plan.graph, opening, past, share, run_id=run_id, invocation_key=key, attach=False)
    try:
        return await start.begin(store, watched, ways_of())
    except ConcurrencyError:
        _refuse_applied(store, key, log.run_id)  # another process was first
        raise


def _refuse_other(log: PastRun, max_age: float) -> None:
    """Raise `UsageError` for a run that is no dry run, is not over, or ended too long ago."""
    if not is_dry_run(log):
        raise UsageError(
            f"run {log.run_id} is no dry run, so it has shown nothing to apply",
            code=Code.NOT_A_DRY_RUN,
            hint="machine run TARGET --dry-run makes one",
        )
    if log.history.status is not RunStatus.COMPLETED:
        raise UsageError(
            f"the dry run {log.run_id} is {log.history.status}, so it has not shown the whole plan",
            code=Code.DRY_RUN_UNFINISHED,
            hint="resume it, or make another one",
        )
    number = isinstance(max_age, int | float) and not isinstance(max_age, bool)
    if not (number and max_age > 0 and not math.isnan(max_age)):
        raise UsageError(f"max_age is {max_age!r}: it must be a number of seconds above 0")
    age = (log.store.clock() - log.entries[-1].ts_millis) / 1000
    if age > max_age:
        raise UsageError(
            f"the dry run {log.run_id} ended {age:.0f} s ago, and may be applied for {max_age:g} s",
            code=Code.DRY_RUN_TOO_OLD,
            details={"age": age, "max_age": max_age},
            hint="make another one and look at it, or allow an older one: --max-age SECONDS",
        )


def _refuse_changed(log: PastRun, graph: Graph, store: Store) -> None:
    """Raise `PlanError` if a plan, or the code of its states, is not the one that a dry run was made with."""
    if log.started.op_id != graph.op_id:
        raise PlanError(
            f"run {log.run_id} is of op {log.started.op_id!r}, the plan is {graph.op_id!r}",
            code=Code.OP_ID_MISMATCH,
        )
    changes: list[str] = []
    if log.started.plan_id != graph.plan_id:
        shapes = recorded_shape(store, log.started.plan_id), graph.shape()
        changes = [change.text for change in plan_changes(*shapes)]
    elif log.manifest.op_version != graph.version:
        changes = [f"the version was {log.manifest.op_version}, is {graph.version}"]
    else:
        built = log.provenance
        now = code_of_states(graph)
        then = {} if built is None else built.code
        changes = [
            f"the code of {state_id} has changed"
            for state_id in graph.order
            if then.get(state_id) != now[state_id].fingerprint
        ]
    if changes:
        raise PlanError(
            f"the plan is not the one that the dry run {log.run_id} has shown: {'; '.join(changes)}",
            code=Code.DRY_RUN_CHANGED,
            details={"changes": changes},
            hint="make another dry run, and look at it",
        )


def _refuse_applied(store: Store, key: str, dry_run_id: str) -> None:
    """Raise `RunError` (`dry_run_applied`) if a dry run was applied before."""
    taken = store.find_invocation(key)
    if taken is not None:
        raise RunError(
            f"the dry run {dry_run_id} was applied before, as run {taken}",
            code=Code.DRY_RUN_APPLIED,
            details={"dry_run": dry_run_id, "run_id": taken},
            hint=f"machine show {taken} shows it, and machine resume {taken} goes on if it was interrupted; "
            "to apply the plan once more, make another dry run",
        )
