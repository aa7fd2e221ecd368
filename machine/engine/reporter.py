"""Observation: what a run tells while it goes on. The methods do nothing; override what you need."""

from __future__ import annotations

from machine.events import Entry
from machine.plan import Graph

__all__ = ["Reporter"]


class Reporter:
    """Watches a run. It never influences one: an exception it raises stops the run like a crash would."""

    def starting(self, run_id: str, graph: Graph) -> None:
        """Note that a run is about to be driven, from its beginning or from where its log ends."""

    def entry(self, entry: Entry) -> None:
        """Note an entry of the log, already folded; in live mode it may not be durable yet."""

    def waiting(self, state_id: str, seconds: float) -> None:
        """Note that the run waits before the next attempt of a state."""
