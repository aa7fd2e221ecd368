"""Silence of an HTTP library about calls of ours: it writes URLs and headers, with their secrets, into the log."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["unlogged"]

_LOGGERS: Final = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)
_calling: ContextVar[bool] = ContextVar("calling", default=False)


class _NotOurs(logging.Filter):
    """Lets through what is logged of calls that are not ours: those of the same process have their log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False while a call of ours is made."""
        del record
        return not _calling.get()


@functools.cache
def _installed() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_NotOurs())


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep what the HTTP library logs of a call out of the log; machine records that call itself."""
    _installed()
    token = _calling.set(True)
    try:
        yield
    finally:
        _calling.reset(token)
