"""Ctrl-C: the first interrupts the run, which can be resumed, and the second kills the process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from machine.cli.output import on_terminal


def arm() -> None:
    """Make a second Ctrl-C kill the process; the first lets the running event loop cancel its task."""
    first = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(first):
        return

    def interrupted(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if on_terminal(sys.stderr):
            # no lock, no buffer: this may run between any two steps of code that is printing
            os.write(sys.stderr.fileno(), b"\nstopping; Ctrl-C again kills\n")
        first(signum, frame)

    signal.signal(signal.SIGINT, interrupted)


@contextlib.contextmanager
def disarmed_after() -> Iterator[None]:
    """Restore the previous meaning of Ctrl-C on exit."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)
