"""The key of a store's secrets: what makes the hash of a handle mean nothing to anybody else."""

from __future__ import annotations

import os
from collections.abc import Callable

from machine.stores.base import Store

__all__ = ["key_of"]

KEY_BYTES = 32


def key_of(store: Store) -> bytes:
    """Return the key that a store keeps for its runs, or one of this process for a store that keeps none."""
    read: Callable[[], bytes] | None = getattr(store, "secret_key", None)
    return os.urandom(KEY_BYTES) if read is None else read()
