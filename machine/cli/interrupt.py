"""Ctrl-C: the first one cuts what goes on and leaves a run that can be resumed, the second kills."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from machine.cli.output import on_terminal

__all__ = ["arm", "disarmed_after"]


def arm() -> None:
    """Put the second Ctrl-C behind the first, at which the event loop that runs here cancels its task."""
    first = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(first):
        return

    def interrupted(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if on_terminal(sys.stderr):
            # no lock, no buffer: this may stand between any two steps of whatever is printing
            os.write(sys.stderr.fileno(), b"\nstopping; Ctrl-C again kills\n")
        first(signum, frame)

    signal.signal(signal.SIGINT, interrupted)


@contextlib.contextmanager
def disarmed_after() -> Iterator[None]:
    """Give Ctrl-C back what it meant before."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)
