"""Answers of earlier attempts to the calls of a database transaction, which are reused as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from machine.events import FactRecorded
from machine.kernel.history import History
from machine.kernel.reuse import comparable
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
    """The earlier units that answer those of one attempt, by the names of the latter."""

    _matched: dict[str, Unit] = attrs.field(factory=dict)

    def answer(self, units: Iterable[Unit], place: Place, digest: str) -> FactRecorded | None:
        """Return the fact among some units that answers a call, or None.

        The unit with the same place among the attempt's connections is preferred. Where another has taken its
        place, because connections were opened in another order, the first with the same beginning is taken.
        """
        if place.number == 0:
            like = [
                unit for unit in self._free(units) if unit.facts and unit.facts[0].request_digest == digest
            ]
            named = [unit for unit in like if unit.name == place.unit]
            found = next((unit for unit in named or like if unit.ended), None)
            if found is not None:
                self._matched[place.unit] = found
        unit = self._matched.get(place.unit)
        if unit is None or place.number >= len(unit.facts):
            return None
        fact = unit.facts[place.number]
        return fact if fact.request_digest == digest else None

    def of(self, name: str) -> Unit | None:
        """Return the earlier unit that has answered one of this attempt."""
        return self._matched.get(name)

    def has_committed(self, units: Iterable[Unit], digests: Sequence[str]) -> bool:
        """Say whether one of some units has committed the same calls, and has answered none of this attempt."""
        return any(
            unit.wrote and [fact.request_digest for fact in unit.facts[:-1]] == digests
            for unit in self._free(units)
        )

    def _free(self, units: Iterable[Unit]) -> Iterator[Unit]:
        taken = {id(unit) for unit in self._matched.values()}
        return (unit for unit in units if id(unit) not in taken)


def told_apart(history: History, fact: FactRecorded, mac: str | None) -> bool:
    """Say whether a fact cannot answer a call because its request held other secrets, or its answer is lost."""
    known = history.sealed.macs.get(fact.key)
    same = mac == known or (bool(mac and known) and not comparable(mac or "", known or ""))
    return not same or fact.key in history.sealed.lost
