"""The libraries whose clients this package can record, as `Plan(clients=[...])` names them."""

from __future__ import annotations

from types import FrameType

from machine.watch.code_origin import Origin, above, name_of, origin_of
from machine.watch.safe_inspection import static_name


def has_client(name: str) -> bool:
    """Say whether the clients of a library of this name can be recorded."""
    return name in (static_name("machine.recorded_clients", "MODULES") or ())


def client_of(frame: FrameType | None, own: frozenset[str]) -> str | None:
    """Return the library that the user called and whose clients can be recorded, or None.

    A library may use another: the outermost that can be recorded counts.
    """
    packages = (
        name_of(at.f_globals).partition(".")[0] for at in above(frame) if origin_of(at, own) is Origin.LIBRARY
    )
    return next((name for name in [*packages][::-1] if has_client(name)), None)
