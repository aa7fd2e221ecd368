"""The beginning of a new run: its manifest, its plan, its first context, and its origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from machine import canonical, codec
from machine.config import CONTEXT_FORMAT, REQUEST_FORMAT, SECRET_FORMAT, RunConfig, RunManifest, Target
from machine.did_you_mean import did_you_mean
from machine.engine.driver_protocols import DrivenLog, Opening
from machine.engine.provenance import provenance
from machine.errors import CanonicalError, Code, ConfigError, UsageError
from machine.events import (
    ArtifactKind,
    Event,
    RunResumed,
    RunStarted,
    RunSuspended,
)
from machine.ids import STANDARD_TAGS, ContextKey, OpId
from machine.ignore import Ignore
from machine.io.attempt_scope import Payloads
from machine.kernel.snapshot import Snapshot
from machine.labels import info_of
from machine.plan import Graph
from machine.secrets.refused_input import refuse_in_input
from machine.waits import Wait
from machine.watch.watch import behind_io


def check_skip_tags(graph: Graph, config: RunConfig) -> None:
    """Reject a tag that no state has: a misspelt tag would run what was to be skipped."""
    carried = {str(tag) for state in graph.states.values() for tag in state.meta.tags}
    for tag in config.skip_tags:
        if tag not in carried | STANDARD_TAGS:
            tags = f"its tags are {', '.join(sorted(carried)) or 'none'}"
            hint = did_you_mean(tag, sorted(carried | STANDARD_TAGS), tags, show=repr)
            raise ConfigError(f"no state of {graph.op_id} has the tag {str(tag)!r} to skip", hint=hint)


def manifest_artifact(manifest: RunManifest, payloads: Payloads) -> str:
    """Add a manifest to the artifacts of a new run, and return its id."""
    return payloads.add(ArtifactKind.MANIFEST, canonical.encode(codec.to_json(manifest)))


def opening_of(graph: Graph, manifest: RunManifest) -> Opening:
    """Return the opening of a run with a manifest, without provenance, which a replay does not need."""
    payloads = Payloads()
    manifest_id = manifest_artifact(manifest, payloads)
    payloads.add(ArtifactKind.PLAN, graph.shape_bytes)
    return Opening(manifest, manifest_id, payloads, {}, _writes(manifest.input_params))


def opening_for(
    graph: Graph,
    config: RunConfig,
    params: Any,
    target: Target | None,
    invocation_key: str | None,
    *,
    ignore: Ignore,
    provided: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
) -> Opening:
    """Return what a new run starts from. Raises `UsageError` and `CanonicalError` for its input or invocation key.

    It is the manifest, the first artifacts, the writes of the input, and informational data with the provenance.
    `ignore` is that of the plan, `provided` the informational data on what the run was given to work with.
    """
    if not isinstance(params, Mapping):
        raise UsageError(
            f"the input must be a JSON object, not {type(params).__name__}", code=Code.INVALID_INPUT
        )
    manifest = RunManifest(
        op_id=OpId(graph.op_id),
        op_version=graph.version,
        input_params=dict(params),
        run_config=config,
        secret_format=SECRET_FORMAT,
        request_format=REQUEST_FORMAT,
        ignore=ignore,
        context_format=CONTEXT_FORMAT,
    )
    try:
        opening = opening_of(graph, manifest)
    except CanonicalError as exc:
        raise CanonicalError(exc.path.replace("$.input_params", "$"), exc.problem) from None
    refuse_in_input(config.secrets, params)
    built = canonical.encode(codec.to_json(provenance(graph, target)))
    info = {
        **info_of(labels, config.secrets),
        "provenance_id": opening.payloads.add(ArtifactKind.PROVENANCE, built),
    }
    if invocation_key is not None:
        if not isinstance(invocation_key, str) or not invocation_key or not invocation_key.isprintable():
            raise UsageError(
                f"the invocation key must be a non-empty printable string, not {invocation_key!r}",
                code=Code.INVALID_INVOCATION_KEY,
            )
        info["invocation_key"] = invocation_key
    return attrs.evolve(opening, info={**info, **provided})


def is_same_request(then: RunManifest, now: RunManifest) -> bool:
    """Say whether two manifests ask for one run, which keeps the formats and the `ignore` of its beginning."""
    return then == attrs.evolve(now.in_formats_of(then), ignore=then.ignore)


def _writes(params: Mapping[str, Any]) -> dict[str, bytes | None]:
    return {str(ContextKey(key)): canonical.encode(value) for key, value in params.items()}


def going_on(wait: Wait, resumed: RunResumed, *, suspended: bool) -> list[Event]:
    """Return the events by which a run continues with a changed plan or lost secrets; `suspended` if it waits."""
    return [resumed] if suspended else [RunSuspended((wait,)), resumed]


async def begin(log: DrivenLog, graph: Graph, opening: Opening, max_concurrency: int | None) -> Snapshot:
    """Write the first event of a run, durable on return, and return its first context."""
    empty = Snapshot.empty(behind_io(log.load))
    snapshot, made = empty.update(opening.input_writes, opening.manifest.context_format)
    opening.payloads.items.update(made)
    started = RunStarted(graph.op_id, opening.manifest_id, graph.plan_id, snapshot.id, max_concurrency)
    await log.emit([started], opening.payloads, opening.info)
    await log.durable()  # once anybody has seen a run id, the run can be resumed
    opening.payloads.items.clear()  # they are in the store; those of a large plan would take memory until the end
    return snapshot
