"""The lock of the data key in a bundle: a passphrase, or a key that the recipient has."""

from __future__ import annotations

import base64
import binascii
import secrets
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

import attrs

from machine.errors import SealError, UsageError
from machine.secrets.sealing import KEY_BYTES, DataKey, StoreKey, open_seal, seal

PASSPHRASE_VARIABLE: Final = "MACHINE_BUNDLE_PASSPHRASE"  # noqa: S105 - the name of a variable
"""The environment variable with the passphrase of bundles; an empty one counts as not set."""

_SALT_BYTES: Final = 16
# each guess at a passphrase costs 128 MiB and part of a second; these numbers are part of the bundle format
_WORK: Final = {"n": 2**17, "p": 1, "r": 8}
_BY_PASSPHRASE: Final = {"kdf", "key", "salt", *_WORK}
_BY_RECIPIENT: Final = {"key", "recipient"}
_PLACE: Final = "bundle"


def _checked(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise UsageError("a passphrase cannot be empty")
    return text


@attrs.frozen
class BundleKey:
    """The passphrase of a bundle, or a key that its recipient has too; with both, the key is used."""

    passphrase: str | None = attrs.field(default=None, converter=_checked, repr=False)
    recipient: StoreKey | None = None


def locked(key: BundleKey, data_key: DataKey, run_id: str) -> dict[str, Any]:
    """Return a data key locked for the header of a run's bundle."""
    if key.recipient is not None:
        return {
            "key": _sealed(key.recipient.key, data_key, run_id),
            "recipient": key.recipient.id,
        }
    salt = secrets.token_bytes(_SALT_BYTES)
    wrapped = _sealed(_stretched(key, salt), data_key, run_id)
    return {"kdf": "scrypt", "key": wrapped, "salt": base64.b64encode(salt).decode(), **_WORK}


def is_lock(value: object) -> bool:
    """Say whether a value from the header of a bundle is a locked data key of this version."""
    if not isinstance(value, dict):
        return False
    if value.keys() == _BY_RECIPIENT:
        return isinstance(value["recipient"], str) and _bytes_of(value["key"]) is not None
    by_passphrase = value.keys() == _BY_PASSPHRASE and value["kdf"] == "scrypt"
    if not by_passphrase or any(type(value[name]) is not int or value[name] != _WORK[name] for name in _WORK):
        return False
    return _bytes_of(value["key"]) is not None and len(_bytes_of(value["salt"]) or b"") == _SALT_BYTES


def needs(lock: Mapping[str, Any]) -> str:
    """Return words for what opens a locked data key: a passphrase, or the recipient key by its id."""
    return f"the recipient key {lock['recipient']}" if "recipient" in lock else "a passphrase"


def unlocked(key: BundleKey, lock: Mapping[str, Any], run_id: str) -> DataKey | None:
    """Return the data key in the header of a run's bundle; None when the lock needs the other kind of key.

    Raises `SealError` for the wrong passphrase or key, and for a lock that was changed or is of another run.
    """
    if "recipient" in lock:
        if key.recipient is None:
            return None
        opener = key.recipient.key
    elif key.passphrase is None:
        return None
    else:
        opener = _stretched(key, _bytes_of(lock["salt"]) or b"")
    found = open_seal(DataKey(opener), _bytes_of(lock["key"]) or b"", (_PLACE, run_id))
    if len(found) != KEY_BYTES:
        raise SealError("what is locked is no data key")
    return DataKey(found)


def _sealed(opener: bytes, data_key: DataKey, run_id: str) -> str:
    return base64.b64encode(seal(DataKey(opener), data_key.key, (_PLACE, run_id))).decode()


def _stretched(key: BundleKey, salt: bytes) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # noqa: PLC0415 - loaded when first needed

    assert key.passphrase is not None
    # systems differ in how they compose accented letters; the same passphrase must open on each
    text = unicodedata.normalize("NFC", key.passphrase).encode(errors="surrogateescape")
    return Scrypt(salt=salt, length=KEY_BYTES, **_WORK).derive(text)


def _bytes_of(text: object) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        return None
