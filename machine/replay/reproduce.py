"""Replay: run a plan's handlers again on the recorded facts, and compare every event and snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from machine.catalogue import STANDARD, Catalogue
from machine.config import UndeclaredIo
from machine.engine import reading
from machine.engine.driver import Run
from machine.engine.provenance import code_fingerprints
from machine.engine.reporter import Reporter
from machine.engine.runs import opening_of
from machine.engine.transports import opened
from machine.errors import Code, PlanError
from machine.io.replay import ReplayIo
from machine.io.scope import AttemptScope
from machine.io.transport import Transport
from machine.plan import Graph, Plan
from machine.replay.asked import graphs_of
from machine.replay.divergence import Cause, Divergence, DivergenceKind, likely_cause
from machine.replay.log import Diverged, RecordingEnds, ReplayLog
from machine.secrets.vault import Vault
from machine.stores.base import Store

__all__ = ["ReplayResult", "replay"]


@attrs.frozen
class ReplayResult:
    """What a replay found: `identical`, or the one `divergence`.

    `events` counts the events that agreed; `digest` is the digest over them, which is the run's own when the
    replay is identical; `status` is how the run stands after them.
    """

    run_id: str
    identical: bool
    digest: str
    events: int
    status: str
    divergence: Divergence | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {
            "run_id": self.run_id,
            "identical": self.identical,
            "digest": self.digest,
            "events": self.events,
            "status": self.status,
            "divergence": self.divergence.to_json() if self.divergence else None,
        }


async def replay(
    run_id: str,
    *,
    plan: Plan,
    store: Store,
    transports: Mapping[str, Transport] | None = None,
    catalogue: Catalogue = STANDARD,
    reporter: Reporter | None = None,
    undeclared_io: UndeclaredIo | str | None = None,
) -> ReplayResult:
    """Replay a run against `plan`, byte for byte. Nothing is written, nothing goes outside, nothing is waited for.

    A recording that was left open is replayed as far as it goes. `transports` are never performed, but say what
    they would refuse: pass those the run was given. `undeclared_io` says what becomes of what handlers do without
    `io`, None: as the run was configured. Raises `NotFound`, `PlanError` (`op_id_mismatch`) for the plan
    of another op, and `LogError` or `Corruption` when the recording itself is damaged.
    """
    graph = plan.graph
    reporter = reporter or Reporter()
    first, started = reading.first_entry(store, run_id)
    manifest = reading.manifest_of(store, started)
    if started.op_id != graph.op_id:
        raise PlanError(
            f"run {run_id} is of op {started.op_id!r}, the plan is {graph.op_id!r}", code=Code.OP_ID_MISMATCH
        )
    config = manifest.run_config
    if undeclared_io is not None:
        config = attrs.evolve(config, undeclared_io=undeclared_io)
    recorded = [entry for entry, _ in reading.entries(store, run_id)]
    first_graph, graphs = graphs_of(graph, recorded, store)
    log = ReplayLog(recorded, store.get, reporter.entry, graphs)

    def provider(scope: AttemptScope) -> ReplayIo:
        log.attach(scope)
        return ReplayIo(scope, log, log.requests.like)

    reporter.starting(run_id, graph)
    divergence: Divergence | None = None
    async with opened(config, transports) as doors:
        try:
            await Run(
                graph=first_graph,
                config=config,
                log=log,
                provider=provider,
                transports=doors,
                catalogue=catalogue,
                reporter=reporter,
                live=False,
                vault=Vault(
                    config.secrets,
                    refuses=lambda: log.requests.failed_with(Code.SECRET_IN_CONTEXT),
                ),
                opening=opening_of(first_graph, manifest),
            ).drive()
        except RecordingEnds:
            pass
        except Diverged as exc:
            then = reading.provenance_of(store, first)
            divergence = _explained(exc.divergence, graph, then.code if then else None)
    return ReplayResult(
        run_id=run_id,
        identical=divergence is None,
        digest=log.history.digest(graph.order),
        events=log.history.head_seq,
        status=log.history.status.value,
        divergence=divergence,
    )


def _explained(divergence: Divergence, graph: Graph, recorded: Mapping[str, str] | None) -> Divergence:
    if divergence.kind is DivergenceKind.PLAN_CHANGED:
        cause, text = Cause.PLAN_CHANGED, "states, edges or metadata of the plan are not those recorded"
    else:
        cause, text = likely_cause(divergence.state_id, graph.order, recorded, code_fingerprints(graph))
    return attrs.evolve(divergence, cause=cause, cause_text=text)
