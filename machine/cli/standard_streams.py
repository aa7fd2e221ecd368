"""Standard streams that always exist, whatever the caller closed, and a stderr whose failure stops no run."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO, cast

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


@contextlib.contextmanager
def standing() -> Iterator[None]:
    """Provide all three streams for the duration of the context.

    A closed stream becomes a null device, and output to a stderr that fails is dropped: the work continues.
    """
    _occupy()
    for name, mode in _STREAMS:
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character
    with contextlib.redirect_stderr(cast("TextIO", _Lossy(sys.stderr))):
        yield


def _occupy() -> None:
    """Occupy closed ones of the first three descriptors, so that no other file gets their numbers."""
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
    """Prevent the interpreter from flushing, at exit, output that nobody reads any more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


class _Lossy:
    """A text stream that drops what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            abandon(self._stream)
            return len(text)

    def flush(self) -> None:
        """Pass on what was written, or drop it."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            abandon(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
