"""The exception by which a handler that waits for external input unwinds."""

from __future__ import annotations


class PutAway(BaseException):
    """Raised where a handler waits, when its attempt is put away; no `Exception`, so that handlers do not catch it.

    Whatever the handler makes of it, the attempt goes on later, from its beginning and on its recorded facts.
    """

    def __init__(self) -> None:
        super().__init__("the attempt is put away until one of its waits is answered")
