"""Two runs of the same code: where the outside first answered a call otherwise."""

from __future__ import annotations

from typing import Final

import attrs

from machine.events import FactRecorded
from machine.replay.divergence import Cause, Divergence, DivergenceKind
from machine.replay.past_run import PastRun
from machine.replay.pointer import diff

__all__ = ["other_answer"]

_NEVER_THE_SAME: Final = frozenset({"clock", "random"})


def other_answer(recorded: PastRun, now: PastRun) -> Divergence | None:
    """Return the first recorded call that `now` has another answer to, or has not made; None when there is none.

    The clock and randomness answer otherwise every time, which is no news of the outside.
    """
    for entry in recorded.entries:
        fact = entry.event
        if not isinstance(fact, FactRecorded) or fact.namespace.partition(".")[0] in _NEVER_THE_SAME:
            continue
        other = now.history.facts.get(fact.key)
        if other is None:
            found = Divergence(
                kind=DivergenceKind.CALL_MISSING,
                seq=entry.seq,
                summary=f"a recorded call of {fact.namespace} was not made again",
                recorded=recorded.call(fact),
            )
        elif (other.outcome, other.request_digest) == (fact.outcome, fact.request_digest):
            continue
        else:
            sides = recorded.call(fact), now.call(other)
            found = Divergence(
                kind=DivergenceKind.VALUE_DIFFERS,
                seq=entry.seq,
                summary=f"a call of {fact.namespace} has another answer now",
                recorded=sides[0],
                now=sides[1],
                changes=diff(*sides),
            )
        return attrs.evolve(
            found,
            state_id=fact.state_id,
            attempt=fact.attempt,
            cause=Cause.OUTSIDE_CHANGED,
            cause_text="the code does what it did, and the outside does not",
        )
    return None
