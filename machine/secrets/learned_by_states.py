"""Secrets that the states of a run have learned from their facts, and those that a later state knows.

It follows from the log and the plan alone, whichever of concurrent states was first: so it is the same live, after
a crash and in a replay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from machine.secrets.known_values import Known

Followed: TypeAlias = Callable[[str, Collection[str]], Sequence[str]]
"""Function from a state and candidates to those candidates that the state follows, in the order of the plan."""


class Learned:
    """The secrets that each state of a run has learned, by attempt."""

    def __init__(self) -> None:
        self._states: dict[str, dict[int, Known]] = {}
        self._merged: dict[tuple[str, ...], Known] = {}
        # of states that run one after the other: what those that have ended know, and those that are to be added
        self._earlier = Known()
        self._latest: dict[str, None] = {}

    def learn(self, state_id: str, attempt: int, source: str, value: str, *, sure: bool) -> None:
        """Add the secrets that an attempt has learned from a fact."""
        self.of(state_id, attempt).learn(source, value, sure=sure)

    def of(self, state_id: str, attempt: int) -> Known:
        """Return the secrets that an attempt has learned, as an object that may be modified."""
        self._latest[state_id] = None
        return self._states.setdefault(state_id, {}).setdefault(attempt, Known())

    def before(self, state_id: str, followed: Followed | None, *, but: Collection[int]) -> Known:
        """Return the secrets that a new attempt knows: those of the states it follows and of its earlier attempts.

        Without `followed` it follows all others: they run one after the other. `but` are attempts to leave
        out: their process died, and everything that they could have left to another with it.
        """
        if not self._states:
            return self._earlier
        known = self._before(state_id) if followed is None else self._after(state_id, followed)
        own = self._states.get(state_id, {})
        return _together(known, *(learned for attempt, learned in own.items() if attempt not in but))

    def by(self, state_id: str) -> Collection[Known]:
        """Return the secrets that each attempt of a state has learned."""
        return self._states.get(state_id, {}).values()

    def _before(self, state_id: str) -> Known:
        for other in [each for each in self._latest if each != state_id]:
            for learned in self._states[other].values():
                self._earlier.add(learned)
            del self._latest[other]
        return self._earlier

    def _after(self, state_id: str, followed: Followed) -> Known:
        states = tuple(followed(state_id, self._states)) if self._states else ()
        if states not in self._merged:
            self._merged[states] = _together(
                Known(), *(learned for other in states for learned in self._states[other].values())
            )
        return self._merged[states]


def _together(known: Known, *others: Known) -> Known:
    if not others:
        return known
    known = known.copy()
    for other in others:
        known.add(other)
    return known
