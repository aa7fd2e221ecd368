"""The name of whoever drives a run, for people: the host, the process, and the worker where it has a name."""

from __future__ import annotations

import functools
import os
import re
import socket
from contextvars import ContextVar
from typing import Any, Final

from machine.errors import Code, UsageError

_worker: Final[ContextVar[str | None]] = ContextVar("worker", default=None)

_NAME: Final = re.compile("[A-Za-z0-9_.-]{1,64}")


def checked_worker_name(name: Any) -> str | None:
    """Return the name of a worker, None without one. Raises `UsageError` (`invalid_worker_name`)."""
    if name is None or (isinstance(name, str) and _NAME.fullmatch(name)):
        return name
    raise UsageError(
        f"{name!r} cannot name a worker: it must be 1 to 64 letters, digits, _ . and -",
        code=Code.INVALID_WORKER_NAME,
    )


def drive_as(worker: str | None) -> None:
    """Let what is driven in this context be driven by a worker of this name."""
    _worker.set(worker)


def driver_name() -> str:
    """Return the name of the driver in this context: HOST:PID, and the name of the worker after a blank."""
    worker = _worker.get()
    return f"{_host()}:{os.getpid()}" + (f" {worker}" if worker else "")


@functools.cache
def _host() -> str:
    return re.sub("[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64] or "-"
