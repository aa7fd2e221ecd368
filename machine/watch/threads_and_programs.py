"""Threads, open connections and programs: acts that no context variable follows or no audit event announces.

A watch that `follows`, as one over a replay does, continues into started threads and into work that is given to a
pool. The changes to the standard library here pass calls
on, and stay in place as the audit hook does.
"""

from __future__ import annotations

import _posixsubprocess
import _thread
import functools
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, thread
from contextvars import copy_context
from typing import Any, Final

from machine.watch.after_import import after_import
from machine.watch.code_owner import CALLER, called_by
from machine.watch.nondeterministic_calls import resolved
from machine.watch.safe_inspection import never_raises
from machine.watch.user_calls import seen_function
from machine.watch.watch import Watch, guarded, in_step, watching

FORK_EXEC: Final = "_posixsubprocess.fork_exec"
"""The audit event for a program that `multiprocessing` starts: Python itself raises none."""


SEND: Final = "socket.send"
"""The audit event for data sent on a connection: Python itself announces only the connection."""

PIDFD_SIGNAL: Final = "signal.pidfd_send_signal"
"""The audit event of a signal that is sent by a descriptor: Python itself announces only those sent by a pid."""


def _watched(watch: Watch, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    with guarded(watch):
        return in_step(copy_context(), function, *args, **kwargs)


def _owned(caller: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    with called_by(caller):
        return function(*args, **kwargs)


def _led(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` for another thread, with the owner of this code, and the watch if it follows threads."""
    if (caller := CALLER.get()) is not None:
        function = functools.partial(_owned, caller, function)
    watch = watching()
    if watch is None or not watch.follows:
        return function
    return functools.partial(_watched, watch.in_thread(), function)


@functools.cache
def announce_unannounced() -> None:
    """Make audit events be raised for acts that Python does not announce."""
    _announce_sending(socket.socket, "send", "sendall")
    if "ssl" in sys.modules:
        _announce_encrypted()
    after_import("ssl", _announce_encrypted)
    _announce(os, "sendfile", SEND, _is_socket)
    _announce(os, "mkfifo", "os.mkfifo")
    _announce(os, "mknod", "os.mknod")
    _announce(signal, "pidfd_send_signal", PIDFD_SIGNAL)
    _announce_programs()


@functools.cache
def _announce_encrypted(_: str = "ssl") -> None:
    """Announce what is sent on encrypted connections, once their module is loaded."""
    _announce_sending(sys.modules["ssl"].SSLSocket, "send", "sendall", "write")


@functools.cache
def follow_callers() -> None:
    """Install the hooks that follow the owner of code into threads and thread pools."""
    start = threading.Thread.start
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit
    start_bare = _thread.start_new_thread
    bare = resolved().builtins.get(start_bare)

    @functools.wraps(start)
    def started(self: Any) -> None:
        of_thread = vars(self)
        if of_thread.get("_target") is not thread._worker:  # noqa: SLF001
            if (led := _led(self.run)) != self.run:
                self.run = led
        elif len(args := of_thread.get("_args", ())) == _OF_WORKER and callable(args[2]):
            # the pool works for all its callers: each piece of work is followed separately
            self._args = (*args[:2], _led(args[2]), *args[3:])
        start(self)

    @functools.wraps(submit)
    def submitted(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        return submit(self, _led(fn), *args, **kwargs)

    @functools.wraps(start_bare)
    def started_bare(function: Callable[..., Any], /, *args: Any) -> int:
        if (watch := watching()) is not None and bare is not None:  # which no watch takes for the builtin
            seen_function(bare, sys._getframe(), watch)  # noqa: SLF001 - of this call
        return start_bare(_led(function), *args)

    threading.Thread.start = started  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submitted  # type: ignore[assignment,method-assign]
    _thread.start_new_thread = started_bare


_OF_WORKER: Final = 4
"""The number of arguments of a pool's worker, the third of which is its initializer."""


def _announce_sending(kind: type, *names: str) -> None:
    for name in names:
        _announce(kind, name, SEND, _leads_outside)


def _announce(owner: Any, name: str, event: str, leads_outside: Callable[[Any], bool] | None = None) -> None:
    """Replace a function by one that raises an audit event when it is called under a watch.

    With `leads_outside`, only if that is true of the first argument. A function that the system lacks stays so.
    """
    function = getattr(owner, name, None)
    if function is None:
        return

    @functools.wraps(function)
    def announced(*args: Any, **kwargs: Any) -> Any:
        if watching() is not None:
            first = args[0] if args else kwargs.get("path", kwargs.get("out_fd"))
            if leads_outside is None or leads_outside(first):
                sys.audit(event, first, *args[1:])
        return function(*args, **kwargs)

    setattr(owner, name, announced)
    if function in os.supports_dir_fd:
        os.supports_dir_fd.add(announced)


def _leads_outside(one: socket.socket) -> bool:
    """Say whether a connection leads outside, unlike one half of a pair that wakes an event loop."""
    try:
        return one.family != socket.AF_UNIX or bool(one.getpeername())
    except OSError:  # it is not connected
        return False


@never_raises(False)  # noqa: FBT003 - whether it is one
def _is_socket(descriptor: int) -> bool:
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def _announce_programs() -> None:
    """Make an audit event be raised for programs that are started without one."""
    start = _posixsubprocess.fork_exec

    @functools.wraps(start)
    def announced(*args: Any) -> int:
        sys.audit(FORK_EXEC, args[0] if args else None)
        return start(*args)

    _posixsubprocess.fork_exec = announced
