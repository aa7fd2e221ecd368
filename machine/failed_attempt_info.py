"""The `info` of a failed attempt besides its traceback: its causes, and how long to wait.

It is written when an attempt fails and read when its log is folded; unreadable parts count as absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from machine import canonical
from machine.errors import CodecError, ErrorCause

CAUSES: Final = "causes"
"""The name of the causes in the `info` of an event."""

LONGEST_WAIT: Final = 6 * 3600
"""The longest wait in seconds that a service can demand."""

RETRY_AFTER: Final = "retry_after_ms"
"""The name of that wait in the `info` of an event."""

_MILLISECONDS: Final = re.compile(r"[0-9]{1,9}")


def write_causes(causes: tuple[ErrorCause, ...]) -> str:
    """Return causes in their form for the `info` of an event."""
    found = [{"relation": cause.relation, "text": cause.text, "depth": cause.depth} for cause in causes]
    return canonical.encode(found).decode()


def read_causes(info: Mapping[str, Any]) -> tuple[ErrorCause, ...]:
    """Return the causes in the `info` of an event, or none when they are absent or unreadable."""
    written = info.get(CAUSES)
    if not isinstance(written, str):
        return ()
    try:
        found = canonical.decode(written.encode())
        return tuple(ErrorCause(str(one["relation"]), str(one["text"]), int(one["depth"])) for one in found)
    except (CodecError, LookupError, TypeError, ValueError, OverflowError):
        return ()


def read_wait(info: Mapping[str, Any]) -> int:
    """Return the milliseconds to wait in the `info` of an event, 0 when absent or unreadable."""
    said = info.get(RETRY_AFTER)
    if not isinstance(said, str) or not _MILLISECONDS.fullmatch(said):
        return 0
    return min(int(said), LONGEST_WAIT * 1000)
