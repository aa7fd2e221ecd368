"""Decompressing what a server sends, and never more of it than asked for.

Only the codings that the standard library knows everywhere are undone, so that a body does not depend on what
else is installed. A few bytes may stand for gigabytes: the limit holds while decompressing, not after.
"""

from __future__ import annotations

import zlib
from typing import Final

__all__ = ["CODINGS", "Inflater"]

CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
"""The content codings that `Inflater` undoes (RFC 9110 section 8.4.1); any other is left as it came."""

_GZIP: Final = 16 + zlib.MAX_WBITS
_SHORTEST_HEADER: Final = 2


class Inflater:
    """Undoes one content coding, chunk by chunk."""

    __slots__ = ("_coding", "_held", "_stream")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._held = b""
        self._stream = zlib.decompressobj(_GZIP) if coding != "deflate" else None

    def feed(self, chunk: bytes, most: int) -> bytes:
        """Return what `chunk` adds to the content, at most `most` bytes of it (at least 1).

        When that many come back there may be more, which is lost. Raises `zlib.error` for data in another
        form.
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
        while self._held and len(content) < most:
            if self._stream.eof:
                if self._coding == "deflate" or not self._held.startswith(b"\x1f"):
                    self._held = b""  # padding after the end, which decoders ignore
                    break
                self._stream = zlib.decompressobj(_GZIP)  # RFC 1952 section 2.2: members follow each other
            data, self._held = self._held, b""
            content += self._stream.decompress(data, most - len(content))
            self._held = self._stream.unused_data or self._stream.unconsumed_tail
        return content

    @property
    def complete(self) -> bool:
        """Whether the content ended where its own format says that it ends; a body of no bytes at all did."""
        if self._stream is None:
            return not self._held
        return self._stream.eof
