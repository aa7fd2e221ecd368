"""What a run is driven with: its log, what it begins with, and what is said to it from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import attrs

from machine.config import RunManifest
from machine.errors import ErrorInfo
from machine.io.scope import Log, Payloads, Timers
from machine.kernel.decisions import EnterState
from machine.plan import Graph, PlanState

__all__ = ["DrivenLog", "Opening", "Outside"]


class Outside(NamedTuple):
    """What was said from outside: the plan in force now, whether the run was cancelled, a state to begin with.

    `failed` is why it cannot go on, where what a handler left behind has acted since.
    `limited` is false where limits are not looked at: a replay does what the recording did.
    `secrets_lost` says that there are facts of which the driver cannot open the true values.
    """

    graph: Graph
    cancel: bool
    prefer: str | None = None
    failed: ErrorInfo | None = None
    limited: bool = True
    secrets_lost: bool = False


class DrivenLog(Log, Protocol):
    """What the driver asks of a log beyond what `io` asks."""

    timers: Timers | None
    """What knows when the sleeps of the run end; None where nobody sleeps."""

    @property
    def waited(self) -> float:
        """For how many seconds the event loop stood still for the store."""
        ...

    def limit(self, timeout: float | None) -> float | None:
        """Return how long an attempt may take in seconds, None for as long as it likes."""
        ...

    def overdue(self, state: PlanState, timeout: float | None) -> BaseException:
        """Return what an attempt that took longer is ended with."""
        ...

    def outside(self, graph: Graph) -> Outside:
        """Take in what was said from outside, where `graph` was in force until now."""
        ...

    def carry(self, decision: EnterState) -> bool:
        """Take over a recorded attempt that was cut, and say whether there was one. Never so in live mode."""
        ...


@attrs.frozen
class Opening:
    """What a run begins with: the bodies of its first artifacts, and what is only informational."""

    manifest: RunManifest
    manifest_id: str
    payloads: Payloads
    info: Mapping[str, str]
    input_writes: Mapping[str, bytes | None]
