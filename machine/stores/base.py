"""The contract every store keeps, and nothing of how one keeps it.

Promises, held by `machine.testing.StoreConformance` for every backend: **durability** (durable when `append`
returns), **ordering** (strict per run), **immutability** (never modified, never deleted), **authority**
(everything else, the index included, can be rebuilt from the log).

A store never interprets a log. The one thing it keeps beside it, the index, is computed by `kernel.index`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol, Self, runtime_checkable

import attrs

from machine.events import ArtifactKind
from machine.kernel.index import RunRow

__all__ = [
    "MAX_ARTIFACT_BYTES",
    "ZERO_CHAIN",
    "Artifact",
    "ArtifactKind",
    "Head",
    "RunPage",
    "Store",
    "StoredEvent",
]

MAX_ARTIFACT_BYTES: Final = 512 * 1024 * 1024
"""The largest artifact a store takes, in bytes."""

ZERO_CHAIN: Final = bytes(32)
"""The chain value before the first event."""


@attrs.frozen
class StoredEvent:
    """One entry of a log as it is kept: canonical envelope bytes, and the chain value over all up to here."""

    seq: int
    data: bytes
    chain: bytes


@attrs.frozen
class Artifact:
    """Immutable bytes on their way into a store. `id` is the BLAKE3-256 of `data`, `kind` an `ArtifactKind`.

    `append` trusts the id it is given; `get` does not.
    """

    id: str
    kind: str
    data: bytes


@attrs.frozen
class Head:
    """Where a log ends: the last seq (0 when empty) and its chain value (`ZERO_CHAIN` when empty)."""

    seq: int
    chain: bytes


@attrs.frozen
class RunPage:
    """Some rows of the index, newest first; `cursor` continues after them, None at the end."""

    rows: Sequence[RunRow]
    cursor: str | None


@runtime_checkable
class Store(Protocol):
    """An event store, an artifact store and a run index behind one handle; safe to use from several threads.

    Every method may raise `StoreError`; a closed store raises `StoreOther` with code `store_closed`.
    """

    url: str
    """What `open_store` was given, normalised."""

    write_behind: bool
    """True when a commit takes long enough that a run gains by going on while it happens."""

    def head(self, run_id: str) -> Head:
        """Return where the run's log ends; `Head(0, ZERO_CHAIN)` for a run that has no events."""
        ...

    def head_seq(self, run_id: str) -> int:
        """Return the seq of the run's last event; 0 for a run that has no events."""
        ...

    def append(
        self,
        run_id: str,
        expected_seq: int,
        events: Sequence[StoredEvent],
        artifacts: Sequence[Artifact] = (),
    ) -> None:
        """Write artifacts and events, all or none, durable on return. Either may be empty.

        Raises `Concurrency` when the head is not `expected_seq` (nothing is written), `StoreOther` with code
        `store_full`, `store_busy` or `store_failed` when the medium refuses (nothing is written), and
        `UsageError` or `IdError` when the seqs do not continue `expected_seq` without a gap, or an id or a
        type is wrong. An artifact already there is left as it is; the ids of new ones are trusted.
        """
        ...

    def read_range(self, run_id: str, from_seq: int = 1, to_seq: int | None = None) -> Iterator[StoredEvent]:
        """Yield the events from `from_seq` to `to_seq`, both included, in order.

        The log is read as it stood at the call, whatever is appended meanwhile; no lock is held in between,
        so a reader that pauses stops nobody.
        """
        ...

    def put(self, kind: str, data: bytes) -> str:
        """Store bytes and return their id; storing the same bytes again changes nothing."""
        ...

    def get(self, artifact_id: str) -> bytes:
        """Return an artifact's bytes, re-hashed. Raises `NotFound`, or `Corruption` when the hash differs."""
        ...

    def kind(self, artifact_id: str) -> str:
        """Return the kind an artifact was first stored under. Raises `NotFound`."""
        ...

    def exists(self, artifact_id: str) -> bool:
        """Say whether the artifact is there; its bytes are not looked at."""
        ...

    def list_runs(
        self,
        *,
        status: str | None = None,
        op: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Return rows of the index, newest first, filtered by status and op id.

        `cursor` is that of the page before. Raises `UsageError` for a limit below 1 or another cursor.
        """
        ...

    def run_row(self, run_id: str) -> RunRow:
        """Return one run's row of the index. Raises `NotFound`."""
        ...

    def run_exists(self, run_id: str) -> bool:
        """Say whether the run has any event."""
        ...

    def count_events(self, run_id: str) -> int:
        """Count the run's events; 0 for an unknown run."""
        ...

    def latest_seq(self, run_id: str) -> int:
        """Return the run's head seq; 0 for an unknown run."""
        ...

    def find_runs(self, prefix: str, limit: int = 10) -> list[str]:
        """Return ids of runs that begin with `prefix`, newest first.

        Raises `UsageError` for a limit below 1.
        """
        ...

    def integrity_problems(self) -> list[str]:
        """Check the medium below the log (file structure, index) and say what is wrong; empty when sound."""
        ...

    def close(self) -> None:
        """Release the store; twice is harmless."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> Any: ...
