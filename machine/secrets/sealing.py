"""Encryption of secret values: sealed under the data key of their run, which the key of the store wraps.

The cipher is AES-256-GCM of `cryptography`, which is imported when the first value is sealed or opened. Bytes that
cannot be decrypted raise `SealError`, never `CorruptionError`: a wrong key looks the same as damage.
"""

from __future__ import annotations

import secrets
from typing import Final, NoReturn

import attrs
from blake3 import blake3

from machine import canonical
from machine.errors import SealError

KEY_BYTES: Final = 32
"""Length of each key."""

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_ID_BYTES: Final = 4
_OWNER_BYTES: Final = 16
_HEADS: Final = {_VERSION: 1 + _ID_BYTES, b"\x02": 1 + _ID_BYTES + _OWNER_BYTES}
"""Lengths of the clear bytes before a wrapped data key, by version; version 1 is not bound to its run."""
_MAC_BYTES: Final = 16

_WRAPPING: Final = b"machine: a wrapped data key"
# each use of a key has a key derived for it, so that no output of one use tells anything about another
_STORE_KEY_ID: Final = "machine 2026 secrets: id of a store's key"
_DATA_KEY_ID: Final = "machine 2026 secrets: id of a data key"
_SEALING: Final = "machine 2026 secrets: key that seals"
_REQUESTS: Final = "machine 2026 secrets: key of request codes"


@attrs.frozen
class StoreKey:
    """The key of a store's secrets: 32 bytes."""

    key: bytes = attrs.field(repr=False)

    @property
    def id(self) -> str:
        """The 16 hex digits by which the store knows the key it was used with."""
        return _derived(_STORE_KEY_ID, self.key)[:8].hex()


@attrs.frozen
class DataKey:
    """The key that seals the secrets of one run, and of those that were forked from it."""

    key: bytes = attrs.field(repr=False)

    @property
    def id(self) -> str:
        """The 8 hex digits that identify this key."""
        return _derived(_DATA_KEY_ID, self.key)[:_ID_BYTES].hex()


def new_data_key() -> DataKey:
    """Return a new random data key."""
    return DataKey(secrets.token_bytes(KEY_BYTES))


def wrap(store_key: StoreKey, data_key: DataKey, run_id: str) -> bytes:
    """Return a run's data key as a store holds it: its id and the run's in clear, then the key, encrypted."""
    head = b"\x02" + bytes.fromhex(data_key.id) + _owner(run_id)
    return head + _encrypt(store_key.key, data_key.key, _WRAPPING + head)


def wrapped_anew(old: StoreKey, new: StoreKey, wrapped: bytes) -> bytes:
    """Return the wrapped data key of any run, wrapped with another key of the store. Raises `SealError`."""
    head, data_key = _unwrapped(old, wrapped)
    return head + _encrypt(new.key, data_key.key, _WRAPPING + head)


def data_key_id(wrapped: bytes) -> str:
    """Return the id of a wrapped data key, without unwrapping it. Raises `SealError` for other bytes."""
    length = _HEADS.get(wrapped[:1])
    if length is None or len(wrapped) != length + _NONCE_BYTES + KEY_BYTES + _TAG_BYTES:
        _refuse("it is no wrapped data key of this version")
    return wrapped[1 : 1 + _ID_BYTES].hex()


def unwrap(store_key: StoreKey, wrapped: bytes, run_id: str) -> DataKey:
    """Return the data key of a run that was wrapped.

    Raises `SealError` when it cannot be decrypted, and when it was wrapped for another run.
    """
    head, data_key = _unwrapped(store_key, wrapped)
    if head[1 + _ID_BYTES :] not in {b"", _owner(run_id)}:
        _refuse("it is the key of another run")
    return data_key


def _unwrapped(store_key: StoreKey, wrapped: bytes) -> tuple[bytes, DataKey]:
    known = data_key_id(wrapped)
    length = _HEADS[wrapped[:1]]
    head, sealed = wrapped[:length], wrapped[length:]
    data_key = DataKey(_decrypt(store_key.key, sealed, _WRAPPING + head))
    if data_key.id != known:
        _refuse("it is named after another key")
    return head, data_key


def _owner(run_id: str) -> bytes:
    return blake3(run_id.encode()).digest(_OWNER_BYTES)


def seal(data_key: DataKey, plain: bytes, place: tuple[str, ...]) -> bytes:
    """Return bytes as ciphertext that opens only with this data key and for the same `place`."""
    return _VERSION + _encrypt(_derived(_SEALING, data_key.key), plain, _bound_to(place))


def open_seal(data_key: DataKey, sealed: bytes, place: tuple[str, ...]) -> bytes:
    """Return the bytes that were sealed for a place.

    Raises `SealError` for bytes that were changed, truncated, or sealed with another data key or for another place.
    """
    if sealed[:1] != _VERSION:
        _refuse("it is no sealed value of this version")
    return _decrypt(_derived(_SEALING, data_key.key), sealed[1:], _bound_to(place))


def mac(data_key: DataKey, data: bytes) -> str:
    """Return a keyed hash of bytes, 32 hex digits: nobody can guess the bytes from it without the data key."""
    return blake3(data, key=_derived(_REQUESTS, data_key.key)).hexdigest(_MAC_BYTES)


def _derived(use: str, key: bytes) -> bytes:
    return blake3(key, derive_key_context=use).digest()


def _bound_to(place: tuple[str, ...]) -> bytes:
    # as JSON, in which ("a", "bc") and ("ab", "c") differ
    return canonical.encode(list(place))


def _encrypt(key: bytes, plain: bytes, bound_to: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - loaded when first needed

    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to)


def _decrypt(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - loaded when first needed
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - the same

    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        _refuse("it was truncated")
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
    except InvalidTag:
        _refuse("it was changed or moved, or another key sealed it")


def _refuse(why: str) -> NoReturn:
    # `from None`: the exception of the library adds nothing
    raise SealError(
        f"a sealed secret does not open: {why}",
        hint="the value is lost to who has no other copy of it; the rest of the run can be read",
    ) from None
