"""The typed catalogue of domain events: known names, and validation of their payloads.

Names of domain events are open. A name in the catalogue has a payload class, and its payload is validated
against it. The payload classes are made on first use, so a program that emits no event does not pay for them.

This package must never make a payload fit: nothing is coerced, dropped or guessed. It knows nothing of logs,
stores or secrets, and does no IO.
"""

from __future__ import annotations

from typing import Any

from machine.catalogue.field_types import Count as Count
from machine.catalogue.field_types import Ratio as Ratio
from machine.catalogue.field_types import Time as Time
from machine.catalogue.markdown import render_markdown as render_markdown
from machine.catalogue.registry import Catalogue as Catalogue
from machine.catalogue.registry import Custom as Custom
from machine.catalogue.registry import Kind as Kind
from machine.catalogue.registry import Level as Level

STANDARD: Catalogue
"""Every kind this library knows."""


def __getattr__(name: str) -> Any:
    """Return `STANDARD`, a payload class or a part of one, or `__all__`, which lists them too."""
    # making 70 attrs classes takes longer than importing the rest of this package
    from machine.catalogue.kinds import STANDARD  # noqa: PLC0415 - only when it is needed
    from machine.catalogue.payload_parts import ErrorInfo, Parent  # noqa: PLC0415 - with the others

    late: dict[str, Any] = {kind.payload.__name__: kind.payload for kind in STANDARD}
    late |= {"STANDARD": STANDARD, "ErrorInfo": ErrorInfo, "Parent": Parent}
    named = {"Catalogue", "Count", "Kind", "Level", "Ratio", "Time", "render_markdown"}
    late["__all__"] = sorted({*late, *named})
    if name not in late:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals().update(late)
    return late[name]
