"""The received end of a stream that may be half a secret, and is therefore not handed out yet."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final

MOST: Final = 64 * 1024
"""The most bytes that are held back."""

LOOK: Final = 256
"""The last bytes of a line in which a secret may have begun; the ends of all longer ones look like secrets too."""

_GOES_ON: Final = (b":", b"|", b">")
"""The ends of a line whose value stands in the next one."""

_RUN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-.~%")
_BEGIN, _END = b"-----BEGIN ", b"-----END "


class HeldBack:
    """The bytes of a stream that were received and not handed out.

    `begins` says whether a secret may have begun in the last bytes of a line. `uncut` returns how many of the last
    bytes to hold back so that no known secret is split, at least as many as it is given.
    """

    def __init__(self, begins: Callable[[bytes], bool], uncut: Callable[[bytes, int], int]) -> None:
        self._begins = begins
        self._uncut = uncut
        self._held = b""
        self.line = b""
        """The last bytes of the line that was handed out in part."""

    def feed(self, data: bytes) -> bytes:
        """Add received bytes, and return those that may be handed out."""
        held = self._held + data
        return self._hand_out(held, len(held) - self._kept(held))

    def rest(self) -> bytes:
        """Return all that was held back, at the end of the stream."""
        return self._hand_out(self._held, len(self._held))

    def _hand_out(self, held: bytes, end: int) -> bytes:
        out, self._held = held[:end], held[end:]
        line = self.line + out[-MOST:]
        self.line = line[_line_start(line) :][-LOOK:]
        return out

    def _kept(self, held: bytes) -> int:
        """Return how many of the last bytes to hold back."""
        kept = max(_half_character(held), begun(held, _BEGIN))
        begin = held.rfind(_BEGIN, max(len(held) - MOST, 0))
        if begin >= 0 and held.find(_END, begin) < 0:
            kept = max(kept, len(held) - begin)
        line = self.line + held[-MOST:]
        start = _line_start(line)
        if self._begins(line[start:][-LOOK:]):
            kept = max(kept, len(line) - start)
        kept = min(kept, len(held))
        return self._uncut(held, kept if kept < MOST else _end_of_run(held))


def begun(data: bytes, form: bytes) -> int:
    """Return how many of the last bytes of data are a beginning of a text, and not all of it."""
    at = max(len(data) - len(form) + 1, 0)
    while (at := data.find(form[:1], at)) >= 0:
        if form.startswith(data[at:]):
            return len(data) - at
        at += 1
    return 0


def _line_start(data: bytes) -> int:
    """Return where the last line begins, with those before it that it continues."""
    start = data.rfind(b"\n") + 1
    while start:
        before = data.rfind(b"\n", 0, start - 1) + 1
        if not data[before:start].rstrip().endswith(_GOES_ON):
            break
        start = before
    return start


def _half_character(data: bytes) -> int:
    """Return how many of the last bytes are the beginning of a character in UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data[-3:].lstrip(bytes(range(0x80, 0xC0))))
    except UnicodeDecodeError:
        return 0
    return len(decoder.getstate()[0])


def _end_of_run(held: bytes) -> int:
    """Return how many of the last bytes to hold back of too many: the word or number at the end."""
    kept = 0
    while kept < MOST // 2 and held[-kept - 1] in _RUN:
        kept += 1
    return kept if kept < MOST // 2 else 0
