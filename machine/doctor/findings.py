"""The findings of an examination, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from machine.recordings.result_json import fields_json


@attrs.frozen
class Environment:
    """The environment of a process: its variables, and whether it has a working directory of its own."""

    variables: Mapping[str, str]
    elsewhere: bool

    def __str__(self) -> str:
        set_to = " ".join(f"{name}={value}" for name, value in self.variables.items())
        return f"{set_to} in {'another' if self.elsewhere else 'the same'} directory"

    def to_json(self) -> dict[str, Any]:
        """Return the environment as a JSON object."""
        return fields_json(self)


@attrs.frozen
class Finding:
    """I/O that bypasses `io`: the call, its source line, and what to do instead."""

    state_id: str
    event: str
    does: str
    file: str
    line: int
    remedy: str
    effect: bool = False


@attrs.frozen
class Difference:
    """A replay that differs from its recording: its environment, and the divergence as JSON and as text."""

    run_id: str
    environment: Environment
    divergence: Mapping[str, Any]
    lines: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the difference as a JSON object."""
        return fields_json(self, "run_id", "environment", "divergence")


@attrs.frozen
class Diagnosis:
    """The findings of all runs together.

    `runs` maps the id of each examined run to its status, `replays` counts the replays, and `problems` are
    sentences about what could not be examined.
    """

    runs: Mapping[str, str]
    replays: int
    findings: tuple[Finding, ...]
    differences: tuple[Difference, ...]
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """True when nothing was found and everything could be examined."""
        return not (self.findings or self.differences or self.problems)

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as a JSON object."""
        return {
            "healthy": self.healthy,
            "runs": [{"run_id": run_id, "status": status} for run_id, status in self.runs.items()],
            "replays": self.replays,
            "findings": [attrs.asdict(finding) for finding in self.findings],
            "differences": [difference.to_json() for difference in self.differences],
            "problems": list(self.problems),
        }
