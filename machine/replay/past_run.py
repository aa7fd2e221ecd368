"""One recorded run, read whole, for those that look at it: its entries, what they say, and what they name.

Nothing here judges a run, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from machine import canonical, codec
from machine.config import BuildProvenance, RunManifest
from machine.engine import reading
from machine.engine.checking import LogCheck
from machine.events import (
    DomainEventRecorded,
    EffectIntended,
    Entry,
    FactError,
    FactRecorded,
    RunStarted,
    StateCompleted,
    StateEntered,
)
from machine.kernel.history import History
from machine.kernel.snapshot import Snapshot
from machine.stores.base import Store

__all__ = ["PastRun", "lane_of"]


def lane_of(entry: Entry) -> str:
    """Return the state that an entry belongs to, empty for the run itself."""
    return str(getattr(entry.event, "state_id", ""))


@attrs.frozen(eq=False)
class PastRun:
    """A run as its log tells it: `order` is that of the plan it went by last."""

    run_id: str
    store: Store
    entries: Sequence[Entry]
    history: History
    order: tuple[str, ...]

    @classmethod
    def read(cls, run_id: str, store: Store) -> PastRun:
        """Read a run. Raises `NotFound`, and `LogError` or `Corruption` when it cannot be trusted."""
        reading.first_entry(store, run_id)
        check = LogCheck(store.get)
        entries = [entry for entry, _ in reading.checked(store, run_id, check)]
        return cls(run_id, store, entries, check.history, check.end())

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
    def manifest(self) -> RunManifest:
        """What the run was asked to do."""
        return reading.manifest_of(self.store, self.started)

    @cached_property
    def provenance(self) -> BuildProvenance | None:
        """What the run was built from, None when nobody noted it."""
        return reading.provenance_of(self.store, self.entries[0])

    @property
    def digest(self) -> str:
        """What identifies everything the run did."""
        return self.history.digest(self.order)

    def json(self, artifact_id: str) -> Any:
        """Return the JSON value of an artifact. Raises `Corruption` when it is none."""
        return canonical.decode_stored(artifact_id, self.store.get(artifact_id))

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return the context that a snapshot id names."""
        return Snapshot.open(snapshot_id, self.store.get)

    def call(self, fact: FactRecorded) -> dict[str, Any]:
        """Return what was asked of the outside and what came of it."""
        outcome = fact.outcome
        came = (
            {"error": codec.to_json(outcome.error)}
            if isinstance(outcome, FactError)
            else {"response": self.json(outcome.payload_id)}
        )
        return {"namespace": fact.namespace, "request": self.json(fact.request_digest), **came}

    def shown(self, entry: Entry) -> dict[str, Any]:
        """Return an event as a JSON object in which artifacts stand where the log has their ids."""
        match entry.event:
            case RunStarted() as event:
                manifest = codec.to_json(self.manifest)
                return {"type": event.type, "plan_id": event.plan_id, **manifest}
            case StateEntered() as event:
                context = self.snapshot(event.base_snapshot_id).to_dict()
                return {"type": event.type, "attempt": event.attempt, "context": context}
            case StateCompleted() as event:
                return {"type": event.type, "context": self.snapshot(event.context_snapshot_id).to_dict()}
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
        """Return the payload of a domain event, wherever it is kept."""
        payload = event.payload if event.payload_ref is None else self.json(event.payload_ref)
        return {"payload": payload}
