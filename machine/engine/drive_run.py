"""Driving a run live, from its beginning or from where its log ends, and then each run that continues it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from machine.config import Durability, IoMode, RunManifest
from machine.engine import run_reader
from machine.engine.children import tell_parent
from machine.engine.controls_of_run import controls_of
from machine.engine.drive_child import Ways, children_of_run
from machine.engine.driver import Run
from machine.engine.driver_protocols import Opening, earlier_of, second_of
from machine.engine.fork_log import log_and_io, past_of
from machine.engine.fork_prefix import SharedPast
from machine.engine.in_process_waits import Patience, report_unused
from machine.engine.live_run_secrets import looks_through, recalled, refuse_key_in, secrets_of
from machine.engine.log import LiveLog
from machine.engine.moved_runs import refuse_moved
from machine.engine.next_run import NextRun
from machine.engine.plan_change import check_plan, recorded_order
from machine.engine.recorded_answers import RecordedAnswers
from machine.engine.run_keeper import Keeper, keeper_of
from machine.engine.run_result import RunResult, result_of
from machine.engine.suspended_attempts import check_suspended
from machine.engine.transports import opened
from machine.engine.watched import Changes, Watched
from machine.io.request_identity import RequestRules
from machine.io.running_programs import end_left, run_of_programs
from machine.kernel.history import History
from machine.plan import Graph
from machine.secrets.both_formats import OfRun
from machine.stores.base import ZERO_CHAIN, Store
from machine.waits import EffectWait

_CAREFUL: Final = 16
"""The number of attempts of a resumed run that are durable before they are made. An attempt that kills its process
at once would otherwise be in no log and would be made again for ever; this way each process gets that much
further."""

_CAREFUL_AT_FIRST: Final = 4
"""The same number for a new run, smaller because each costs a commit and few runs have an attempt that kills."""


async def resumed(graph: Graph, store: Store, run_id: str, watched: Watched, changes: Changes) -> RunResult:
    """Drive a run on from where its log ends; of runs that continue each other, the last one."""
    while True:
        run_id = store.last_segment(run_id)
        result = await _resumed_run(graph, store, run_id, watched, changes)
        # any other is one that another driver has begun just now
        if store.last_segment(run_id) in {run_id, result.run_id}:
            return result


async def _resumed_run(
    graph: Graph, store: Store, run_id: str, watched: Watched, changes: Changes
) -> RunResult:
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
    return Ways(drive, functools.partial(resumed, changes=changes or Changes()))


async def drive(
    graph: Graph, store: Store, keeper: Keeper, watched: Watched, *, manifest: RunManifest, **options: Any
) -> RunResult:
    """Drive a run, and each run that continues it, until one ends or waits; return the result of that one.

    `options` are those of `_driven`. Leases are released on return, that of `keeper` too. However many runs there
    are, no more than two of them are in memory.
    """
    provided, changes = watched.provided.info(), options.get("changes")
    following: NextRun | None = None
    try:
        while True:
            following = NextRun(store, keeper.run_id, graph, manifest, provided, watched.lease_ms)
            result, seconds = await _driven(
                graph, store, keeper, watched, following, manifest=manifest, **options
            )
            if following.keeper is None:
                return result
            keeper.close()
            keeper = following.keeper
            history, chain = run_reader.folded(store, keeper.run_id, graph)
            assert history.started is not None
            manifest = run_reader.manifest_of(store, history.started)
            options = {"history": history, "chain": chain, "changes": changes}
            watched = attrs.evolve(watched, waiting=attrs.evolve(watched.waiting, seconds=seconds))
    finally:
        if following is not None:
            following.close()
        keeper.close()


async def _driven(
    graph: Graph,
    store: Store,
    keeper: Keeper,
    watched: Watched,
    following: NextRun,
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
) -> tuple[RunResult, float | None]:
    """Drive a run from the end of its history until it ends or waits; return its result and the time left to wait.

    `past` are facts of another run that it was given; `begin` puts the certain part of a fork's past into its empty
    log, `secrets` are those known already, and `lost` are the seals that it cannot open, by the keys of facts.
    """
    waiting = watched.waiting
    if history.final:
        return result_of(store, graph.order, history), waiting.seconds
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
    if watched.begin_next and not dry:
        log.next_run = following.end
    async with opened(config, watched.provided.transports, shut=past is not None and past.shut) as served:
        try:
            if begin is not None:
                begin(log)
            watched.reporter.starting(keeper.run_id, graph)
            if history.cleanup is not None:
                keeper.control.begin_cleanup(history.cleanup_ms)
            keeper.listen(from_the_start=opening is None)
            children = children_of_run(store, keeper, config, watched, ways_of(changes), past=past)
            checks, may_go_on = None, log.goes_on or waiting.here or bool(children.woken(history))
            patience = Patience(waiting, log, children.woken, dry=dry)
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
                goes_on=patience.goes_on,
                check=checks,
                controls=controls_of(config, log, keeper.control, watched.provided.spending, watched.policy),
                careful=_CAREFUL if opening is None else _CAREFUL_AT_FIRST,
            )
            before = history.head_seq
            await driven.drive()
            if history.head_seq == before:  # whatever it was due for, it cannot continue
                log.set_aside()
            if following.keeper is None and not watched.is_child:
                report_unused(waiting, history, log.load, watched.reporter)
        finally:
            log.close()
    if history.final and opening is None and following.keeper is None and not watched.is_child:
        tell_parent(store, keeper.run_id)  # a parent begins its children itself
    order = graph.order
    if history.plan_id != graph.plan_id:  # a fork that ended under the plan of its shared past
        order = recorded_order(store, history)
    return result_of(store, order, history, driven.at_hand), patience.left
