"""The contents of a run: its events and every artifact they reference, in order of first reference.

Bytes come through `load`; this module must never open a store, and never judges a log (`fold` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from machine import canonical
from machine.engine.fork_prefix import SharedPast, shared_past_id
from machine.engine.log_check import LogCheck, check_content, provenance_id
from machine.events import (
    Artifact,
    ArtifactKind,
    DomainEventRecorded,
    EffectIntended,
    Entry,
    Event,
    FactRecorded,
    FactValue,
    RunCompleted,
    RunResumed,
    RunStarted,
    StateCompleted,
    StateFailed,
    WaitBegun,
)
from machine.kernel.outputs import output_of, piece_ids
from machine.kernel.sealed_facts import REQUEST_SECRETS, SECRET_PAYLOAD
from machine.kernel.snapshot import Load, Snapshot
from machine.kernel.value_chunks import chunk_ids
from machine.recordings.artifact_spool import ArtifactSpool, SpooledArtifacts
from machine.recordings.bundle_version import Needs, needs_of
from machine.stores.base import ZERO_CHAIN, Message, StoredEvent

Walked: TypeAlias = dict[tuple[str, str], int]
"""The nodes of snapshots that were looked at, by place and id, with the number of keys of each."""


@attrs.frozen
class Recording:
    """A whole run, checked; `artifacts` are in order of first reference, each with its kind there.

    `seals` are sealed secrets, which are not part of the run: any may be absent. `lock` is the bundle's part of
    the key that sealed them (`secrets.bundle_key`). Only bundles exported with secrets have them. `messages` are
    those to a run that waits and has not ended: they are no part of its log.
    """

    run_id: str
    entries: Sequence[Entry]
    log: Sequence[StoredEvent]
    artifacts: SpooledArtifacts
    plan_id: str
    provenance_id: str | None
    digest: str
    seals: Mapping[str, Artifact] = attrs.field(factory=dict)
    lock: Mapping[str, Any] | None = None
    messages: Sequence[Message] = ()

    @property
    def waits(self) -> bool:
        """True when a handler of the run has waited: earlier versions cannot read such a log."""
        return any(isinstance(entry.event, WaitBegun) for entry in self.entries)

    @property
    def needs(self) -> Needs:
        """The least that a program must know to judge the run."""
        started = self.entries[0].event
        assert isinstance(started, RunStarted)
        return needs_of(self.entries, canonical.decode(self.artifacts[started.manifest_id][1]))

    @property
    def ended(self) -> bool:
        """True when nothing can follow the last event."""
        return isinstance(self.entries[-1].event, RunCompleted)

    @property
    def chain(self) -> bytes:
        """The chain value after the last event."""
        return self.log[-1].chain if self.log else ZERO_CHAIN


def gather(
    log: Iterable[tuple[Entry, StoredEvent]], load: Load, spool: ArtifactSpool | None = None
) -> Recording:
    """Fold a log and return it with every artifact it references; each that `spool` lacks is loaded once.

    Raises what `load` raises, `LogError` where a rule of logs is broken, and `CorruptionError` for an artifact that
    is not what it is named as.
    """
    entries: list[Entry] = []
    events: list[StoredEvent] = []
    held = spool or ArtifactSpool()
    artifacts = SpooledArtifacts(held)

    def get(artifact_id: str) -> bytes:
        data = held.get(artifact_id)
        return held.add(artifact_id, load(artifact_id)) if data is None else data

    check = LogCheck(get)
    for entry, stored, parts in _checked(log, get, check):
        entries.append(entry)
        events.append(stored)
        for artifact_id, kind in parts:
            get(artifact_id)
            artifacts.kinds.setdefault(artifact_id, kind)
    order, history = check.end(), check.history
    assert history.started is not None
    return Recording(
        run_id=history.run_id or "",
        entries=entries,
        log=events,
        artifacts=artifacts,
        plan_id=history.started.plan_id,
        provenance_id=provenance_id(entries[0]),
        digest=history.digest(order),
    )


def check_run(log: Iterable[tuple[Entry, StoredEvent]], load: Load) -> None:
    """Check a log and every artifact it references, without returning them. Raises what `gather` raises."""
    check = LogCheck(load)
    for _ in _checked(log, load, check):
        pass
    check.end()


def _checked(
    log: Iterable[tuple[Entry, StoredEvent]], load: Load, check: LogCheck
) -> Iterator[tuple[Entry, StoredEvent, list[tuple[str, ArtifactKind]]]]:
    """Yield each entry of a log with the artifacts it references, checked."""
    walked: Walked = {}
    known: set[tuple[str, str]] = set()
    for entry, stored in log:
        check.add(entry)
        yield entry, stored, list(sound_parts(entry, load, walked, known, check.context_format))


def sound_parts(
    entry: Entry,
    load: Load,
    walked: Walked,
    known: set[tuple[str, str]],
    context_format: int | None = None,
) -> Iterator[tuple[str, ArtifactKind]]:
    """Yield checked artifacts of an entry that are not in `known` or `walked`, which are both extended."""
    for part in led_to(entry, load, walked):
        if part not in known:
            known.add(part)
            if part[1] is not ArtifactKind.CONTEXT_SNAPSHOT:  # it was read to be opened
                check_content(*part, load, context_format)
            yield part


def led_to(entry: Entry, load: Load, walked: Walked) -> Iterator[tuple[str, ArtifactKind]]:
    """Yield every artifact that an entry references; nodes of snapshots only once: `walked` has those before."""
    for artifact_id, kind in named(entry):
        yield artifact_id, kind
        if kind is ArtifactKind.OUTPUT_PIECES:
            for piece_id in piece_ids(artifact_id, load(artifact_id)):
                yield piece_id, ArtifactKind.OUTPUT_PIECE
    for snapshot_id in snapshots(entry.event):
        yield from snapshot_parts(snapshot_id, load, walked)
    for shared in shared_entries(entry, load):
        yield from led_to(shared, load, walked)


def shared_entries(entry: Entry, load: Load) -> Sequence[Entry]:
    """Return the entries of the shared past that a fork's first entry names, an empty sequence for any other."""
    past_id = shared_past_id(entry)
    return () if past_id is None else SharedPast.from_bytes(load(past_id), load).entries


def named(entry: Entry) -> Iterator[tuple[str, ArtifactKind]]:
    """Yield the artifacts that an entry names directly, except snapshots, with their kinds."""
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
        case EffectIntended() | WaitBegun():
            yield event.request_digest, ArtifactKind.FACT_REQUEST
        case DomainEventRecorded() if event.payload_ref is not None:
            yield event.payload_ref, ArtifactKind.DOMAIN_PAYLOAD
        case DomainEventRecorded() if (output := output_of(event)) is not None:
            yield output.artifact_id, ArtifactKind(output.stored)
        case StateCompleted() if event.next_input_id is not None:
            yield event.next_input_id, ArtifactKind.NEXT_INPUT
        case _:
            return


def seals_of(recording: Recording) -> list[str]:
    """Return the ids of the seals of a run's facts, in order, each once."""
    entries = [
        each
        for entry in recording.entries
        for each in (entry, *shared_entries(entry, lambda artifact_id: recording.artifacts[artifact_id][1]))
    ]
    found = (seal for entry in entries for seal in seals_beside(entry))
    return list(dict.fromkeys(seal for seal in found if seal not in recording.artifacts))


def seals_beside(entry: Entry) -> list[str]:
    """Return the seals of an entry's fact; they may be absent."""
    if not isinstance(entry.event, FactRecorded):
        return []
    found = (entry.info.get(name) for name in (REQUEST_SECRETS, SECRET_PAYLOAD))
    return [seal for seal in found if isinstance(seal, str)]


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
    snapshot_id: str, load: Load, walked: Walked | None = None
) -> Iterator[tuple[str, ArtifactKind]]:
    """Yield every artifact of a snapshot: each node before its children, each list of chunks before these.

    Nodes in `walked` are skipped, and it is extended. Raises what `load` raises, and `CorruptionError` for
    bytes that are not a node.
    """
    walked = {} if walked is None else walked
    if ("", snapshot_id) in walked:
        return
    for artifact_id, kind in Snapshot.open(snapshot_id, load).parts(walked):
        yield artifact_id, kind
        if kind is ArtifactKind.CONTEXT_CHUNKS:
            for chunk_id in chunk_ids(artifact_id, load(artifact_id)):
                yield chunk_id, ArtifactKind.CONTEXT_CHUNK
