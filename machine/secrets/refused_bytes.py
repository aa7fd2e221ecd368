"""Refusal of bytes that hold a secret where they are stored as they are: no placeholder can stand in them."""

from __future__ import annotations

from machine.errors import Code, StateError


def secret_in_bytes(what: str) -> StateError:
    """Return the refusal of bytes that are no text, or come in pieces, and hold a secret."""
    return StateError(
        f"{what} holds a secret, and was not written",
        code=Code.SECRET_IN_EVENT,
        hint="leave it out; in a text or a JSON value that is given as a whole it is replaced by a placeholder",
    )
