"""The catalogue that this library includes: every group of kinds, in order."""

from __future__ import annotations

from typing import Final

from machine.catalogue import coordination, limits, runs, strategies, tools, waiting
from machine.catalogue.registry import Catalogue

__all__ = ["STANDARD"]

STANDARD: Final = Catalogue(
    (
        *runs.KINDS,
        *tools.KINDS,
        *waiting.KINDS,
        *limits.KINDS,
        *strategies.KINDS,
        *coordination.KINDS,
    )
)
"""Every kind this library knows."""
