"""Observation of a run in progress. The methods do nothing by default; override the ones you need."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar

from machine.errors import ConcurrencyError
from machine.events import Entry
from machine.plan import Graph
from machine.watch.watch import Undeclared


def held_text(state_id: str, seconds: float) -> str:
    """Return the message about a handler that held the event loop."""
    return (
        f"{state_id} held the event loop for {seconds:.1f} s: no timeout, cancellation or other state could take "
        f"effect; declare the handler with def, which gets a thread, or await asyncio.to_thread(...) in it"
    )


def unused_text(names: Sequence[str], waits: Sequence[str]) -> str:
    """Return the message about answers given in advance that no wait has taken."""
    waited = f"it waited for {', '.join(waits)}" if waits else "it waited for no approval and no signal"
    return f"nothing in the run has taken the answer {', '.join(map(repr, names))}: {waited}"


class Reporter:
    """An observer of a run. It never influences one: an exception it raises stops the run as a crash would."""

    in_any_thread: ClassVar[bool] = False
    """True in a class whose `entry` may be called in the threads of plain handlers too, one call after another.

    Otherwise it is called on the event loop, which makes their recorded calls slower.
    """

    def starting(self, run_id: str, graph: Graph) -> None:
        """Report that a run is about to be driven, from its beginning or from where its log ends."""

    def entry(self, entry: Entry) -> None:
        """Report an entry of the log, already folded; in live mode it may not be durable yet."""

    def leased(self, why: ConcurrencyError, seconds: float) -> None:
        """Report that a run is taken over after waiting for the lease of its driver, in seconds.

        `why` is the exception to raise if the driver turns out to be alive.
        """

    def waiting(self, state_id: str, seconds: float) -> None:
        """Report that the run waits before the next attempt of a state."""

    def held(self, state_id: str, seconds: float) -> None:
        """Report that a handler held the event loop for so long.

        The default logs a warning.
        """
        logging.getLogger("machine").warning("%s", held_text(state_id, seconds))

    def unused_answers(self, names: Sequence[str], waits: Sequence[str]) -> None:
        """Report answers given in advance that no wait has taken, with the names of the waits that there were.

        The default logs a warning.
        """
        logging.getLogger("machine").warning("%s", unused_text(names, waits))

    def undeclared(self, state_id: str, what: Undeclared) -> None:
        """Report an undeclared act that a handler is about to perform, once for each place of an attempt.

        Called from the thread that the handler runs in. The default logs a warning.
        """
        logging.getLogger("machine").warning("%s %s", state_id, what)
