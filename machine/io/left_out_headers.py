"""The headers of a client's request that are neither sent nor recorded, or are sent and not recorded."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from machine.errors import UsageError

LEFT_OUT: Final = (
    # needed by the connection, or computed
    *("accept-encoding", "connection", "content-length", "host", "keep-alive", "proxy-connection"),
    *("te", "transfer-encoding", "upgrade"),
    # describes a library and the machine
    *("user-agent", "x-stainless-*", "x-fern-*", "x-goog-api-client"),
    # added by tracing, different at every request
    *("traceparent", "tracestate", "baggage", "sentry-trace", "b3", "x-b3-*", "x-datadog-*"),
    *("x-amzn-trace-id", "x-cloud-trace-context"),
)
"""Patterns of headers that are not recorded: they differ between machines or versions and say nothing about the
request."""

_COMPUTED: Final = frozenset({"content-length", "transfer-encoding"})


def patterns(what: str, given: Iterable[str]) -> tuple[str, ...]:
    """Return patterns of headers in lower case. Raises `UsageError` for a text in place of a list."""
    if isinstance(given, str):
        raise UsageError(f"{what} must be several patterns, not the text {given!r}")
    return tuple(pattern.lower() for pattern in given)


def judged(kept: tuple[str, ...], left_out: tuple[str, ...], raw_name: bytes) -> tuple[str, bool | None]:
    """Return the name of a header, and whether it is recorded; None where that depends on its value."""
    name = raw_name.decode("ascii", "replace").lower()
    if name in _COMPUTED:
        return name, False
    if any(fnmatchcase(name, pattern) for pattern in kept):
        return name, True
    is_left_out = any(fnmatchcase(name, pattern) for pattern in left_out)
    by_value = name == "host" or (name == "accept-encoding" and is_left_out)
    return name, None if by_value else not is_left_out


def says_more(name: str, value: str, host: str) -> bool:
    """Say whether the value of a header that is usually left out says what nothing else of a request does.

    `host` is the network location of its URL.
    """
    if name == "host":
        return value != host
    return value == "identity"  # the bytes of the resource itself are requested, as in a range of them
