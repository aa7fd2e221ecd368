"""The doctor: finds what makes a plan answer differently in another process, at another place and another time."""

from __future__ import annotations

from machine.doctor.diagnosis import Diagnosis, Difference, Environment, Finding
from machine.doctor.examination import examine_plan, examine_recording

__all__ = ["Diagnosis", "Difference", "Environment", "Finding", "examine_plan", "examine_recording"]
