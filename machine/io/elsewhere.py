"""Where a handler's doing goes that no context variable follows: threads, and programs that are not announced.

A watch that `follows`, as one over a replay does, goes into the threads that are started and into the work that is
handed to a pool. What is changed here of the standard library hands on what it is given, and stays, as the audit
hook does.
"""

from __future__ import annotations

import _posixsubprocess
import functools
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, thread
from contextvars import copy_context
from typing import Any, Final

from machine.io.undeclared import Watch, guarded, in_step, watching

__all__ = ["FORK_EXEC", "announce_programs", "follow_threads"]

FORK_EXEC: Final = "_posixsubprocess.fork_exec"
"""The audit event of a program that `multiprocessing` starts: Python itself raises none."""


def _watched(watch: Watch, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    with guarded(watch):
        return in_step(copy_context(), function, *args, **kwargs)


def follow_threads() -> None:
    """Have a watch follow into the threads that are started, and into what is handed to a pool of them."""
    start = threading.Thread.start
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit

    @functools.wraps(start)
    def started(self: Any) -> None:
        watch = watching()
        # a thread of a pool works for whoever hands it something: that is followed, piece by piece
        if watch is not None and watch.follows and vars(self).get("_target") is not thread._worker:  # noqa: SLF001
            self.run = functools.partial(_watched, watch.in_thread(), self.run)
        start(self)

    @functools.wraps(submit)
    def submitted(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        watch = watching()
        if watch is not None and watch.follows:
            fn = functools.partial(_watched, watch.in_thread(), fn)
        return submit(self, fn, *args, **kwargs)

    threading.Thread.start = started  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submitted  # type: ignore[assignment,method-assign]


def announce_programs() -> None:
    """Have an audit event raised for programs that are started without one."""
    start = _posixsubprocess.fork_exec

    @functools.wraps(start)
    def announced(*args: Any) -> int:
        sys.audit(FORK_EXEC, args[0] if args else None)
        return start(*args)

    _posixsubprocess.fork_exec = announced
