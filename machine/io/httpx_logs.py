"""Silencing of httpx during recorded calls, because its log messages have URLs and headers with secrets in them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

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
    """A filter that drops log messages of recorded calls; other calls of the process are logged as usual."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False during a recorded call."""
        del record
        return not _calling.get()


@functools.cache
def _installed() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_NotOurs())


@contextmanager
def unlogged() -> Iterator[None]:
    """Drop the log messages of httpx in this context; the call is recorded anyway."""
    _installed()
    token = _calling.set(True)
    try:
        yield
    finally:
        _calling.reset(token)
