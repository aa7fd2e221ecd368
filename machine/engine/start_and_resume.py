"""Starting and resuming: the two ways to drive a run live. Both are the driver's loop over a log."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any, Final

import attrs

from machine.catalogue import Catalogue
from machine.config import RunConfig, Target, check_startable
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine.begin_run import Start
from machine.engine.drive_run import resumed, ways_of
from machine.engine.driver_protocols import SecondOf
from machine.engine.in_process_waits import Clock, Waiting
from machine.engine.new_run import check_skip_tags, opening_for
from machine.engine.recorded_answers import Effects, FactsFrom, prepared
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import LEASE_SECONDS, lease_ms_of
from machine.engine.run_result import RunResult
from machine.engine.start_checks import check_store
from machine.engine.transports_and_catalogue import Provided
from machine.engine.watched import Changes, Watched
from machine.io.transport import Transports
from machine.plan import Plan
from machine.plan_input import checked_input
from machine.policy import NO_POLICY, Policy
from machine.stores.base import Store


@with_default_store(create=True)
async def run(
    plan: Plan,
    *,
    store: Store = DEFAULT_STORE,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the contract's name
    config: RunConfig | None = None,
    run_id: str | None = None,
    invocation_key: str | None = None,
    labels: Mapping[str, str] | None = None,
    attach: bool = True,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    target: Target | None = None,
    lease: float = LEASE_SECONDS,
    facts_from: str | os.PathLike[str] | FactsFrom | None = None,
    effects: Effects = "live",
    wait: float | None = 0,
    clock: Clock = "wall",
    answers: Mapping[str, Any] | None = None,
    begin_next: bool = True,
    policy: Policy = NO_POLICY,
    second: SecondOf | None = None,
) -> RunResult:
    """Start a new run of `plan` and drive it to its end, and so each run that continues it.

    `input` (a JSON object, or of the plan's class) becomes the initial context; `config` says how to run; `run_id`
    gives an id made by `new_run_id` beforehand; `transports` adds to or replaces those of the plan and the
    standard ones, by namespace, and `catalogue` replaces that of the plan; `target` records where the plan came
    from, for a replay that names no plan. `invocation_key` makes the start idempotent: of all starts with one key,
    one makes the run, and the others return its result, resuming it if its driver is gone; without `attach` they
    raise `ConcurrencyError` (`invocation_taken`) at once. `labels` are names with values, by which `machine runs`
    finds it. `lease` is the number of seconds for which the run stays ours where no other process can check that
    we are alive: on another machine, or in another container. Set it above the longest time for which a handler
    holds the interpreter. `facts_from`, the id of a run or the path of a bundle, answers calls from that recording
    by state, namespace, request and occurrence; what it does not answer is made, or with `io_mode="replay"` fails
    with `missing_fact`. A live effect is made, unless `effects` is `recorded`. `wait` is the number of seconds to
    wait here, in all, for answers to handlers that wait, None without limit; then the run is suspended.
    `clock="skip"` jumps over the times that handlers wait for, and `answers` answers their approvals and signals,
    by key, name of the signal or state id: for tests. Without `begin_next` a run that would go on as another
    (`StateOutcome.next_run`) begins none, and its result has the `next_input`. `policy` is that of this driver, on
    top of the run's own in `config`: of two verdicts the stricter one counts. `second` is what a paranoid run
    needs; the functions of the package supply it themselves.

    Returns a `RunResult` whatever its status, of the last run if others continue this one. Raises `PlanError`,
    `CanonicalError`, `UsageError` before anything is written (`run_id_in_use` when there is a run of that id),
    `RunError` (`invocation_conflict`) when the key belongs to another request, and `StoreError` when the store
    fails: the run can be resumed from what was durable by then.
    """
    graph = plan.graph
    check_store(store)
    config = config or _default_config()
    check_startable(config, facts=facts_from is not None)
    check_skip_tags(graph, config)
    watched = Watched(
        Provided.of(plan, transports, catalogue),
        reporter or Reporter(),
        second,
        lease_ms_of(lease),
        Waiting.of(wait, clock, answers, config.secrets),
        policy,
        begin_next=begin_next,
    )
    params = checked_input(plan.input, input)
    provided = watched.provided.info()
    opening = opening_for(
        graph, config, params, target, invocation_key, ignore=plan.ignore, provided=provided, labels=labels
    )
    start = Start(graph, opening, run_id=run_id, invocation_key=invocation_key, attach=attach)
    if facts_from is not None:
        past, share, opening = prepared(facts_from, store, opening, effects=effects)
        start = attrs.evolve(start, opening=opening, past=past, share=share)
    return await start.begin(store, watched, ways_of())


_default_config: Final = functools.cache(RunConfig)


@with_default_store()
async def resume(
    run_id: str,
    *,
    plan: Plan,
    store: Store = DEFAULT_STORE,
    allow_plan_change: bool = False,
    allow_code_change: bool = False,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    lease: float = LEASE_SECONDS,
    wait: float | None = 0,
    clock: Clock = "wall",
    answers: Mapping[str, Any] | None = None,
    begin_next: bool = True,
    policy: Policy = NO_POLICY,
    second: SecondOf | None = None,
) -> RunResult:
    """Continue a run whose log was left open, under the configuration it was started with.

    If it went on as another, this continues the last run of them, and returns the result of that. An attempt that a
    crash left open is closed explicitly first. A run that has ended is returned unchanged, and nothing is written;
    so is a suspended one whose external input has not arrived. With `allow_plan_change` it continues with another
    plan, where every state that ran still exists and none of them would have to follow one that has not run.
    `transports`, `catalogue`, `lease`, `wait`, `clock`, `answers` and `begin_next` are those of `run`. When no
    process here can check that the last driver is alive, the run is taken over once its lease has expired: this
    waits as long, and informs the reporter. `policy` holds on top of the run's own, for this driver: of two
    verdicts the stricter one counts.

    Raises `NotFoundError`, `LogError`, `PlanError` (`plan_changed`, `recovery_state_not_in_plan`) and
    `UsageError` (`transport_missing`, `catalogue_missing`, `secret_not_set`), `RunError`
    (`suspended_code_changed`) before anything is written, and `ConcurrencyError` when another process drives
    the run.
    """
    watched = Watched(
        Provided.of(plan, transports, catalogue),
        reporter or Reporter(),
        second,
        lease_ms_of(lease),
        Waiting.of(wait, clock, answers),
        policy,
        begin_next=begin_next,
    )
    changes = Changes(allow_plan_change, allow_code_change)
    return await resumed(plan.graph, store, run_id, watched, changes)
