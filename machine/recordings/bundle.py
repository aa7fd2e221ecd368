"""Bundles: export a whole run from a store into one portable file, and import it.

A bundle is checked to its end before any of it is stored, and then its log is stored in one append, completely or
not at all. Reading a bundle executes nothing and writes nothing.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import attrs

from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.deliver import Inbox
from machine.engine.moved_runs import IMPORTED, MOVED, mark_moved
from machine.engine.run_keeper import Keeper
from machine.errors import BundleError, Code, ConcurrencyError, UsageError
from machine.events import Artifact
from machine.kernel.history import History
from machine.kernel.run_index import advance
from machine.kernel.run_status import RunStatus
from machine.recordings.bundle_reader import is_readable, read_bundle
from machine.recordings.bundle_secrets import adding_key, unlocked_key, with_secrets
from machine.recordings.bundle_writer import pieces, write_bundle
from machine.recordings.run_contents import Recording, gather
from machine.secrets.bundle_key import BundleKey
from machine.secrets.sealing import DataKey
from machine.stores.argument_checks import invocation_taken
from machine.stores.base import Store
from machine.stores.memory import MemoryStore

_BATCH: Final = 16 * 1024 * 1024
"""The bytes of artifacts that are stored in one append; what a killed import leaves is named by no log."""


@attrs.frozen
class Bundle:
    """A run read from a bundle; `store` is in memory and holds only that run."""

    run_id: str
    store: Store

    def close(self) -> None:
        """Release the store; closing twice is harmless."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# -- export --------------------------------------------------------------------------------------------------


@with_default_store()
def export_run(
    run_id: str,
    path: str | os.PathLike[str] | None = None,
    *,
    store: Store = DEFAULT_STORE,
    gzip: bool = False,
    readable: bool = False,
    secrets: BundleKey | None = None,
) -> bytes:
    """Return a run as the bytes of a bundle and, given a path, write them to that file.

    The same run gives the same bytes, whichever store it is in; `gzip` compresses them. An unfinished run is
    exported as far as it went. An existing file is replaced atomically; after an error it is unchanged. Secrets
    are omitted unless a key for them is given: then whoever has that key can read them. `readable` gives the
    version that people review (docs/bundle-format.md), which has no secrets, and the time of the start alone.

    Raises `NotFoundError`; `LogError`, `CorruptionError` or `PlanError` for a damaged run; and `BundleError`
    with `bundle_too_large`, `bundle_not_readable` or `bundle_not_written`. With `secrets` it also raises
    `SecretKeyError`; `UsageError` when the key that sealed them is gone; and `SealError`.
    """
    data = b"".join(_exported(run_id, store, gzip=gzip, readable=readable, secrets=secrets))
    if path is not None:
        write_bundle(path, [data])
    return data


def export_to(
    run_id: str,
    path: str | os.PathLike[str],
    *,
    store: Store,
    gzip: bool = False,
    readable: bool = False,
    secrets: BundleKey | None = None,
) -> None:
    """Write a run to a file as `export_run` does, without ever having the whole bundle in memory."""
    write_bundle(path, _exported(run_id, store, gzip=gzip, readable=readable, secrets=secrets))


def _exported(
    run_id: str, store: Store, *, gzip: bool, readable: bool, secrets: BundleKey | None
) -> Iterator[bytes]:
    if readable and secrets is not None:
        raise UsageError("a readable bundle has no secrets", hint="leave out one of the two")
    run_reader.require_run(store, run_id)
    recording = gather(run_reader.entries(store, run_id), store.get)
    if recording.waits and not recording.ended:
        recording = attrs.evolve(recording, messages=tuple(store.inbox(run_id)))
    if secrets is not None:
        recording = with_secrets(recording, store, secrets)
    return pieces(recording, gzip=gzip, readable=readable)


def convert_bundle(path: str | os.PathLike[str]) -> bool:
    """Write a bundle of version 1 anew in version 2, which people review, with the same digest, atomically.

    Returns False for one that is of version 2 already. Raises what `open_bundle` raises; `BundleError` with
    `bundle_not_readable` for a run that version 2 cannot hold, and `bundle_not_written`.
    """
    path = os.fspath(path)
    recording = read_bundle(path)
    if is_readable(path):
        return False
    if recording.lock is not None:
        raise BundleError(
            "it has secrets, and a bundle of version 2 has none", path=path, code=Code.BUNDLE_NOT_READABLE
        )
    write_bundle(path, pieces(recording, gzip=path.endswith(".gz"), readable=True))
    return True


# -- import --------------------------------------------------------------------------------------------------


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Return the run of a bundle, plain or compressed, after a full check, in an in-memory store of its own.

    Raises `BundleError` with `bundle_not_found`, `bundle_invalid`, `bundle_truncated`, `bundle_newer_format` or
    `bundle_too_large`.
    """
    recording = read_bundle(path)
    store = MemoryStore(artifacts=ChainMap({}, recording.artifacts))  # type: ignore[arg-type]  # only the first map is written
    store.url = os.fspath(path)
    store_recording(recording, store=store, path=store.url)
    return Bundle(recording.run_id, store)


@with_default_store(create=True)
def import_bundle(
    path: str | os.PathLike[str],
    *,
    store: Store = DEFAULT_STORE,
    secrets: BundleKey | None = None,
    take_over: bool = False,
    source: Store | None = None,
) -> str:
    """Check a bundle to its end, store its run under its own id, completely or not at all, and return that id.

    `secrets` opens the sealed secrets of the bundle, which are then stored under the key of this store.
    Importing a run that already exists changes nothing, except that its secrets are added. A run that waits is
    imported to go on here (`take_over`); in `source`, the store that it comes from, it is then marked as moved, and
    is driven there no longer. Without `source` nobody must drive it there.

    Raises what `open_bundle` raises; `BundleError` with `bundle_key_needed` or `bundle_key_wrong`, with
    `bundle_waits` for a run that waits without `take_over`, or with `bundle_conflict` when the run has gone on in
    `source`, or the store has another log under that id, or the run's invocation key under another id; and what
    `Store.append` and the lease of the run in `source` raise.
    """
    recording = read_bundle(path)
    data_key = unlocked_key(recording, secrets, os.fspath(path))
    with taking_over(recording, os.fspath(path), store, source, take_over=take_over):
        store_recording(recording, store=store, path=os.fspath(path), data_key=data_key)
    return recording.run_id


@contextmanager
def taking_over(
    recording: Recording, path: str, store: Store, source: Store | None, *, take_over: bool
) -> Iterator[None]:
    """Import a run within this context: one that waits is first marked as moved where it comes from.

    Raises `BundleError` (`bundle_waits`, `bundle_conflict`) and what `Keeper` raises.
    """
    run_id = recording.run_id
    if not take_over and recording.waits and not recording.ended:
        raise BundleError(
            f"run {run_id} waits, and could be driven here and where it comes from: its effects would happen twice",
            path=path,
            code=Code.BUNDLE_WAITS,
            hint="nothing was written; --take-over moves it here, and --fork makes another run of it",
        )
    if source is None:
        yield
        return
    with Keeper(source, run_id):
        there = source.head(run_id)
        if (there.seq, there.chain) != (len(recording.log), recording.chain) or len(
            [message for message in source.inbox(run_id) if message.kind != MOVED]
        ) != len([message for message in recording.messages if message.kind != MOVED]):
            raise BundleError(
                f"run {run_id} has gone on in {source.url} since it was exported",
                path=path,
                code=Code.BUNDLE_CONFLICT,
                hint="nothing was written; export it again",
            )
        _is_there(recording, store, path)  # or a run that cannot be stored here would be driven nowhere
        mark_moved(source, run_id, store.url)
        yield
    if any(message.kind == MOVED for message in store.inbox(run_id)):  # it comes back
        mark_moved(store, run_id, store.url)


def store_recording(
    recording: Recording, *, store: Store, path: str, data_key: DataKey | None = None
) -> bool:
    """Append a whole run that was read from `path`, with its secrets if there is a key for them.

    Returns False when the store already has the run.
    """
    seals = [] if data_key is None else list(recording.seals.values())
    if _is_there(recording, store, path):
        with adding_key(store, recording.run_id, data_key):
            store.append(recording.run_id, len(recording.log), [], seals)
        return False
    try:
        with adding_key(store, recording.run_id, data_key):
            _append(recording, store, seals)
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


def _append(recording: Recording, store: Store, seals: list[Artifact]) -> None:
    """Append a run. The artifacts of a large one go first, in several appends, so that memory stays bounded."""
    key = advance(None, recording.run_id, recording.log[:1]).invocation_key
    holder = None if key is None else store.find_invocation(key)
    if key is not None and holder is not None:
        raise invocation_taken(key, recording.run_id, holder)
    batch: list[Artifact] = []
    size = 0
    for artifact_id in recording.artifacts:
        batch.append(recording.artifacts.artifact(artifact_id))
        size += len(batch[-1].data)
        if size > _BATCH:
            store.append(recording.run_id, 0, [], batch)
            batch, size = [], 0
    last: dict[str, Any] = {"messages": recording.messages} if recording.messages else {}
    awaits: dict[str, Any] = {"awaits": found} if (found := _awaits(recording)) else {}
    try:
        store.append(recording.run_id, 0, recording.log, [*batch, *seals], **last, **awaits)
    except ConcurrencyError as exc:
        if exc.code != Code.INBOX_MOVED:
            raise
        # the store has a signal for it already, so it is due at once
        store.append(recording.run_id, 0, recording.log, [*batch, *seals], **last)
        store.post(recording.run_id, IMPORTED, {})


def _awaits(recording: Recording) -> list[tuple[str, str]]:
    """Return the names and correlations of the signals that a suspended run waits for."""
    history = History()
    for entry in recording.entries if recording.waits and not recording.ended else ():
        history.advance(entry)
    if history.status is not RunStatus.SUSPENDED:
        return []
    return Inbox.awaits(history, lambda artifact_id: recording.artifacts[artifact_id][1])


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
