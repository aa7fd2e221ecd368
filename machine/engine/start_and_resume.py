"""Starting and resuming: the two ways to drive a run live. Both are the driver's loop over a log."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from machine.catalogue import Catalogue
from machine.config import Durability, IoMode, RunConfig, RunManifest, Target, check_startable
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.begin_run import Start
from machine.engine.children import tell_parent
from machine.engine.controls_of_run import controls_of
from machine.engine.drive_child import Ways, children_of_run
from machine.engine.driver import Run
from machine.engine.driver_protocols import Opening, SecondOf, earlier_of, second_of
from machine.engine.fork_log import log_and_io, past_of
from machine.engine.fork_prefix import SharedPast
from machine.engine.in_process_waits import Clock, Patience, Waiting, report_unused
from machine.engine.live_run_secrets import looks_through, recalled, refuse_key_in, secrets_of
from machine.engine.log import LiveLog
from machine.engine.moved_runs import refuse_moved
from machine.engine.new_run import check_skip_tags, opening_for
from machine.engine.plan_change import check_plan, recorded_shape
from machine.engine.recorded_answers import Effects, FactsFrom, RecordedAnswers, prepared
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import LEASE_SECONDS, Keeper, keeper_of, lease_ms_of
from machine.engine.run_result import RunResult, result_of
from machine.engine.start_checks import check_store
from machine.engine.suspended_attempts import check_suspended
from machine.engine.transports import opened
from machine.engine.transports_and_catalogue import Provided
from machine.engine.watched import Changes, Watched
from machine.io.request_identity import RequestRules
from machine.io.running_programs import end_left, run_of_programs
from machine.io.transport import Transports
from machine.kernel.history import History
from machine.plan import Graph, Plan
from machine.plan_input import checked_input
from machine.plan_shape import order_of
from machine.policy import NO_POLICY, Policy
from machine.secrets.both_formats import OfRun
from machine.stores.base import ZERO_CHAIN, Store
from machine.waits import EffectWait

_CAREFUL: Final = 16
"""The number of attempts of a resumed run that are durable before they are made. An attempt that kills its process
at once would otherwise be in no log and would be made again for ever; this way each process gets that much
further."""

_CAREFUL_AT_FIRST: Final = 4
"""The same number for a new run, smaller because each costs a commit and few runs have an attempt that kills."""


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
    policy: Policy = NO_POLICY,
    second: SecondOf | None = None,
) -> RunResult:
    """Start a new run of `plan` and drive it to its end.

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
    by key, name of the signal or state id: for tests. `policy` is that of this driver, on top of the run's own in
    `config`: of two verdicts the stricter one counts. `second` is what a paranoid run needs; the functions of the
    package supply it themselves.

    Returns a `RunResult` whatever its status. Raises `PlanError`, `CanonicalError`, `UsageError` before anything is
    written (`run_id_in_use` when there is a run of that id), `RunError` (`invocation_conflict`) when the key
    belongs to another request, and `StoreError` when the store fails: the run can be resumed from what was durable
    by then.
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
    )
    params = checked_input(plan.input, input)
    opening = opening_for(graph, config, params, target, invocation_key, ignore=plan.ignore, labels=labels)
    opening = attrs.evolve(opening, info={**opening.info, **watched.provided.info()})
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
    policy: Policy = NO_POLICY,
    second: SecondOf | None = None,
) -> RunResult:
    """Continue a run whose log was left open, under the configuration it was started with.

    An attempt that a crash left open is closed explicitly first. A run that has ended is returned unchanged,
    and nothing is written; so is a suspended one whose external input has not arrived. With `allow_plan_change`
    it continues with another plan, where every state that ran still exists and none of them would have to
    follow one that has not run. `transports`, `catalogue`, `lease`, `wait`, `clock` and `answers` are those of
    `run`. When no process here can check that the last driver is alive, the run is taken over once its lease
    has expired: this waits as long, and informs the reporter. `policy` holds on top of the run's own, for this
    driver: of two verdicts the stricter one counts.

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
    )
    changes = Changes(allow_plan_change, allow_code_change)
    return await _resumed(plan.graph, store, run_id, watched, changes)


async def _resumed(graph: Graph, store: Store, run_id: str, watched: Watched, changes: Changes) -> RunResult:
    def read() -> tuple[History, bytes, SharedPast | None, Mapping[str, str]]:
        history, chain = run_reader.folded(store, run_id, graph)
        lost: Mapping[str, str] = {}
        past = None if history.final else past_of(store, run_id)
        if (
            past is None or past.goes_on_with != graph.plan_id
        ):  # otherwise it was checked when the run was forked
            check_plan(store, graph, history, allow_change=changes.of_plan)
        asks = any(isinstance(wait, EffectWait) for wait in history.unanswered)
        if not history.final and not asks:  # then nothing is run
            first, _ = run_reader.first_entry(store, run_id)
            lost = recalled(history, secrets, store.get)
            if isinstance(past, RecordedAnswers) and past.shut:
                lost = {}  # placeholders do where nothing is sent
            watched.provided.check(first, history, store.get, "resume", lost.keys())
        return history, chain, past, lost

    _, started = run_reader.first_entry(store, run_id)
    manifest = run_reader.manifest_of(store, started)
    secrets = secrets_of(store, run_id, manifest)
    history, chain, past, lost = read()
    if history.final:
        return result_of(store, graph.order, history)
    with await keeper_of(store, run_id, watched.lease_ms, watched.reporter.leased) as keeper:
        refuse_moved(store, run_id)
        if store.head_seq(run_id) != history.head_seq:  # its last driver has only just stopped
            history, chain, past, lost = read()
        await end_left(run_id)
        return await drive(
            graph,
            store,
            keeper,
            watched,
            manifest=manifest,
            history=history,
            chain=chain,
            past=past,
            secrets=secrets,
            lost=lost,
            changes=changes,
        )


def ways_of(changes: Changes | None = None) -> Ways:
    """Return the ways to drive a run, with the changes that a resume allows."""
    return Ways(drive, functools.partial(_resumed, changes=changes or Changes()))


async def drive(
    graph: Graph,
    store: Store,
    keeper: Keeper,
    watched: Watched,
    *,
    manifest: RunManifest,
    history: History,
    chain: bytes = ZERO_CHAIN,
    opening: Opening | None = None,
    past: SharedPast | None = None,
    begin: Callable[[LiveLog], None] | None = None,
    secrets: OfRun | None = None,
    lost: Mapping[str, str] = MappingProxyType({}),
    changes: Changes | None = None,
) -> RunResult:
    """Drive a run from the end of its history until it ends or waits, and return its result.

    `past` are facts of another run that it was given; `begin` puts the certain part of a fork's past into its empty
    log, `secrets` are those known already, and `lost` are the seals that it cannot open, by the keys of facts.
    """
    if history.final:
        return result_of(store, graph.order, history)
    run_of_programs.set(keeper.run_id)
    config = manifest.run_config
    secrets = secrets or secrets_of(store, keeper.run_id, manifest)
    if opening is not None:
        refuse_key_in(opening, secrets)
    second = second_of(config, watched.second, store, keeper.run_id)
    options: dict[str, Any] = {
        "history": history,
        "chain": chain,
        "behind": store.write_behind,
        "boundaries": config.durability is Durability.EFFECTS,  # commits an end with the next entry
        "secret_check": looks_through(secrets),
        "secrets": secrets,
        "lost": lost,
        "lease": keeper.lease,
        "control": keeper.control,
        "on_entry": watched.reporter.entry,
        "second": second,
    }
    dry = config.io_mode is IoMode.DRY_RUN
    log, provider = log_and_io(past, graph, store, keeper.run_id, dry=dry, **options)
    async with opened(config, watched.provided.transports, shut=past is not None and past.shut) as served:
        try:
            if begin is not None:
                begin(log)
            watched.reporter.starting(keeper.run_id, graph)
            if history.cleanup is not None:
                keeper.control.begin_cleanup(history.cleanup_ms)
            keeper.listen(from_the_start=opening is None)
            children = children_of_run(store, keeper, config, watched, ways_of(changes), past=past)
            checks, may_go_on = None, log.goes_on or watched.waiting.here or bool(children.woken(history))
            if changes is not None and watched.second is not None and (may_go_on or changes.of_code):
                checks = functools.partial(
                    check_suspended,
                    log=log,
                    store=store,
                    maker=watched.second,
                    allow_code_change=changes.of_code,
                )
            driven = Run(
                graph=graph,
                config=config,
                log=log,
                provider=provider,
                transports=served,
                catalogue=watched.provided.catalogue,
                reporter=watched.reporter,
                live=True,
                secrets=secrets,
                requests=RequestRules.of(manifest),
                context_format=manifest.context_format,
                clients=watched.provided.clients,
                control=keeper.control,
                opening=opening,
                second=second,
                children=children,
                earlier=earlier_of(watched.second, store, log),
                goes_on=Patience(watched.waiting, log, children.woken, dry=dry).goes_on,
                check=checks,
                controls=controls_of(config, log, keeper.control, watched.provided.spending, watched.policy),
                careful=_CAREFUL if opening is None else _CAREFUL_AT_FIRST,
            )
            before = history.head_seq
            await driven.drive()
            if history.head_seq == before:  # whatever it was due for, it cannot continue
                log.set_aside()
            if not watched.is_child:
                report_unused(watched.waiting, history, log.load, watched.reporter)
        finally:
            log.close()
    if history.final and opening is None and not watched.is_child:  # a parent begins its children itself
        tell_parent(store, keeper.run_id)
    order = graph.order
    if history.plan_id != graph.plan_id:  # a fork that ended under the plan of its shared past
        order = order_of(recorded_shape(store, history.plan_id or ""))
    return result_of(store, order, history, driven.at_hand)
