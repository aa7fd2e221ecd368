"""The headers of answers that are new every time: goldens are recorded without them, so that their text stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import Any, Final

VOLATILE: Final = frozenset(
    (
        *("date", "request-id", "x-request-id", "x-correlation-id", "x-amz-request-id", "x-amz-id-2"),
        *("x-amzn-requestid", "x-amz-cf-id", "x-ms-request-id", "x-github-request-id", "cf-ray"),
    )
)
"""Names of these headers: the time of an answer, and its number in the logs of whoever gave it."""

_EXPIRES: Final = re.compile(r"(?i);\s*expires=([^;]*)")

_left_out: ContextVar[bool] = ContextVar("volatile_headers_left_out", default=False)


@contextmanager
def left_out() -> Iterator[None]:
    """Let the runs that are started within lose these headers before a handler sees an answer."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


def are_left_out() -> bool:
    """Say whether a run that is started now loses these headers."""
    return _left_out.get()


def without_volatile(response: Any) -> Any:
    """Return an `http` response without these headers; a cookie with a date of expiry gets its seconds instead."""
    match response:
        case {"headers": list(headers)}:
            pass
        case _:
            return response
    date = next((value for name, value in headers if name.lower() == "date"), "")
    kept = [
        [name, lasting(value, date) if name.lower() == "set-cookie" else value]
        for name, value in headers
        if name.lower() not in VOLATILE
    ]
    return {**response, "headers": kept}


def lasting(cookie: str, date: str) -> str:
    """Return a cookie with the seconds from the date of its answer in place of the time when it expires.

    A replay may come years later, and has to send the cookies that were sent.
    """
    expires = _EXPIRES.search(cookie)
    if expires is None or re.search(r"(?i);\s*max-age=", cookie):
        return cookie
    try:
        left = parsedate_to_datetime(expires[1].replace("-", " ")) - parsedate_to_datetime(date)
    except (TypeError, ValueError):  # an invalid date
        return cookie
    return _EXPIRES.sub(f"; Max-Age={int(left.total_seconds())}", cookie, count=1)
