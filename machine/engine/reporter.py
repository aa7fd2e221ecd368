"""Observation: what a run tells while it goes on. The methods do nothing; override what you need."""

from __future__ import annotations

import logging

from machine.errors import ConcurrencyError
from machine.events import Entry
from machine.plan import Graph
from machine.watch.watch import Undeclared

__all__ = ["Reporter", "held_text"]


def held_text(state_id: str, seconds: float) -> str:
    """Return what to say of a handler that kept the event loop from everything else."""
    return (
        f"{state_id} held the event loop for {seconds:.1f} s: no timeout, cancellation or other state could take "
        f"effect; declare the handler with def, which gets a thread, or await asyncio.to_thread(...) in it"
    )


class Reporter:
    """Watches a run. It never influences one: an exception it raises stops the run like a crash would."""

    def starting(self, run_id: str, graph: Graph) -> None:
        """Note that a run is about to be driven, from its beginning or from where its log ends."""

    def entry(self, entry: Entry) -> None:
        """Note an entry of the log, already folded; in live mode it may not be durable yet."""

    def leased(self, why: ConcurrencyError, seconds: float) -> None:
        """Note that a driver's lease has to be waited out, for so many seconds, before its run is taken over.

        `why` is what is raised if the driver turns out to live meanwhile.
        """

    def waiting(self, state_id: str, seconds: float) -> None:
        """Note that the run waits before the next attempt of a state."""

    def held(self, state_id: str, seconds: float) -> None:
        """Note that a handler kept the event loop from everything else for so long.

        This one logs a warning.
        """
        logging.getLogger("machine").warning("%s", held_text(state_id, seconds))

    def undeclared(self, state_id: str, what: Undeclared) -> None:
        """Note what a handler is about to do without `io`, once for each place of an attempt.

        Called from the thread that the handler runs in. This one logs a warning.
        """
        logging.getLogger("machine").warning("%s %s", state_id, what)
