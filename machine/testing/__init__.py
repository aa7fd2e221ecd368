"""What users test with: the conformance kit that every store must pass. It needs pytest and hypothesis."""

from __future__ import annotations

from machine.testing.store_conformance import StoreConformance

__all__ = ["StoreConformance"]
