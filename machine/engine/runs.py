"""Start and resume: the two ways a run is driven live. Both are the driver's loop over a log."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import attrs

from machine import canonical, codec
from machine.catalogue import STANDARD, Catalogue
from machine.config import Durability, RunConfig, RunManifest, Target
from machine.engine import reading
from machine.engine.driver import Opening, Run
from machine.engine.log import LiveLog
from machine.engine.provenance import provenance
from machine.engine.reporter import Reporter
from machine.engine.run_id import new_run_id
from machine.engine.transports import opened
from machine.errors import CanonicalError, Code, ConfigError, ErrorInfo, PlanError, UsageError
from machine.events import ArtifactKind
from machine.ids import STANDARD_TAGS, ContextKey, OpId, RunId
from machine.io.live import LiveIo
from machine.io.scope import Payloads
from machine.io.transport import Transport
from machine.kernel.history import History, StateStatus
from machine.kernel.snapshot import Snapshot
from machine.plan import Graph, Plan
from machine.secrets.vault import Vault, refuse_in_manifest
from machine.stores.base import ZERO_CHAIN, Store

__all__ = ["RunResult", "opening_of", "resume", "run"]


@attrs.frozen
class RunResult:
    """How a run stands when its driver returns.

    `status` is completed or failed; `digest` identifies everything the run did; `context` is the final context,
    decoded; `error` is why it failed, None when it did not.
    """

    run_id: str
    status: str
    digest: str
    head_seq: int
    final_snapshot_id: str | None
    context: Mapping[str, Any]
    error: ErrorInfo | None = None


async def run(
    plan: Plan,
    *,
    store: Store,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the contract's name
    config: RunConfig | None = None,
    run_id: str | None = None,
    transports: Mapping[str, Transport] | None = None,
    catalogue: Catalogue = STANDARD,
    reporter: Reporter | None = None,
    target: Target | None = None,
) -> RunResult:
    """Start a new run of `plan` and drive it to its end.

    `input` (a JSON object) becomes the initial context; `config` says how to run; `run_id` gives an id made by
    `new_run_id` beforehand; `transports` adds to or replaces the standard ones, by namespace; `target` notes
    where the plan came from, for a replay that names no plan. Returns a `RunResult` whether the run completed or
    failed. Raises `PlanError`, `CanonicalError`, `UsageError` before anything is written, and `StoreError` when
    the store fails: what was durable by then can be resumed.
    """
    graph = plan.graph
    _check_store(store)
    config = config or RunConfig()
    _check_skip_tags(graph, config)
    chosen = str(RunId(run_id)) if run_id is not None else str(new_run_id())
    opening = _opening(graph, config, {} if input is None else input, target)
    return await _drive(
        graph,
        config,
        store,
        chosen,
        history=History(),
        chain=ZERO_CHAIN,
        opening=opening,
        transports=transports,
        catalogue=catalogue,
        reporter=reporter,
    )


async def resume(
    run_id: str,
    *,
    plan: Plan,
    store: Store,
    transports: Mapping[str, Transport] | None = None,
    catalogue: Catalogue = STANDARD,
    reporter: Reporter | None = None,
) -> RunResult:
    """Continue a run whose log was left open, under the configuration it was started with.

    An attempt that a crash left open is closed explicitly first. A run that has ended is returned as it is, and
    nothing is written. Raises `NotFound`, `LogError`, `PlanError` (`plan_changed`, `recovery_state_not_in_plan`)
    before anything is written, and `Concurrency` when somebody else drives the run.
    """
    graph = plan.graph
    _, started = reading.first_entry(store, run_id)
    config = reading.manifest_of(store, started).run_config
    history, chain = History(), ZERO_CHAIN
    for item, stored in reading.entries(store, run_id):
        history.advance(item)
        chain = stored.chain
    _check_plan(graph, history)
    return await _drive(
        graph,
        config,
        store,
        run_id,
        history=history,
        chain=chain,
        opening=None,
        transports=transports,
        catalogue=catalogue,
        reporter=reporter,
    )


def _check_store(store: object) -> None:
    if not isinstance(store, Store):
        hint = f"open it first: with open_store({store!r}) as store" if isinstance(store, str) else None
        raise UsageError(f"store must be a Store, not {type(store).__name__}", hint=hint)


def _check_skip_tags(graph: Graph, config: RunConfig) -> None:
    """Refuse a tag that no state carries: mistyped, it would run what was to be skipped."""
    carried = {str(tag) for state in graph.states.values() for tag in state.meta.tags}
    for tag in config.skip_tags:
        if tag not in carried | STANDARD_TAGS:
            near = difflib.get_close_matches(tag, sorted(carried | STANDARD_TAGS), 1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"its tags are {', '.join(sorted(carried)) or 'none'}"
            )
            raise ConfigError(f"no state of {graph.op_id} carries the tag {str(tag)!r} to skip", hint=hint)


def opening_of(graph: Graph, manifest: RunManifest) -> Opening:
    """Return what a run of `manifest` begins with, provenance left out: as a replay needs it."""
    payloads = Payloads()
    manifest_id = payloads.add(ArtifactKind.MANIFEST, canonical.encode(codec.to_json(manifest)))
    payloads.add(ArtifactKind.PLAN, graph.shape_bytes)
    return Opening(manifest, manifest_id, payloads, {}, _writes(manifest.input_params))


def _opening(graph: Graph, config: RunConfig, params: Any, target: Target | None) -> Opening:
    if not isinstance(params, Mapping):
        raise UsageError(
            f"the input must be a JSON object, not {type(params).__name__}", code=Code.INVALID_INPUT
        )
    manifest = RunManifest(
        op_id=OpId(graph.op_id), op_version=graph.version, input_params=dict(params), run_config=config
    )
    try:
        opening = opening_of(graph, manifest)
    except CanonicalError as exc:
        raise CanonicalError(exc.path.replace("$.input_params", "$"), exc.problem) from None
    refuse_in_manifest(config.secrets, params)
    built = canonical.encode(codec.to_json(provenance(graph, target)))
    return attrs.evolve(opening, info={"provenance_id": opening.payloads.add(ArtifactKind.PROVENANCE, built)})


def _writes(params: Mapping[str, Any]) -> dict[str, bytes | None]:
    return {str(ContextKey(key)): canonical.encode(value) for key, value in params.items()}


def _check_plan(graph: Graph, history: History) -> None:
    started = history.started
    assert started is not None
    if started.op_id != graph.op_id:
        raise PlanError(
            f"run {history.run_id} is of op {started.op_id!r}, the plan is {graph.op_id!r}",
            code=Code.OP_ID_MISMATCH,
        )
    missing = sorted(state_id for state_id in history.states if state_id not in graph.states)
    if missing:
        raise PlanError(
            f"run {history.run_id} has run {', '.join(missing)}, which the plan no longer has",
            code=Code.RECOVERY_STATE_NOT_IN_PLAN,
            details={"missing": missing},
        )
    if started.plan_id != graph.plan_id:
        raise PlanError(
            f"the plan has changed since run {history.run_id} started (it was {started.plan_id[:12]}, "
            f"it is {graph.plan_id[:12]})",
            code=Code.PLAN_CHANGED,
            details={"recorded": started.plan_id, "now": graph.plan_id},
            hint="resume with the plan it was started with, or start a new run",
        )


async def _drive(
    graph: Graph,
    config: RunConfig,
    store: Store,
    run_id: str,
    *,
    history: History,
    chain: bytes,
    opening: Opening | None,
    transports: Mapping[str, Transport] | None,
    catalogue: Catalogue,
    reporter: Reporter | None,
) -> RunResult:
    reporter = reporter or Reporter()
    if not history.final:
        vault = Vault(config.secrets, store.secret_key())
        log = LiveLog(
            store,
            run_id,
            history=history,
            chain=chain,
            behind=store.write_behind,
            # at a boundary the run commits by itself, a completion and the next entry together
            boundaries=config.durability is Durability.EFFECTS,
            vault=vault,
            on_entry=reporter.entry,
        )
        async with opened(config, transports) as doors:
            reporter.starting(run_id, graph)
            try:
                await Run(
                    graph=graph,
                    config=config,
                    log=log,
                    provider=LiveIo,
                    transports=doors,
                    catalogue=catalogue,
                    reporter=reporter,
                    live=True,
                    vault=vault,
                    opening=opening,
                ).drive()
            finally:
                log.close()
    return _result(store, graph, history)


def _result(store: Store, graph: Graph, history: History) -> RunResult:
    snapshot_id = history.final_snapshot_id
    failed = [state.error for state in history.states.values() if state.status is StateStatus.FAILED]
    return RunResult(
        run_id=history.run_id or "",
        status=history.status.value,
        digest=history.digest(graph.order),
        head_seq=history.head_seq,
        final_snapshot_id=snapshot_id,
        context=Snapshot.open(snapshot_id, store.get).to_dict() if snapshot_id else {},
        error=failed[-1] if failed else None,
    )
