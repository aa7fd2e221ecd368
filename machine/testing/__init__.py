"""What users test with: the crash matrix, and the conformance kit that every store must pass.

The kit needs pytest and hypothesis; it is loaded when it is first used, so that the rest needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machine.torture import CrashMatrix, crash_matrix

if TYPE_CHECKING:
    from machine.testing.store_conformance import StoreConformance

__all__ = ["CrashMatrix", "StoreConformance", "crash_matrix"]


def __getattr__(name: str) -> Any:
    if name != "StoreConformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from machine.testing.store_conformance import StoreConformance  # noqa: PLC0415 - see above

    return StoreConformance
