"""Reading of a run: its entries with the chain checked, its manifest, its provenance, or all of it at once.

Nothing here judges a run, and nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import attrs

from machine import canonical, codec
from machine.config import BuildProvenance, RunManifest
from machine.engine.log_check import LogCheck, manifest_in, provenance_id, value_in
from machine.envelope import chain_next
from machine.errors import Code, LogError, NotFoundError
from machine.events import (
    DomainEventRecorded,
    EffectIntended,
    Entry,
    FactError,
    FactRecorded,
    RunCompleted,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
)
from machine.kernel.history import History
from machine.kernel.linearize import without_suspensions
from machine.kernel.run_index import RunRow
from machine.kernel.run_status import FINAL_STATUSES
from machine.kernel.snapshot import Snapshot
from machine.plan import Graph
from machine.stores.base import ZERO_CHAIN, Store, StoredEvent

_SEQ: Final = re.compile("[0-9]{1,16}")


def require_run(store: Store, run_id: str) -> None:
    """Raise `NotFoundError` (`run_not_found`) unless the store has the run."""
    if not store.run_exists(run_id):
        raise NotFoundError(f"there is no run {run_id} in {store.url}", code=Code.RUN_NOT_FOUND)


def entries(
    store: Store, run_id: str, to_seq: int | None = None, *, after: StoredEvent | None = None
) -> Iterator[tuple[Entry, StoredEvent]]:
    """Yield a run's entries in order with their stored form; with `after`, those that follow that one.

    Raises `LogError`: `log_broken_chain` naming the first event whose bytes are not those that were appended,
    `log_seq_gap`, `log_bad_event`, `log_wrong_run`.
    """
    chain, expected = (ZERO_CHAIN, 1) if after is None else (after.chain, after.seq + 1)
    for stored in store.read_range(run_id, expected, to_seq):
        if stored.seq != expected:
            raise LogError(stored.seq, f"event {expected} is missing before it", code=Code.LOG_SEQ_GAP)
        chain = chain_next(chain, stored.data)
        if chain != stored.chain:
            raise LogError(stored.seq, "its bytes do not fit the chain", code=Code.LOG_BROKEN_CHAIN)
        entry = codec.decode_entry(stored.seq, stored.data)
        if entry.run_id != run_id:
            raise LogError(stored.seq, f"it belongs to run {entry.run_id!r}", code=Code.LOG_WRONG_RUN)
        yield entry, stored
        expected += 1


def checked(
    store: Store, run_id: str, check: LogCheck, to_seq: int | None = None
) -> Iterator[tuple[Entry, StoredEvent]]:
    """Yield a run's entries as `entries` does, each after `check` has checked it. Raises what that raises too."""
    for entry, stored in entries(store, run_id, to_seq):
        check.add(entry)
        yield entry, stored


def folded(store: Store, run_id: str, plan: Graph | None = None) -> tuple[History, bytes]:
    """Return the history of a run's whole log, and its last chain value; `plan` is as in `LogCheck`.

    Raises `NotFoundError`, and what `LogCheck` raises for a log that breaks a rule.
    """
    first_entry(store, run_id)
    check, chain = LogCheck(store.get, plan=plan), ZERO_CHAIN
    for _, stored in checked(store, run_id, check):
        chain = stored.chain
    return check.history, chain


def first_entry(store: Store, run_id: str) -> tuple[Entry, RunStarted]:
    """Return a run's first entry, which is its `run_started`. Raises `NotFoundError` or `LogError`."""
    require_run(store, run_id)
    for entry, _ in entries(store, run_id, 1):
        if isinstance(entry.event, RunStarted):
            return entry, entry.event
    raise LogError(1, "the log does not begin with run_started", code=Code.LOG_FIRST_EVENT)


def manifest_of(store: Store, started: RunStarted) -> RunManifest:
    """Return the manifest a run was started with.

    Raises `CorruptionError` when it is invalid, and `OtherStoreError` when a newer version wrote it.
    """
    return manifest_in(started.manifest_id, store.get)


def provenance_of(store: Store, entry: Entry) -> BuildProvenance | None:
    """Return the provenance recorded in a run's first entry, or None.

    Raises `NotFoundError` or `CorruptionError` when it was recorded and is missing or damaged.
    """
    artifact_id = provenance_id(entry)
    return None if artifact_id is None else value_in(artifact_id, store.get, BuildProvenance)


def parent_of(entry: Entry) -> tuple[str, int] | None:
    """Return the run that a run was forked from, and the last event they share; None when it was not forked."""
    run_id, seq = entry.info.get("parent_run_id"), entry.info.get("parent_seq")
    if not isinstance(run_id, str) or not isinstance(seq, str) or not _SEQ.fullmatch(seq):
        return None
    return run_id, int(seq)


def skipped_in(store: Store, row: RunRow) -> int:
    """Return how many states a run that has ended went on without, because they had failed; else 0."""
    if row.status not in FINAL_STATUSES:
        return 0
    (stored,) = store.read_range(row.run_id, row.head_seq, row.head_seq)
    event = codec.decode_entry(stored.seq, stored.data).event
    return (event.skipped or 0) if isinstance(event, RunCompleted) else 0


def lane_of(entry: Entry) -> str:
    """Return the state that an entry belongs to, empty for the run itself."""
    return str(getattr(entry.event, "state_id", ""))


@attrs.define
class StateTimes:
    """The seconds that a state's attempts took, the number of their facts, and the trace of the last one."""

    ms: int = 0
    facts: int = 0
    trace: str | None = None


@attrs.frozen(eq=False)
class PastRun:
    """A recorded run: `order` is that of the plan it used last."""

    run_id: str
    store: Store
    entries: Sequence[Entry]
    history: History
    order: tuple[str, ...]

    @classmethod
    def read(cls, run_id: str, store: Store) -> PastRun:
        """Read a run. Raises `NotFoundError`, and `LogError` or `CorruptionError` when it cannot be trusted."""
        first_entry(store, run_id)
        check = LogCheck(store.get)
        entries = [entry for entry, _ in checked(store, run_id, check)]
        return cls(run_id, store, entries, check.history, check.end())

    def in_one_piece(self) -> PastRun:
        """Return this run with every attempt that was suspended and went on as one."""
        return attrs.evolve(self, entries=without_suspensions(self.entries))

    @property
    def started(self) -> RunStarted:
        """The first event."""
        assert self.history.started is not None
        return self.history.started

    @cached_property
    def lanes(self) -> Mapping[str, Sequence[Entry]]:
        """The entries of each state, and of the run itself under the empty name."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(lane_of(entry), []).append(entry)
        return found

    @cached_property
    def times(self) -> Mapping[str, StateTimes]:
        """Details of each state that was entered, which the history does not have."""
        times: dict[str, StateTimes] = {}
        since: dict[str, int] = {}
        for entry in self.entries:
            event = entry.event
            if isinstance(event, StateEntered):
                since[event.state_id] = entry.ts_millis
                times.setdefault(event.state_id, StateTimes())
            elif isinstance(event, FactRecorded):
                times[event.state_id].facts += 1
            elif isinstance(event, StateCompleted | StateFailed):
                state = times[event.state_id]
                if not isinstance(event, StateFailed) or event.error.code != Code.ORPHAN_ATTEMPT_RECOVERED:
                    # of one recovered, nobody knows how long it ran
                    state.ms += max(entry.ts_millis - since[event.state_id], 0)
                trace = entry.info.get("trace")
                state.trace = trace if isinstance(trace, str) else None
        return times

    @cached_property
    def manifest(self) -> RunManifest:
        """The manifest: the run's plan, input and configuration."""
        return manifest_of(self.store, self.started)

    @cached_property
    def provenance(self) -> BuildProvenance | None:
        """The build the run was made by, or None when it was not recorded."""
        return provenance_of(self.store, self.entries[0])

    @property
    def digest(self) -> str:
        """The digest, which identifies everything the run did."""
        return self.history.digest(self.order)

    def json(self, artifact_id: str) -> Any:
        """Return the JSON value of an artifact. Raises `CorruptionError` when it is not JSON."""
        return canonical.decode_stored(artifact_id, self.store.get(artifact_id))

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return the context that a snapshot id names."""
        return Snapshot.open(snapshot_id, self.store.get)

    def call(self, fact: FactRecorded) -> dict[str, Any]:
        """Return the request and the outcome of a recorded call."""
        outcome = fact.outcome
        came = (
            {"error": codec.to_json(outcome.error)}
            if isinstance(outcome, FactError)
            else {"response": self.json(outcome.payload_id)}
        )
        return {"namespace": fact.namespace, "request": self.json(fact.request_digest), **came}

    def shown(self, entry: Entry) -> dict[str, Any]:
        """Return an event as a JSON object with the artifacts in place of their ids."""
        match entry.event:
            case RunStarted() as event:
                manifest = codec.to_json(self.manifest)
                return {"type": event.type, "plan_id": event.plan_id, **manifest}
            case StateEntered() as event:
                context = self.snapshot(event.base_snapshot_id).to_dict()
                return {"type": event.type, "attempt": event.attempt, "context": context}
            case StateCompleted() as event:
                given = event.next_input_id
                goes_on = {} if given is None else {"next_run": self.json(given)}
                context = self.snapshot(event.context_snapshot_id).to_dict()
                return {"type": event.type, "context": context, **goes_on}
            case FactRecorded() as event:
                return {"type": event.type, "attempt": event.attempt, **self.call(event)}
            case EffectIntended() as event:
                request = self.json(event.request_digest)
                return {**codec.event_to_json(event), "request": request}
            case DomainEventRecorded() as event:
                return {"type": event.type, "attempt": event.attempt, "name": event.name, **self.said(event)}
            case event:
                return codec.event_to_json(event)

    def said(self, event: DomainEventRecorded) -> dict[str, Any]:
        """Return the payload of a domain event, whether inline or an artifact."""
        payload = event.payload if event.payload_ref is None else self.json(event.payload_ref)
        return {"payload": payload}
