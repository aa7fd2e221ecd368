"""Tools for users' tests: golden runs in pytest, the crash matrix, and the conformance kit for stores.

Each name is loaded on first use: the kit needs pytest and hypothesis, and the pytest plugin, which is in this
package, must cost a suite without golden tests nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from machine.lazy_loading import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
