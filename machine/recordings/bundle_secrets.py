"""Sealed secrets in bundles: exported under the bundle's key and imported under a store's key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import attrs

from machine.engine import run_reader
from machine.errors import BundleError, Code, CorruptionError, NotFoundError, SealError, UsageError
from machine.events import Artifact, ArtifactKind
from machine.recordings.run_contents import Recording, gather, seals_of
from machine.secrets.bundle_key import BundleKey, locked, needs, unlocked
from machine.secrets.sealing import DataKey
from machine.secrets.store_key import open_keys
from machine.stores.base import Store


def with_secrets(recording: Recording, store: Store, key: BundleKey) -> Recording:
    """Return a run together with its sealed secrets from the store, and their data key locked by `key`.

    A run without sealed secrets is returned unchanged. Raises `SecretKeyError` when the data key cannot be
    opened, `UsageError` (`secret_unavailable`) when it is gone, and `SealError` for a sealed secret that was
    changed.
    """
    seals = dict(_present(seals_of(recording), store))
    if not seals:
        return recording
    keys = open_keys(store)
    data_key = keys.data_key(recording.run_id)
    if keys.problem is not None:
        raise keys.problem
    if data_key is None:
        raise UsageError(
            f"the key of the secrets of run {recording.run_id} is not in {store.url}: nobody can open them",
            code=Code.SECRET_UNAVAILABLE,
            hint="export it without its secrets",
        )
    return attrs.evolve(recording, seals=seals, lock=locked(key, data_key, recording.run_id))


def has_secrets(store: Store, run_id: str) -> bool:
    """Return whether the store has sealed secrets of a run."""
    return any(_present(seals_of(gather(run_reader.entries(store, run_id), store.get)), store))


def _present(seal_ids: list[str], store: Store) -> Iterator[tuple[str, Artifact]]:
    for seal_id in seal_ids:
        try:
            # an imported log could name any artifact of this store here; only sealed ones may leave with it
            if store.kind(seal_id) == ArtifactKind.SECRET_PAYLOAD:
                yield seal_id, Artifact(seal_id, ArtifactKind.SECRET_PAYLOAD, store.get(seal_id))
        except NotFoundError:
            continue
        except CorruptionError as exc:
            raise SealError(
                f"the sealed secret {seal_id} was changed in {store.url}",
                hint="export it without its secrets",
            ) from exc


def unlocked_key(recording: Recording, key: BundleKey | None, path: str) -> DataKey | None:
    """Return the data key of a run from a bundle, or None when the bundle has none.

    Raises `BundleError` with `bundle_key_needed` or `bundle_key_wrong`.
    """
    if recording.lock is None:
        return None
    needed = needs(recording.lock)
    try:
        found = unlocked(key or BundleKey(), recording.lock, recording.run_id)
    except SealError:
        raise BundleError(
            f"its secrets do not open: they need {needed}, and this is another one",
            path=path,
            code=Code.BUNDLE_KEY_WRONG,
            hint="nothing was written; ask whoever exported it",
        ) from None
    if found is None:
        raise BundleError(
            f"it has secrets, and they need {needed}",
            path=path,
            code=Code.BUNDLE_KEY_NEEDED,
            hint="nothing was written; set MACHINE_BUNDLE_PASSPHRASE, or give --recipient-key FILE",
        )
    return found


@contextlib.contextmanager
def adding_key(store: Store, run_id: str, data_key: DataKey | None) -> Iterator[None]:
    """Give a run its data key before its log is stored, and remove it if that fails."""
    had_one = data_key is None or store.data_key(run_id) is not None
    if data_key is not None:
        open_keys(store).adopt(run_id, data_key)
    try:
        yield
    except BaseException:
        if not had_one:
            store.forget_data_key(run_id)
        raise
