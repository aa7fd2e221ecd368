"""Changes that a user makes to keys: replacing the key of a store, and deleting the data key of a run."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import attrs

from machine.errors import Code, SealError, SecretKeyError, UsageError
from machine.fsync_directory import fsync_directory
from machine.secrets.sealing import KEY_BYTES, StoreKey, data_key_id, unwrap, wrapped_anew
from machine.secrets.store_key import (
    KEY_VARIABLE,
    KeyStore,
    changed_data_key,
    is_key_file_name,
    key_given,
    key_in,
    key_of,
    put_key,
    store_key_of,
    successor,
)

FROM_ENVIRONMENT: Final = "env"
"""The name that stands for the variable `MACHINE_SECRET_KEY` in place of a key file."""


class ChangeableKeys(KeyStore, Protocol):
    """The methods of a store that are used here; `machine.stores.Store` has them."""

    def data_keys(self) -> list[tuple[str, bytes]]:
        """Return each run that has a data key, and the wrapped key."""
        ...

    def forget_data_key(self, run_id: str) -> bool:
        """Delete a run's data key and say whether it had one."""
        ...

    def rewrap_data_keys(self, old_id: str, new_id: str, rewrapped: Callable[[bytes], bytes]) -> int:
        """Replace every wrapped data key, and the noted id: all or nothing."""
        ...


@attrs.frozen
class Rotation:
    """The result of a rotation: the ids of both keys, the number of data keys, and the file of the new key.

    `key_file` is None when the new key is in the environment. Both ids are None when there was nothing to replace,
    because no run has sealed a secret.
    """

    old_id: str | None
    new_id: str | None
    data_keys: int
    key_file: Path | None


@attrs.frozen
class Forgotten:
    """The result of deleting a run's data key: whether it had one, and the runs that still have the same."""

    had_one: bool
    also_held_by: tuple[str, ...]


def rotate_key(store: ChangeableKeys, new_key: str | None = None) -> Rotation:
    """Wrap every data key of a store with a new key; no log and no artifact changes.

    The new key is made, or read from the file `new_key`, or from `MACHINE_SECRET_KEY` when `new_key` is
    `FROM_ENVIRONMENT`; the old one is in the key file then, which is deleted. If the process dies in between,
    the key that the store needs is on the disk: the new one is written before any data key is wrapped with
    it, and the old one is deleted when none is wrapped with it any more.

    Raises `SecretKeyError` when either key cannot be used, and `UsageError` for an unsuitable new key; nothing is
    changed then.
    """
    path = store.secret_key_file
    if path is None:
        raise UsageError("a store in memory keeps its own key", hint="name a store in a file")
    noted = store.secret_key_id()
    if noted is None:
        return Rotation(None, None, 0, None)
    try:
        return _rotated(store, path, noted, new_key)
    except OSError as exc:
        raise SecretKeyError(
            f"a key file of {store.url} cannot be replaced: {exc.filename}: {exc.strerror}",
            details={"url": store.url, "path": str(path)},
            hint="the store opens with the key that it notes; see to the directory, and rotate again",
        ) from exc


def _rotated(store: ChangeableKeys, path: Path, noted: str, new_key: str | None) -> Rotation:
    if new_key == FROM_ENVIRONMENT:
        return _to_environment(store, path, noted)
    old = store_key_of(store)
    new = _new_key(new_key)
    if new.id == old.id:
        raise UsageError(f"the key in {new_key} is the one that the store has already")
    if os.environ.get(KEY_VARIABLE):
        _check_data_keys(store, old)
        return Rotation(old.id, new.id, _rewrap(store, old, new), None)
    return Rotation(old.id, new.id, _to_file(store, path, old, new), path)


def forget_run(store: ChangeableKeys, run_id: str) -> Forgotten:
    """Delete a run's data key: its secrets cannot be opened any more, except with a copy of the key.

    A fork has the same data key as the run it was made from, so its own copy still opens what they share.
    """
    ids: dict[str, str] = {}
    for holder, wrapped in store.data_keys():
        with contextlib.suppress(SealError):  # a damaged one is equal to no other
            ids[holder] = data_key_id(wrapped)
    mine = ids.pop(run_id, None)
    also = tuple(holder for holder, held in ids.items() if held == mine)
    return Forgotten(store.forget_data_key(run_id), also)


def _new_key(new_key: str | None) -> StoreKey:
    if new_key is not None:
        return key_given(new_key)
    if os.environ.get(KEY_VARIABLE):
        raise UsageError(
            f"the key of the store is in {KEY_VARIABLE}, where a key that is made here could not be put",
            hint="put a new key into a file of mode 0600, give it as --new-key FILE, and set the variable to it",
        )
    # an interrupted rotation may have left a new key, but wrapped nothing with it: a fresh one is as good
    return StoreKey(secrets.token_bytes(KEY_BYTES))


def _to_environment(store: ChangeableKeys, path: Path, noted: str) -> Rotation:
    text = os.environ.get(KEY_VARIABLE)
    if not text:
        raise UsageError(f"{KEY_VARIABLE} is not set: it is where the new key is to be")
    new = key_of(text, f"the environment variable {KEY_VARIABLE}")
    old = _beside(path, noted)
    left_over = [*_left_over(path), path]
    changed = 0
    if new.id != noted:
        if old is None:
            raise SecretKeyError(
                f"the present key {noted} of the store {store.url} is not in {path}",
                code=Code.SECRET_KEY_MISSING,
                details={"url": store.url, "path": str(path), "expected": noted},
                hint="to replace a key that is in the variable, give the new one as --new-key FILE",
            )
        _check_data_keys(store, old)
        changed = _rewrap(store, old, new)
    _sweep(left_over)
    fsync_directory(path.parent)
    return Rotation(noted, new.id, changed, None)


def _beside(path: Path, key_id: str) -> StoreKey | None:
    """Return the key with this id, from the key file or from the new file of an interrupted rotation."""
    found = (key_in(each) for each in (successor(path, key_id), path))
    return next((key for key in found if key is not None and key.id == key_id), None)


def _to_file(store: ChangeableKeys, path: Path, old: StoreKey, new: StoreKey) -> int:
    """Rewrap the data keys, then replace the key file, so that the old key exists as long as it is needed."""
    _move(successor(path, old.id), path)  # the last step of an interrupted rotation
    left_over = _left_over(path)
    _check_data_keys(store, old)
    put_key(successor(path, new.id), new)
    if key_in(successor(path, new.id)) != new:
        raise SecretKeyError(
            f"the new key did not stay in {successor(path, new.id)}: another rotation was first",
            code=Code.SECRET_KEY_WRONG,
            details={"url": store.url, "path": str(path)},
            hint="this one changed nothing",
        )
    changed = _rewrap(store, old, new)
    _move(successor(path, new.id), path)
    _sweep(left_over)
    return changed


def _left_over(path: Path) -> list[Path]:
    """Return the files that interrupted rotations and interrupted creations of a key have left, to be deleted.

    A file that exists before a rotation is not needed after it: its process would replace the same key or an
    older one, which the store refuses by then.
    """
    return [each for each in path.parent.iterdir() if each != path and is_key_file_name(path, each.name)]


def _sweep(files: list[Path]) -> None:
    for each in files:
        each.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        source.replace(target)
        fsync_directory(target.parent)


def _check_data_keys(store: ChangeableKeys, old: StoreKey) -> None:
    for run_id, wrapped in store.data_keys():
        try:
            unwrap(old, wrapped, run_id)
        except SealError as exc:
            raise changed_data_key(store.url, run_id, "the others go on") from exc


def _rewrap(store: ChangeableKeys, old: StoreKey, new: StoreKey) -> int:
    return store.rewrap_data_keys(old.id, new.id, lambda wrapped: wrapped_anew(old, new, wrapped))
