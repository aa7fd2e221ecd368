"""Tools for users' tests: golden runs in pytest, the crash matrix, and the conformance kit for stores.

Each name is loaded on first use: the kit needs pytest and hypothesis, and the pytest plugin, which is in this
package, must cost a suite without golden tests nothing.
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
