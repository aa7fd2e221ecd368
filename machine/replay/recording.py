"""What belongs to a run: its events, and every artifact they lead to, in the order in which they first do.

Bytes come through `load`; this module must never open a store, and never judges a log (`fold` does).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import attrs

from machine import canonical, codec
from machine.config import RunManifest
from machine.engine.fork_log import shared_past_id
from machine.engine.past import SharedPast
from machine.errors import Code, CodecError, Corruption, LogError, PlanError
from machine.events import (
    DomainEventRecorded,
    EffectIntended,
    Entry,
    Event,
    FactRecorded,
    FactValue,
    RunResumed,
    RunStarted,
    StateCompleted,
    StateFailed,
)
from machine.kernel.history import History
from machine.kernel.snapshot import Load, Snapshot
from machine.plan import order_of
from machine.stores.base import ZERO_CHAIN, Artifact, ArtifactKind, StoredEvent

__all__ = [
    "Recording",
    "check_opening",
    "check_states",
    "gather",
    "led_to",
    "named",
    "plan_order",
    "provenance_id",
    "shared_entries",
    "shared_past_id",
    "snapshot_parts",
    "snapshots",
]


@attrs.frozen
class Recording:
    """A whole run, checked. `artifacts` stand in the order of first reference, each of the kind it has there."""

    run_id: str
    entries: Sequence[Entry]
    log: Sequence[StoredEvent]
    artifacts: Mapping[str, Artifact]
    plan_id: str
    provenance_id: str | None
    digest: str

    @property
    def chain(self) -> bytes:
        """The chain value after the last event."""
        return self.log[-1].chain if self.log else ZERO_CHAIN


def gather(log: Iterable[tuple[Entry, StoredEvent]], load: Load) -> Recording:
    """Fold a log and return it with everything it leads to.

    Raises what `load` raises, `LogError` where a rule of logs is broken or the first event is not what its
    manifest says, `Corruption` for an artifact that is not what it is named as, and `PlanError` for states that
    the recorded plan does not have.
    """
    history = History()
    entries: list[Entry] = []
    events: list[StoredEvent] = []
    held: dict[str, bytes] = {}
    artifacts: dict[str, Artifact] = {}
    walked: set[str] = set()

    def get(artifact_id: str) -> bytes:
        data = held.get(artifact_id)
        if data is None:
            data = held[artifact_id] = load(artifact_id)
        return data

    for entry, stored in log:
        history.advance(entry)
        entries.append(entry)
        events.append(stored)
        for artifact_id, kind in led_to(entry, get, walked):
            if artifact_id not in artifacts:
                artifacts[artifact_id] = Artifact(artifact_id, kind, get(artifact_id))
        if isinstance(entry.event, RunStarted):
            check_opening(entry.seq, entry.event, get)
    if history.started is None:
        raise LogError(1, "the log has no events", code=Code.LOG_FIRST_EVENT)
    order = plan_order(history, get)
    check_states(history, frozenset(order))
    return Recording(
        run_id=history.run_id or "",
        entries=entries,
        log=events,
        artifacts=artifacts,
        plan_id=history.started.plan_id,
        provenance_id=provenance_id(entries[0]),
        digest=history.digest(order),
    )


def led_to(entry: Entry, load: Load, walked: set[str]) -> Iterator[tuple[str, ArtifactKind]]:
    """Yield every artifact that an entry leads to; of snapshots what is not in `walked`, which grows."""
    yield from named(entry)
    for snapshot_id in snapshots(entry.event):
        yield from snapshot_parts(snapshot_id, load, walked)
    for shared in shared_entries(entry, load):
        yield from led_to(shared, load, walked)


def shared_entries(entry: Entry, load: Load) -> Sequence[Entry]:
    """Return what a fork has been given to go through, as its first entry names it; empty for any other entry."""
    past_id = shared_past_id(entry)
    return () if past_id is None else SharedPast.from_bytes(load(past_id), load).entries


def named(entry: Entry) -> Iterator[tuple[str, ArtifactKind]]:
    """Yield the artifacts that an entry names itself, snapshots left out, and what each is there."""
    event = entry.event
    match event:
        case RunStarted():
            yield event.manifest_id, ArtifactKind.MANIFEST
            yield event.plan_id, ArtifactKind.PLAN
            built = provenance_id(entry)
            if built is not None:
                yield built, ArtifactKind.PROVENANCE
            past_id = shared_past_id(entry)
            if past_id is not None:
                yield past_id, ArtifactKind.SHARED_PAST
        case RunResumed() if event.plan_id is not None:
            yield event.plan_id, ArtifactKind.PLAN
        case FactRecorded():
            yield event.request_digest, ArtifactKind.FACT_REQUEST
            if isinstance(event.outcome, FactValue):
                yield event.outcome.payload_id, ArtifactKind.FACT_PAYLOAD
        case EffectIntended():
            yield event.request_digest, ArtifactKind.FACT_REQUEST
        case DomainEventRecorded() if event.payload_ref is not None:
            yield event.payload_ref, ArtifactKind.DOMAIN_PAYLOAD
        case _:
            return


def provenance_id(entry: Entry) -> str | None:
    """Return the id of the provenance noted at a run's first entry, None when none is."""
    found = entry.info.get("provenance_id")
    return found if isinstance(found, str) else None


def snapshots(event: Event) -> Iterator[str]:
    """Yield the snapshots that an event names."""
    match event:
        case RunStarted():
            yield event.initial_snapshot_id
        case StateCompleted():
            yield event.context_snapshot_id
        case StateFailed() if event.failure_snapshot_id is not None:
            yield event.failure_snapshot_id
        case _:
            return


def snapshot_parts(
    snapshot_id: str, load: Load, walked: set[str] | None = None
) -> Iterator[tuple[str, ArtifactKind]]:
    """Yield every artifact a snapshot is made of: each node before what it holds.

    A subtree whose node is in `walked` is passed over; nodes that were yielded are added to it. Raises what
    `load` raises, and `Corruption` for bytes that are no node.
    """
    walked = set() if walked is None else walked
    if snapshot_id in walked:
        return
    nodes: set[str] = set()

    def loaded(node_id: str) -> bytes:
        nodes.add(node_id)
        return load(node_id)

    # the same bytes may be a node here and a value there, so what is a node is what was opened as one
    for artifact_id in Snapshot.open(snapshot_id, loaded).artifact_ids(skip=walked):
        if artifact_id in nodes:
            walked.add(artifact_id)
            yield artifact_id, ArtifactKind.CONTEXT_SNAPSHOT
        else:
            yield artifact_id, ArtifactKind.CONTEXT_VALUE


def check_opening(seq: int, started: RunStarted, load: Load) -> None:
    """Check that the manifest is one, of this op, and that its input is the initial context.

    Raises `Corruption` for a manifest that is none, and `LogError` (`log_bad_event`).
    """
    try:
        manifest = codec.from_json(canonical.decode(load(started.manifest_id)), RunManifest)
    except CodecError as exc:
        raise Corruption(f"artifact {started.manifest_id}: {exc}", code=Code.ARTIFACT_CORRUPT) from exc
    writes = {key: canonical.encode(value) for key, value in manifest.input_params.items()}
    snapshot, _, _ = Snapshot.empty(load).update(writes)
    if (manifest.op_id, snapshot.id) != (started.op_id, started.initial_snapshot_id):
        raise LogError(seq, "it does not say what its manifest says", code=Code.LOG_BAD_EVENT)


def plan_order(history: History, load: Load) -> tuple[str, ...]:
    """Return the order of the plan a run goes by. Raises `PlanError` when it is none."""
    return order_of(canonical.decode(load(history.plan_id or "")))


def check_states(history: History, order: Container[str]) -> None:
    """Raise `PlanError` when a log tells of states that the recorded plan, in `order`, does not have."""
    unknown = sorted(state_id for state_id in history.states if state_id not in order)
    if unknown:
        raise PlanError(
            f"the log tells of {', '.join(unknown)}, which the recorded plan does not have",
            code=Code.RECOVERY_STATE_NOT_IN_PLAN,
        )
