"""Fresh run ids."""

from __future__ import annotations

import os
import threading
import time
import uuid

from machine.ids import RunId

_lock = threading.Lock()
_last = 0


def new_run_id() -> RunId:
    """Return a UUID version 7 (RFC 9562 section 5.7), later in order than any made before by this process."""
    global _last  # noqa: PLW0603 - the generator's monotonic counter is its state
    with _lock:
        # 48 bits of milliseconds and 12 of counter: the clock in units of 1/4096 ms, never repeating itself
        _last = stamp = max(_last + 1, time.time_ns() * 4096 // 1_000_000)
    value = (stamp >> 12) << 80 | 7 << 76 | (stamp & 0xFFF) << 64 | 2 << 62
    return RunId(str(uuid.UUID(int=value | int.from_bytes(os.urandom(8)) >> 2)))
