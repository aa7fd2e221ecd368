"""Bundles: a whole run in one portable file, out of a store and into one.

A bundle is checked to its end before anything of it is stored, and then stored in one append: all of it or nothing.
Reading one executes nothing, and writes nowhere.
"""

from __future__ import annotations

import os
from typing import Self

import attrs

from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.errors import BundleError, Code, ConcurrencyError
from machine.recordings.bundle_reader import read_bundle
from machine.recordings.bundle_secrets import adding_key, unlocked_key, with_secrets
from machine.recordings.bundle_writer import compressed, joined, write_bundle
from machine.recordings.run_artifacts import Recording, gather
from machine.secrets.bundle_key import BundleKey
from machine.secrets.sealing import DataKey
from machine.stores.base import Store
from machine.stores.memory import MemoryStore

__all__ = [
    "Bundle",
    "export_run",
    "import_bundle",
    "open_bundle",
    "read_bundle",
    "store_recording",
    "write_bundle",
]


@attrs.frozen
class Bundle:
    """A run read from a bundle: `store` is in memory and holds just that run."""

    run_id: str
    store: Store

    def close(self) -> None:
        """Release the store; twice is harmless."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# -- out of a store ------------------------------------------------------------------------------------------


@with_default_store()
def export_run(
    run_id: str,
    path: str | os.PathLike[str] | None = None,
    *,
    store: Store = DEFAULT_STORE,
    gzip: bool = False,
    secrets: BundleKey | None = None,
) -> bytes:
    """Return a run as the bytes of a bundle and, given a path, make them the whole content of that file.

    The same run gives the same bytes, whichever store it is in; `gzip` compresses them. A run that has not ended is
    exported as far as it went. A file that was there is replaced at once, or after an error left as it was.
    Its secrets are left out, unless there is a key for them: then whoever has it can read them.

    Raises `NotFoundError`; `LogError`, `CorruptionError` or `PlanError` for a run that is damaged; and
    `BundleError` with
    `bundle_too_large` or `bundle_not_written`. With `secrets`, `SecretKeyError` besides; `UsageError` when the key
    that sealed them is gone; and `SealError`.
    """
    run_reader.require_run(store, run_id)
    recording = gather(run_reader.entries(store, run_id), store.get)
    if secrets is not None:
        recording = with_secrets(recording, store, secrets)
    data = joined(recording)
    if gzip:
        data = compressed(data)
    if path is not None:
        write_bundle(path, data)
    return data


# -- out of a file -------------------------------------------------------------------------------------------


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Return the run of a bundle, plain or compressed, checked to its end, in a store of its own in memory.

    Raises `BundleError` with `bundle_not_found`, `bundle_invalid`, `bundle_truncated`, `bundle_newer_format` or
    `bundle_too_large`.
    """
    recording = read_bundle(path)
    store = MemoryStore()
    store.url = os.fspath(path)
    store_recording(recording, store=store, path=store.url)
    return Bundle(recording.run_id, store)


@with_default_store(create=True)
def import_bundle(
    path: str | os.PathLike[str], *, store: Store = DEFAULT_STORE, secrets: BundleKey | None = None
) -> str:
    """Check a bundle to its end, store its run in one append under its own id, and return that id.

    `secrets` opens those that the bundle carries, which are then kept under the key of this store. Importing a run
    that is there already changes nothing, but that it has its secrets then.

    Raises what `open_bundle` raises; `BundleError` with `bundle_key_needed`, `bundle_key_wrong`, or with
    `bundle_conflict` when the store has another log under that id, or the run's invocation key under another; and
    what `Store.append` raises.
    """
    recording = read_bundle(path)
    data_key = unlocked_key(recording, secrets, os.fspath(path))
    store_recording(recording, store=store, path=os.fspath(path), data_key=data_key)
    return recording.run_id


def store_recording(
    recording: Recording, *, store: Store, path: str, data_key: DataKey | None = None
) -> bool:
    """Append a whole run that was read from `path`, and its secrets if there is a key for them.

    Returns False when the run is there already.
    """
    seals = [] if data_key is None else list(recording.seals.values())
    if _is_there(recording, store, path):
        with adding_key(store, recording.run_id, data_key):
            store.append(recording.run_id, len(recording.log), [], seals)
        return False
    try:
        with adding_key(store, recording.run_id, data_key):
            store.append(recording.run_id, 0, recording.log, [*recording.artifacts.values(), *seals])
    except ConcurrencyError as exc:
        if exc.code == Code.INVOCATION_TAKEN:
            raise BundleError(
                f"{exc.message}: an invocation key belongs to one run",
                path=path,
                code=Code.BUNDLE_CONFLICT,
                hint="import it into another store",
            ) from exc
        if _is_there(recording, store, path):  # another process has just imported it
            return False
        raise
    return True


def _is_there(recording: Recording, store: Store, path: str) -> bool:
    head = store.head(recording.run_id)
    if head.seq == 0:
        return False
    mine = len(recording.log)
    if (head.seq, head.chain) == (mine, recording.chain):
        return True
    shared = min(head.seq, mine)
    (stored,) = store.read_range(recording.run_id, shared, shared)
    if stored.chain == recording.log[shared - 1].chain:
        which = "goes on" if head.seq > mine else "ends earlier"
        text = f"run {recording.run_id} is in {store.url} already and {which} there: {head.seq} events, here {mine}"
    else:
        text = f"{store.url} has another log of run {recording.run_id}"
    raise BundleError(
        text, path=path, code=Code.BUNDLE_CONFLICT, hint="nothing was written; import it into another store"
    )
