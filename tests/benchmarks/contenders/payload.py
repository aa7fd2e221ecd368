"""What a trivial step returns. Nothing is imported here: see `plans`."""

from __future__ import annotations

TEXT = "x" * 150


def result(number):
    """Return what a trivial step returns: about 200 bytes as JSON."""
    return {"number": number, "text": TEXT, "ok": True, "list": [1, 2, 3]}
