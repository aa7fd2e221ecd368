"""The doctor: finds what makes a plan answer differently in another process, at another place and another time."""

from __future__ import annotations

from machine.doctor.checks import examine_plan, examine_recording
from machine.doctor.report import Diagnosis, Difference, Environment, Finding

__all__ = ["Diagnosis", "Difference", "Environment", "Finding", "examine_plan", "examine_recording"]
