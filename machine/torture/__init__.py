"""Torture: a run that is killed at every boundary, in every way a store can fail, and checked each time."""

from __future__ import annotations

from machine.torture.faults import FAULTS, Fault
from machine.torture.matrix import Boundary, Cell, CrashMatrix, crash_matrix

__all__ = ["FAULTS", "Boundary", "Cell", "CrashMatrix", "Fault", "crash_matrix"]
