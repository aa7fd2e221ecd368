"""Decompression of a server's response, never beyond the requested size.

Only the codings that the standard library always supports are decoded, so that a body does not depend on the
installed packages. A few bytes may stand for gigabytes, so the limit holds during decompression.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
"""The content codings that `Inflater` decodes (RFC 9110 section 8.4.1); any other is left as received."""

MOST_CODINGS: Final = 8
"""The largest number of codings of one body that are decoded."""

_COMMA: Final = re.compile(r"\s*,\s*")
_GZIP: Final = 16 + zlib.MAX_WBITS
_SHORTEST_HEADER: Final = 2
_SLICE: Final = 64 * 1024


def split_codings(values: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the codings of a body that can be decoded, the last applied first, and the rest in their order.

    `values` are those of all its `content-encoding` headers. A coding can be decoded only when no unknown one was
    applied after it.
    """
    left = [coding for value in values for coding in _COMMA.split(value.strip().lower()) if coding]
    left = [coding for coding in left if coding != "identity"]
    undone: list[str] = []
    while left and left[-1] in CODINGS:
        undone.append(left.pop())
    return undone, left


class Decompressor:
    """Decoder of several content codings, the last applied first, chunk by chunk."""

    __slots__ = ("_stages",)

    def __init__(self, codings: Sequence[str]) -> None:
        """Raise `zlib.error` when there are too many codings."""
        if len(codings) > MOST_CODINGS:
            raise zlib.error(f"more than {MOST_CODINGS} codings")
        self._stages = [Inflater(coding) for coding in codings]

    def feed(self, chunk: bytes, most: int) -> bytes:
        """Return the content that `chunk` adds, as `Inflater.feed` does."""
        return _through(self._stages, chunk, most)

    @property
    def complete(self) -> bool:
        """True when each coding ended where its own format says that it ends."""
        return all(stage.complete for stage in self._stages)


def _through(stages: Sequence[Inflater], chunk: bytes, most: int) -> bytes:
    stage, *others = stages
    if not others:
        return stage.feed(chunk, most)
    content = b""
    while len(content) < most and (piece := stage.feed(chunk, _SLICE)):
        chunk = b""
        content += _through(others, piece, most - len(content))
    return content


class Inflater:
    """Decoder of one content coding, chunk by chunk."""

    __slots__ = ("_coding", "_full", "_held", "_stream")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._held = b""
        self._full = False
        self._stream = zlib.decompressobj(_GZIP) if coding != "deflate" else None

    def feed(self, chunk: bytes, most: int) -> bytes:
        """Return the content that `chunk` adds, at most `most` bytes of it (at least 1).

        When that many come back there may be more, which comes with the next call. Raises `zlib.error` for data in
        another form.
        """
        self._held += chunk
        if self._stream is None:
            if len(self._held) < _SHORTEST_HEADER:
                return b""
            # some servers send bare deflate data where RFC 9110 section 8.4.1.2 asks for the zlib format
            zlib_header = (
                self._held[0] & 15 == zlib.DEFLATED and int.from_bytes(self._held[:2], "big") % 31 == 0
            )
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
        content = b""
        while (self._held or self._full) and len(content) < most:
            if self._stream.eof:
                if self._coding == "deflate" or not self._held.startswith(b"\x1f"):
                    self._held = b""  # padding after the end, which decoders ignore
                    break
                self._stream = zlib.decompressobj(_GZIP)  # RFC 1952 section 2.2: members follow each other
            data, self._held = self._held, b""
            piece = self._stream.decompress(data, most - len(content))
            content += piece
            self._full = (
                len(content) == most and not self._stream.eof
            )  # the decoder may hold back what did not fit
            self._held = self._stream.unused_data or self._stream.unconsumed_tail
        return content

    @property
    def complete(self) -> bool:
        """True when the content ended where its own format says that it ends, or has no bytes at all."""
        if self._stream is None:
            return not self._held
        return self._stream.eof
