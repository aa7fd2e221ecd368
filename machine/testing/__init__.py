"""What users test with: golden runs in pytest, the crash matrix, and the kit that every store must pass.

Each name is loaded when it is first used: the kit needs pytest and hypothesis, and the pytest plugin, which lives
here, must cost a suite without golden tests nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from machine.testing.golden import Golden
    from machine.testing.store_conformance import StoreConformance
    from machine.torture import CrashMatrix, crash_matrix

__all__ = ["CrashMatrix", "Golden", "StoreConformance", "crash_matrix"]

_HOMES: Final = {
    "CrashMatrix": "machine.torture",
    "Golden": "machine.testing.golden",
    "StoreConformance": "machine.testing.store_conformance",
    "crash_matrix": "machine.torture",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
