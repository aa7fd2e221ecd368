"""Which recorded facts a later attempt of a state is given again."""

from __future__ import annotations

from machine.events import FactRecorded
from machine.kernel.history import History

__all__ = ["reusable"]


def reusable(
    history: History, state_id: str, namespace: str, digest: str, occurrence: int, *, keeps_all: bool
) -> FactRecorded | None:
    """Return the fact of an earlier attempt that answers a call of the open attempt, None when none does.

    The n-th call with a request is answered by the n-th success there was: what failed before it is no
    reason to do it again. `keeps_all` is true for a state that applies side effects: it reuses the facts of
    every earlier attempt.
    """
    state = history.states[state_id]
    first = 0 if keeps_all else state.fresh_from
    if first == state.attempts - 1:
        return None  # there is no earlier attempt to look into, however many calls this one has made
    earlier = [
        fact
        for fact in history.successes.get((state_id, namespace, digest), ())
        if (made_in := fact.made_in) is not None and first <= made_in < state.attempts - 1
    ]
    return earlier[occurrence] if occurrence < len(earlier) else None
