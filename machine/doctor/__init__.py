"""The doctor: finds what makes a plan behave differently in another process, place or time."""

from __future__ import annotations

from machine.doctor.checks import examine_plan as examine_plan
from machine.doctor.checks import examine_recording as examine_recording
from machine.doctor.findings import Diagnosis as Diagnosis
from machine.doctor.findings import Difference as Difference
from machine.doctor.findings import Environment as Environment
from machine.doctor.findings import Finding as Finding
