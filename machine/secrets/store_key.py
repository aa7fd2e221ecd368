"""The key of a store's secrets, kept outside the store: finding it, making it, and opening data keys with it.

It is the value of the environment variable `MACHINE_SECRET_KEY`, or else is in the file `<store>.key` next to the
store, which the first run that seals a secret makes. A store notes the id of its key, to tell a wrong key from
damage.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import secrets
import stat
import string
from pathlib import Path
from typing import Final, Protocol

from machine.errors import Code, SealError, SecretKeyError, UsageError
from machine.fsync_directory import fsync_directory
from machine.secrets.sealing import KEY_BYTES, DataKey, StoreKey, new_data_key, unwrap, wrap

KEY_VARIABLE: Final = "MACHINE_SECRET_KEY"
"""The environment variable with the key for all stores of a process; an empty one counts as not set."""

_FORMS: Final = "64 hex digits, or 32 bytes in base64"
MOST_BYTES: Final = 4096
"""The largest size of a key file, in bytes."""

_IS_ID: Final = re.compile("[0-9a-f]{16}")
_BESIDE: Final = re.compile(r"(?:\.[0-9a-f]{16})?(?:\.[0-9a-f]{8}\.tmp)?")
"""The rest of the name of a key file that is not yet moved into its place, or was moved out of it."""

_KEY_FILE: Final = re.compile(rf".*\.key{_BESIDE.pattern}", re.DOTALL)
_EXPOSED: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyStore(Protocol):
    """The methods of a store that are used here; `machine.stores.Store` has them."""

    url: str
    secret_key_file: Path | None

    def secret_key(self) -> bytes:
        """Return the store's own 32 bytes."""
        ...

    def secret_key_id(self) -> str | None:
        """Return the id of the key that wraps the data keys, None before the first."""
        ...

    def data_key(self, run_id: str) -> bytes | None:
        """Return a run's data key as it was wrapped, or None."""
        ...

    def add_data_key(self, run_id: str, key_id: str, wrapped: bytes) -> None:
        """Give a run its data key, unless it has one."""
        ...


class StoreKeys:
    """The data keys of a store's runs, as far as this process can open them.

    Each is opened once, and nothing is read or made before the first is asked for. `problem` is the error of the
    last request that could not open a key; it is None after one that could, and when the run has no key. `failure`
    is the error that a request was refused with.
    """

    def __init__(self, store: KeyStore) -> None:
        self.problem: SecretKeyError | None = None
        self.failure: SecretKeyError | None = None
        self._store: Final = store
        self.file: Final = store.secret_key_file
        self._opened: Final[dict[str, DataKey]] = {}

    def data_key(self, run_id: str, *, create: bool = False) -> DataKey | None:
        """Return a run's data key; None when it has none, or when it cannot be opened (`problem` says why).

        With `create`, a missing data key is made, and the store's key too if that is missing; what would be a
        `problem` is raised then as `SecretKeyError`.
        """
        self.problem = None
        if known := self._opened.get(run_id):
            return known
        try:
            wrapped = self._store.data_key(run_id)
            if wrapped is None and create:
                wrapped = self._made(run_id)
            if wrapped is None:
                return None
            found = self._opened[run_id] = self._unwrapped(run_id, wrapped)
        except SecretKeyError as problem:
            if create:
                self.failure = problem
                raise
            self.problem = problem
            return None
        return found

    def check(self) -> None:
        """Raise `SecretKeyError` when the key of the store is missing, is another one, or is no key.

        While nothing is sealed under it, a key file may be absent; one that exists must be valid.
        """
        try:
            if os.environ.get(KEY_VARIABLE) or self._store.secret_key_id() is not None:
                store_key_of(self._store)
            elif self._store.secret_key_file is not None:
                key_in(self._store.secret_key_file)
        except SecretKeyError as problem:
            self.failure = problem
            raise

    def adopt(self, run_id: str, data_key: DataKey) -> None:
        """Give a run that has none this data key, wrapped by the key of this store. Raises `SecretKeyError`."""
        try:
            self._add(run_id, data_key)
        except SecretKeyError:  # the store's key was replaced, or first made, since it was read
            self._add(run_id, data_key)  # a second refusal is no race

    def share(self, run_id: str, fork_id: str, fork_keys: StoreKeys | None = None) -> None:
        """Give a fork the data key of the run it was made from, if that has one. Raises `SecretKeyError`."""
        if (data_key := self.data_key(run_id)) is not None:
            (fork_keys or self).adopt(fork_id, data_key)
        elif self.problem is not None:
            raise self.problem

    def _add(self, run_id: str, data_key: DataKey) -> None:
        key = store_key_of(self._store, create=True)
        self._store.add_data_key(run_id, key.id, wrap(key, data_key, run_id))

    def _made(self, run_id: str) -> bytes | None:
        self.adopt(run_id, new_data_key())
        return self._store.data_key(run_id)

    def _unwrapped(self, run_id: str, wrapped: bytes) -> DataKey:
        try:
            return unwrap(store_key_of(self._store), wrapped, run_id)
        except SealError as exc:
            again = self._store.data_key(run_id)
            if again is not None and again != wrapped:  # the store's key was replaced in between
                return self._unwrapped(run_id, again)
            raise changed_data_key(self._store.url, run_id, "it go on without them") from exc


def changed_data_key(url: str, run_id: str, lets: str) -> SecretKeyError:
    """Return the error of a damaged data key; `lets` ends its hint: what works again once the key is deleted."""
    return SecretKeyError(
        f"the data key of run {run_id} does not open with the key of {url}: it was changed or moved",
        code=Code.SECRET_KEY_WRONG,
        details={"run_id": run_id, "url": url},
        hint=f"its secrets are lost; `machine secrets forget {run_id}` lets {lets}",
    )


def open_keys(store: KeyStore) -> StoreKeys:
    """Return the data keys of a store; nothing is read or made yet."""
    return StoreKeys(store)


def store_key_of(store: KeyStore, *, create: bool = False) -> StoreKey:
    """Return the key of a store's secrets, made where there is none yet if `create`.

    Raises `SecretKeyError`, which says what is wrong with the key that this process has.
    """
    if store.secret_key_file is None:
        return StoreKey(store.secret_key())
    noted = store.secret_key_id()
    try:
        return _key_noted(store.url, store.secret_key_file, noted, create=create)
    except SecretKeyError:
        if (now := store.secret_key_id()) == noted:
            raise
        # replaced between the look at the store and the look at the key
        return _key_noted(store.url, store.secret_key_file, now, create=create)


def _key_noted(url: str, path: Path, noted: str | None, *, create: bool) -> StoreKey:
    where = f"the environment variable {KEY_VARIABLE}"
    if text := os.environ.get(KEY_VARIABLE):
        key: StoreKey | None = key_of(text, where)
    else:
        where = str(path)
        key = _key_beside(path, noted)
        if key is None and create and noted is None:
            key = _made_key(path)
    if key is None:
        raise SecretKeyError(
            f"the store {url} keeps its secrets under the key {noted or '(none yet)'}, and there is no key",
            code=Code.SECRET_KEY_MISSING,
            details={"url": url, "path": str(path), "expected": noted},
            hint=f"put the key file back to {path}, or set {KEY_VARIABLE}; if it is lost for good, "
            "`machine secrets forget --all` gives up what is sealed, and a new key can be made",
        )
    if noted not in {None, key.id}:
        raise SecretKeyError(
            f"the store {url} keeps its secrets under the key {noted}, and {where} holds the key {key.id}",
            code=Code.SECRET_KEY_WRONG,
            details={"url": url, "where": where, "expected": noted, "found": key.id},
            hint="it is the key of another store, or an older one; use the one that this store was used with",
        )
    return key


def _key_beside(path: Path, noted: str | None) -> StoreKey | None:
    """Return the key in the key file, or in the new file of a rotation that was interrupted before it moved it."""
    if noted is not None and _IS_ID.fullmatch(noted):
        moved_soon = key_in(successor(path, noted))
        if moved_soon is not None and moved_soon.id == noted:
            return moved_soon
    return key_in(path)


def successor(path: Path, key_id: str) -> Path:
    """Return the path at which a rotation keeps the new key until it wraps every data key."""
    return path.with_name(f"{path.name}.{key_id}")


def is_key_file_name(path: Path, name: str) -> bool:
    """Tell whether a name is that of a key file, or of a file that making or changing it may leave next to it."""
    return name.startswith(path.name) and _BESIDE.fullmatch(name, len(path.name)) is not None


def holds_key(name: str, data: bytes) -> bool:
    """Tell whether a file of this name and content is the key file of a store, whatever its mode."""
    if not _KEY_FILE.fullmatch(name) or len(data) > MOST_BYTES:
        return False
    try:
        _key_of_bytes(data, name)
    except SecretKeyError:
        return False
    return True


def key_in(path: Path) -> StoreKey | None:
    """Return the key in a file, None where there is no file. Raises `SecretKeyError`."""
    try:
        # without O_NONBLOCK, opening a pipe here would wait for a writer
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise _unusable(path, f"cannot be read: {exc.strerror}", Code.SECRET_KEY_MISSING) from exc
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise _unusable(path, "is not a regular file", Code.SECRET_KEY_INVALID)
        if mode & _EXPOSED:
            raise SecretKeyError(
                f"the key file {path} is open to others: its mode is {stat.S_IMODE(mode):04o}",
                code=Code.SECRET_KEY_EXPOSED,
                details={"path": str(path), "mode": f"{stat.S_IMODE(mode):04o}"},
                hint=f"run `chmod 600 {path}`; if somebody may have read it, `machine secrets rotate-key` then",
            )
        data = os.read(fd, MOST_BYTES + 1)
    except OSError as exc:
        raise _unusable(path, f"cannot be read: {exc.strerror}", Code.SECRET_KEY_MISSING) from exc
    finally:
        os.close(fd)
    return _key_of_bytes(data, f"the key file {path}")


def _key_of_bytes(data: bytes, where: str) -> StoreKey:
    if len(data) == KEY_BYTES and not data.isascii():
        return StoreKey(data)  # the bytes themselves; as text so many are too few
    return key_of(data.decode("ascii", "replace"), where)


def key_given(path: str) -> StoreKey:
    """Return the key in a file that the user named. Raises `SecretKeyError`, and `UsageError` for no file."""
    found = key_in(Path(path))
    if found is None:
        raise UsageError(
            f"there is no key file {path}",
            hint="`openssl rand -hex 32` makes a key; keep it in a file of mode 0600",
        )
    return found


def key_of(text: str, where: str) -> StoreKey:
    """Return the key that a text encodes. Raises `SecretKeyError`, which names `where` and never the text."""
    text = text.strip()
    try:
        if len(text) == 2 * KEY_BYTES and set(text) <= set(string.hexdigits):
            key = bytes.fromhex(text)
        else:
            padded = text.rstrip("=").replace("-", "+").replace("_", "/") + "=" * (-len(text.rstrip("=")) % 4)
            key = base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SecretKeyError(
            f"{where} holds no key: a key is {_FORMS}",
            code=Code.SECRET_KEY_INVALID,
            details={"where": where},
            hint="one can be made with `openssl rand -hex 32`; a store that holds secrets needs its own",
        )
    return StoreKey(key)


def _made_key(path: Path) -> StoreKey | None:
    """Return the key in the key file, made unless another process was first."""
    try:
        put_key(path, StoreKey(secrets.token_bytes(KEY_BYTES)))
    except OSError as exc:
        raise _unusable(path, f"cannot be made: {exc.strerror}", Code.SECRET_KEY_MISSING) from exc
    return key_in(path)


def put_key(path: Path, key: StoreKey) -> None:
    """Write a key file that only its owner can read, atomically; an existing one stays.

    It is durable on return: nothing may be encrypted with a key that a power cut could take back.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(fd, f"{key.key.hex()}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        # a link appears with all its bytes and never replaces a file; the draft is missing if a rotation deleted it
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
    fsync_directory(path.parent)


def _unusable(path: Path, problem: str, code: Code) -> SecretKeyError:
    return SecretKeyError(
        f"the key file {path} {problem}",
        code=code,
        details={"path": str(path)},
        hint=f"see to the file, or set {KEY_VARIABLE}",
    )
