"""The wait that a service asks for before a retry: `Retry-After` (RFC 9110 section 10.2.3).

The wait is recorded in milliseconds with the failure, outside its body, so a replay waits for nothing and needs no
clock. A state then waits the longer of that and its own backoff.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

from machine.errors import IoError
from machine.failed_attempt_info import LONGEST_WAIT

_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
ASKING: Final = frozenset({429, 503})
"""The HTTP statuses with which a server asks to wait (RFC 6585 section 4, RFC 9110 section 15.6.4)."""


def seconds_asked(said: str, date: str, now: float) -> float | None:
    """Return the seconds that a `Retry-After` asks for, or None when it is unreadable.

    A date is counted from the `Date` of the answer, so that differing clocks of client and server do not matter, or
    from `now` (seconds since the epoch) when there is none.
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
    """Return the longest wait in milliseconds that a failure or a part of it asks for; 0 when none does."""
    asked = (_asked(part, now) for part in _parts(exc))
    return math.ceil(max((seconds for seconds in asked if seconds is not None), default=0.0) * 1000)


def _parts(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its causes, and those of the members of groups."""
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
        # the exceptions of HTTP clients: httpx, requests and everything built on them
        response = getattr(exc, "response", None)
        headers = getattr(response, "headers", None)
        if getattr(response, "status_code", None) not in ASKING:
            return None
    if not isinstance(headers, Mapping):
        return None
    said, date = headers.get("retry-after"), headers.get("date")
    return seconds_asked(said, date if isinstance(date, str) else "", now) if isinstance(said, str) else None
