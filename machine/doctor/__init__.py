"""The doctor: finds what makes a plan behave differently in another process, place or time."""

from __future__ import annotations

from machine.doctor.checks import examine_plan, examine_recording
from machine.doctor.report import Diagnosis, Difference, Environment, Finding

__all__ = ["Diagnosis", "Difference", "Environment", "Finding", "examine_plan", "examine_recording"]
