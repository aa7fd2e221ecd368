"""Reading a run back: its entries with the chain checked, its manifest, its provenance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeVar

from machine import canonical, codec
from machine.config import BuildProvenance, RunManifest
from machine.engine.checking import LogCheck, provenance_id
from machine.errors import Code, CodecError, Corruption, LogError, NotFound
from machine.events import Entry, RunStarted, chain_next
from machine.kernel.history import History
from machine.stores.base import ZERO_CHAIN, Store, StoredEvent

_T = TypeVar("_T")

_SEQ: Final = re.compile("[0-9]{1,16}")

__all__ = [
    "checked",
    "entries",
    "first_entry",
    "folded",
    "manifest_of",
    "parent_of",
    "provenance_of",
    "require_run",
]


def require_run(store: Store, run_id: str) -> None:
    """Raise `NotFound` (`run_not_found`) unless the store has the run."""
    if not store.run_exists(run_id):
        raise NotFound(f"there is no run {run_id} in {store.url}", code=Code.RUN_NOT_FOUND)


def entries(store: Store, run_id: str, to_seq: int | None = None) -> Iterator[tuple[Entry, StoredEvent]]:
    """Yield a run's entries in order with their stored form.

    Raises `LogError`: `log_broken_chain` naming the first event whose bytes are not those that were appended,
    `log_seq_gap`, `log_bad_event`, `log_wrong_run`.
    """
    chain, expected = ZERO_CHAIN, 1
    for stored in store.read_range(run_id, 1, to_seq):
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
    """Yield a run's entries as `entries` does, each after `check` has taken it in. Raises what that raises too."""
    for entry, stored in entries(store, run_id, to_seq):
        check.add(entry)
        yield entry, stored


def folded(store: Store, run_id: str) -> tuple[History, bytes]:
    """Return what the whole log of a run says, and its last chain value.

    Raises `NotFound`, and what `LogCheck` raises for a log that breaks a rule.
    """
    first_entry(store, run_id)
    check, chain = LogCheck(store.get), ZERO_CHAIN
    for _, stored in checked(store, run_id, check):
        chain = stored.chain
    return check.history, chain


def first_entry(store: Store, run_id: str) -> tuple[Entry, RunStarted]:
    """Return a run's first entry, which is its `run_started`. Raises `NotFound` or `LogError`."""
    require_run(store, run_id)
    for entry, _ in entries(store, run_id, 1):
        if isinstance(entry.event, RunStarted):
            return entry, entry.event
    raise LogError(1, "the log does not begin with run_started", code=Code.LOG_FIRST_EVENT)


def manifest_of(store: Store, started: RunStarted) -> RunManifest:
    """Return the manifest a run was started with. Raises `Corruption` when it is none."""
    return _artifact(store, started.manifest_id, RunManifest)


def provenance_of(store: Store, entry: Entry) -> BuildProvenance | None:
    """Return the provenance noted at a run's first entry, None when none was.

    Raises `NotFound` or `Corruption` when it was and is not there any more.
    """
    artifact_id = provenance_id(entry)
    return None if artifact_id is None else _artifact(store, artifact_id, BuildProvenance)


def parent_of(entry: Entry) -> tuple[str, int] | None:
    """Return the run that a run was forked from, and the last event they share; None when it was not forked."""
    run_id, seq = entry.info.get("parent_run_id"), entry.info.get("parent_seq")
    if not isinstance(run_id, str) or not isinstance(seq, str) or not _SEQ.fullmatch(seq):
        return None
    return run_id, int(seq)


def _artifact(store: Store, artifact_id: str, kind: type[_T]) -> _T:
    try:
        return codec.from_json(canonical.decode(store.get(artifact_id)), kind)
    except CodecError as exc:
        raise Corruption(f"artifact {artifact_id}: {exc}", code=Code.ARTIFACT_CORRUPT) from exc
