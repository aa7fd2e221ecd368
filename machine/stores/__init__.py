"""Storage of runs: the contract of a store, the stores that implement it, and opening one by its URL."""

from __future__ import annotations

from machine.events import Artifact, ArtifactKind
from machine.stores.base import (
    MAX_ARTIFACT_BYTES,
    ZERO_CHAIN,
    CommitLimits,
    Head,
    Message,
    RunPage,
    Store,
    StoredEvent,
)
from machine.stores.lease import HeldLease, Lease
from machine.stores.memory import MemoryStore
from machine.stores.open_url import open_store
from machine.stores.sqlite import SqliteStore

__all__ = [
    "MAX_ARTIFACT_BYTES",
    "ZERO_CHAIN",
    "Artifact",
    "ArtifactKind",
    "CommitLimits",
    "Head",
    "HeldLease",
    "Lease",
    "MemoryStore",
    "Message",
    "RunPage",
    "SqliteStore",
    "Store",
    "StoredEvent",
    "open_store",
]
