"""Standard streams that are there, whatever the caller closed, and a stderr whose failure stops no run."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO, cast

__all__ = ["abandon", "standing"]

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


@contextlib.contextmanager
def standing() -> Iterator[None]:
    """See that all three streams can be used within.

    One that was closed leads nowhere, and what is said on a stderr that takes no more is lost: the work goes on.
    """
    _occupy()
    for name, mode in _STREAMS:
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter
    with contextlib.redirect_stderr(cast("TextIO", _Lossy(sys.stderr))):
        yield


def _occupy() -> None:
    """Open what is closed of the first three descriptors: no other file may get their numbers."""
    for descriptor in range(len(_STREAMS)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - its only parameter


def abandon(stream: TextIO) -> None:
    """Make sure that the interpreter does not try to flush, at exit, what nobody takes any more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


class _Lossy:
    """A stream of text that loses what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or lose it."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            abandon(self._stream)
            return len(text)

    def flush(self) -> None:
        """Pass on what was written, or lose it."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            abandon(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
