"""Answers of earlier attempts to the calls of a database transaction, which are reused as a whole or not at all."""

from __future__ import annotations

import attrs

from machine.events import FactRecorded
from machine.kernel.history import History
from machine.kernel.reuse import attempts_before, comparable
from machine.kernel.transactions import ENDS, UNIT, Unit


@attrs.frozen
class Place:
    """The place of a call in its transaction: the unit's name in its attempt, and its number in the unit.

    `ends` is what its success makes of the unit: `committed`, `read`, or nothing yet.
    """

    unit: str
    number: int
    ends: str = ""
    keyed: bool = False
    """True when its effect leaves a key in the database, by which a crash can be cleared up."""

    def info(self) -> dict[str, str]:
        """Return the info of the fact of such a call."""
        return {UNIT: self.unit, ENDS: self.ends} if self.ends else {UNIT: self.unit}


@attrs.define
class TransactionAnswers:
    """The earlier units that answer those of one attempt of a state."""

    state_id: str
    attempt: int
    keeps_all: bool
    _matched: dict[str, Unit] = attrs.field(factory=dict)

    def answer(self, history: History, place: Place, digest: str, mac: str | None) -> FactRecorded | None:
        """Return the fact of an earlier attempt that answers a call, or None.

        The unit with the same place among the attempt's connections is preferred. Where another has taken its
        place, because connections were opened in another order, the first with the same beginning is taken.
        """
        if place.number == 0:
            unit = self._choose(history, place.unit, digest)
            if unit is not None:
                self._matched[place.unit] = unit
        unit = self._matched.get(place.unit)
        if unit is None or place.number >= len(unit.facts):
            return None
        fact = unit.facts[place.number]
        known = history.sealed.macs.get(fact.key)
        other = (mac or known) and not (mac and known and (mac == known or not comparable(mac, known)))
        return None if fact.request_digest != digest or other or fact.key in history.sealed.lost else fact

    def _choose(self, history: History, name: str, digest: str) -> Unit | None:
        within = attempts_before(history, self.state_id, keeps_all=self.keeps_all)
        if not within:
            return None
        taken = {id(unit) for unit in self._matched.values()}
        units = [
            unit
            for unit in history.transactions.of(self.state_id, within)
            if unit.facts and unit.facts[0].request_digest == digest and id(unit) not in taken
        ]
        named = [unit for unit in units if unit.name == name]
        return next((unit for unit in named or units if unit.ended), None)

    def of(self, name: str) -> Unit | None:
        """Return the earlier unit that has answered one of this attempt."""
        return self._matched.get(name)

    def made_already(self, history: History, name: str) -> bool:
        """Say whether an earlier attempt has committed the same calls as a unit that it did not answer."""
        own = history.transactions.units.get((self.state_id, self.attempt, name))
        digests = [fact.request_digest for fact in own.facts] if own is not None else []
        taken = {id(unit) for unit in self._matched.values()}
        within = attempts_before(history, self.state_id, keeps_all=self.keeps_all)
        return any(
            unit.wrote
            and id(unit) not in taken
            and [fact.request_digest for fact in unit.facts[:-1]] == digests
            for unit in history.transactions.of(self.state_id, within)
        )
