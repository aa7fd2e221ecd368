"""The exception by which a handler that waits for external input unwinds."""

from __future__ import annotations

import threading
from typing import Any


class PutAway(BaseException):
    """Raised where a handler waits, when its attempt is put away; no `Exception`, so that handlers do not catch it.

    Whatever the handler makes of it, the attempt goes on later, from its beginning and on its recorded facts.
    """

    def __init__(self) -> None:
        super().__init__("the attempt is put away until one of its waits is answered")


def end_thread_quietly() -> None:
    """Have the exception end a thread of a handler without a report on stderr, since nothing is wrong.

    Whatever else ends a thread goes to the hook that was there. One that is set later is wrapped in turn.
    """
    report = threading.excepthook
    if getattr(report, "passes_over", None) is PutAway:
        return

    def hook(args: Any, /) -> None:
        if not (args.exc_type is not None and issubclass(args.exc_type, PutAway)):
            report(args)

    hook.passes_over = PutAway  # type: ignore[attr-defined]  # functions take any attribute
    threading.excepthook = hook
