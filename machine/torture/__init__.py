"""Torture: a run that is killed at every boundary, in every way a store can fail, and checked each time."""

from __future__ import annotations

from machine.torture.faults import FAULTS as FAULTS
from machine.torture.faults import Fault as Fault
from machine.torture.matrix import Boundary as Boundary
from machine.torture.matrix import Cell as Cell
from machine.torture.matrix import CrashMatrix as CrashMatrix
from machine.torture.matrix import crash_matrix as crash_matrix
