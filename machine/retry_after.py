"""How long the outside asked to wait before another try: `Retry-After` (RFC 9110 section 10.2.3).

What was asked is recorded in milliseconds beside the failure, outside its body, so a replay waits for nothing and
needs no clock. A state then waits the longer of that and its own backoff.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

from machine.errors import IoError
from machine.failure_info import LONGEST_WAIT

__all__ = ["ASKING", "seconds_asked", "wait_asked"]

_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
ASKING: Final = frozenset({429, 503})
"""The statuses of HTTP by which a server asks to wait (RFC 6585 section 4, RFC 9110 section 15.6.4)."""


def seconds_asked(said: str, date: str, now: float) -> float | None:
    """Return the seconds that a `Retry-After` asks for, None when it cannot be understood.

    One that names a date is counted from the `Date` of the answer, so that it does not matter how the clocks of
    client and server differ, or from `now` (seconds since the epoch) when there is none.
    """
    said = said.strip()
    if said.isascii() and _NUMBER.fullmatch(said):
        return _within(float(said))
    until, since = _instant(said), _instant(date)
    return None if until is None else _within(until - (now if since is None else since))


def _within(seconds: float) -> float:
    return min(max(seconds, 0.0), float(LONGEST_WAIT))


def _instant(text: str) -> float | None:
    try:
        when = parsedate_to_datetime(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def wait_asked(exc: BaseException, now: float) -> int:
    """Return the milliseconds that a failure, or any part of it, asks to wait at most; 0 when none does."""
    asked = (_asked(part, now) for part in _parts(exc))
    return math.ceil(max((seconds for seconds in asked if seconds is not None), default=0.0) * 1000)


def _parts(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception, what it was raised from, and all of that of the members of groups."""
    todo, seen = [exc], {id(exc)}
    while todo:
        part = todo.pop()
        yield part
        members = part.exceptions if isinstance(part, BaseExceptionGroup) else ()
        for behind in (part.__cause__, *members):
            if behind is not None and id(behind) not in seen:
                seen.add(id(behind))
                todo.append(behind)


def _asked(exc: BaseException, now: float) -> float | None:
    headers: Any
    if isinstance(exc, IoError):
        given = exc.retry_after
        if isinstance(given, int | float) and math.isfinite(given) and given >= 0:
            return _within(float(given))
        headers = exc.response_headers
    else:
        # what clients of HTTP raise, those of httpx and requests and all that are built on them
        response = getattr(exc, "response", None)
        headers = getattr(response, "headers", None)
        if getattr(response, "status_code", None) not in ASKING:
            return None
    if not isinstance(headers, Mapping):
        return None
    said, date = headers.get("retry-after"), headers.get("date")
    return seconds_asked(said, date if isinstance(date, str) else "", now) if isinstance(said, str) else None
